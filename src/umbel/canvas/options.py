"""Options of signatures."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

__all__ = ["LINKS", "copied_options", "maybe_list"]

# Options that hold signatures: what follows.
LINKS = ("link", "link_error")


def copied_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Copy options so that no change of the copy shows in the original."""
    return {key: _copied(value) for key, value in options.items()}


def _copied(value: Any) -> Any:
    if hasattr(value, "clone"):  # a signature
        return value.clone()
    if type(value) is list:
        return [_copied(each) for each in value]
    return deepcopy(value) if isinstance(value, dict) else value


def maybe_list(value: Any) -> list[Any]:
    """Return what may be one, several or nothing as a new list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set) else [value]
