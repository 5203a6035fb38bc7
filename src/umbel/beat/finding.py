"""From what a user writes to the class of a scheduler: a class, `module:Class`, or a name that a package has registered."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from typing import Any

from umbel.beat.classic import Scheduler
from umbel.exceptions import ImproperlyConfigured

__all__ = ["GROUP", "find_scheduler"]

GROUP = "celery.beat_schedulers"
HINT = "If it was written for Celery, call umbel.install_as_celery() first, or start umbel --as-celery: docs/how-to/run-celery-code.md."


def find_scheduler(named: Any, *, group: str = GROUP) -> type[Any]:
    """Return the class that *named* is, or says.

    Raises:
        ImproperlyConfigured: there is none, or it is not of umbel's `Scheduler`.
    """
    found = imported(named, group) if isinstance(named, str) else named
    if not (isinstance(found, type) and issubclass(found, Scheduler)):
        raise ImproperlyConfigured(f"The scheduler {named!r} is no subclass of umbel.beat.Scheduler. {HINT}")
    return found


def imported(name: str, group: str) -> Any:
    """Import what *name* says."""
    registered = {each.name: each.value for each in entry_points(group=group)}
    path = registered.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        module, _, attribute = path.rpartition(".")
    if module == "celery.beat" and "celery" not in sys.modules:
        module = "umbel.beat"
    if not module:
        known = ", ".join(sorted(registered)) or "none"
        raise ImproperlyConfigured(f"There is no scheduler {name!r}. Write module:Class, or a name that is registered: {known}.")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as exc:
        wants = str(exc.name).partition(".")[0] in ("celery", "kombu")
        raise ImproperlyConfigured(f"The scheduler {name!r} cannot be imported: {exc}. {HINT if wants else ''}".rstrip()) from exc
    except AttributeError as exc:
        raise ImproperlyConfigured(f"The scheduler {name!r} cannot be imported: {exc}.") from exc
    return found
