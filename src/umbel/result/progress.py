"""How far a task or a group is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Progress", "progress_of"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a task said of itself with `self.progress(current, total, message)`; of a group: how many of its tasks have succeeded."""

    current: float
    total: float
    message: str = ""

    @property
    def fraction(self) -> float:
        """From 0 to 1; 0 if the total is not known."""
        return min(1.0, max(0.0, self.current / self.total)) if self.total > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"current": self.current, "total": self.total, "message": self.message, "fraction": self.fraction}


def progress_of(said: Any) -> Progress | None:
    """Return what goes with a state as a progress; None if it is not one."""
    if not isinstance(said, Mapping):
        return None
    current, total, message = said.get("current"), said.get("total"), said.get("message")
    if isinstance(current, int | float) and isinstance(total, int | float):
        return Progress(current, total, "" if message is None else str(message))
    return None
