"""Names that Celery's users import from `celery.utils.imports`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

__all__ = ["import_from_cwd", "instantiate", "qualname", "symbol_by_name"]


def qualname(obj: Any) -> str:
    """Return the full name of a class, or of that of an object: `package.module.Name`."""
    kind = obj if hasattr(obj, "__qualname__") else type(obj)
    return f"{kind.__module__}.{kind.__qualname__}"


def symbol_by_name(name: Any, aliases: Mapping[str, str] | None = None, package: str | None = None, default: Any = None) -> Any:
    """Import what a text names, as `module:name` or `module.name`; anything else is returned as it is.

    Args:
        name: the text.
        aliases: short names, and what they stand for.
        package: what a relative name starts at.
        default: returned when there is no such module or name.

    Raises:
        ImportError, AttributeError: there is no such module or name, and no *default*.
    """
    if not isinstance(name, str):
        return name
    path = (aliases or {}).get(name) or name
    module, colon, attribute = path.partition(":")
    if not colon:
        module, _, attribute = path.rpartition(".")
    try:
        found: Any = importlib.import_module(module or package or "", package)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
    except (ImportError, AttributeError):
        if default is None:
            raise
        return default
    return found


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Import a class and make an object of it."""
    return symbol_by_name(name)(*args, **kwargs)


def import_from_cwd(module: str, imp: Any = None, package: str | None = None) -> Any:
    """Import a module, with the working directory on the path."""
    from umbel.cli.find import put_working_directory_on_path

    put_working_directory_on_path()
    return (imp or importlib.import_module)(module, package=package)
