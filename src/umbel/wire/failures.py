"""An exception as JSON: written by the worker that met it, rebuilt by whoever reads the result.

Rebuilding trusts nobody. It imports nothing, and it runs nothing but the constructor of an exception class that the
process has imported already. Celery's, kombu's and billiard's names for what is in `umbel.exceptions` are understood
and written, so that both sides of a mixed fleet catch what they expect.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from umbel import exceptions
from umbel.exceptions import EncodeError, SecurityError
from umbel.wire.jsontypes import dumps
from umbel.wire.saferepr import saferepr

__all__ = ["describe", "rebuild"]

_OURS = exceptions.__name__
_FROM_BILLIARD = frozenset(("SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated"))
_ONLY_OURS = frozenset(("UmbelError", "NotSupported", "BrokerUnavailable", "BackendUnavailable"))
_THEIRS = frozenset(("celery.exceptions", "billiard.exceptions", "kombu.exceptions"))
_PLAIN = frozenset((str, int, float, bool, type(None)))
_LONGEST_NAME = 200


def describe(exc: BaseException) -> dict[str, Any]:
    """Return an exception as values that JSON can say; an argument that it cannot say becomes its repr."""
    cls = type(exc)
    return {
        "exc_type": cls.__qualname__,
        "exc_message": [_sayable(arg) for arg in exc.args],
        "exc_module": _module_on_the_wire(cls),
    }


def rebuild(described: Any) -> BaseException:
    """Make the exception that was described, or one of that name if its class is not imported here.

    What would end a process or a thread (SystemExit, KeyboardInterrupt, GeneratorExit) comes back as an ordinary
    exception of that name: nobody stops us from afar.

    Raises:
        SecurityError: the name is that of something else than an exception class.
    """
    if isinstance(described, BaseException):  # from a pickled result
        return described
    if not isinstance(described, Mapping) or not isinstance(described.get("exc_type"), str):
        return Exception(f"A failure was stored without a description: {saferepr(described, 200)}")
    name, module = described["exc_type"], described.get("exc_module")
    if not isinstance(module, str):
        module = "builtins" if module is None else saferepr(module, _LONGEST_NAME)
    message = described.get("exc_message")
    args = tuple(message) if isinstance(message, (list, tuple)) else () if message is None else (message,)
    return _construct(_class_called(name, module) or _made_up(name, module), args)


def _sayable(arg: Any) -> Any:
    if type(arg) in _PLAIN:
        return arg
    try:
        dumps(arg)
    except EncodeError:
        return saferepr(arg)
    except Exception:  # noqa: BLE001 - a __json__ method of the user's may raise anything
        return saferepr(arg)
    return arg


def _module_on_the_wire(cls: type) -> str:
    module, name = cls.__module__, cls.__qualname__
    if module != _OURS or name in _ONLY_OURS:
        return module
    if name in _FROM_BILLIARD:
        return "billiard.exceptions"
    return "kombu.exceptions" if issubclass(cls, exceptions.KombuError) else "celery.exceptions"


def _class_called(name: str, module: str) -> type[Exception] | None:
    """Find an exception class among the imported modules; None if there is none, or if it is none to be raised here."""
    found = _lookup(_OURS, name) if module in _THEIRS else None
    if found is None:
        found = _lookup(module, name)
    if found is None:
        return None
    if not isinstance(found, type) or not issubclass(found, BaseException):
        raise SecurityError(
            f"A failure names {saferepr(f'{module}.{name}', _LONGEST_NAME)} as its exception, which is a {type(found).__name__}. "
            "Someone else than a worker may be writing to this result backend: look who can.",
        )
    return found if issubclass(found, Exception) else None


def _lookup(module: str, name: str) -> Any:
    """Follow a dotted name by dictionaries only: getattr could run a module's __getattr__, which may import."""
    found = sys.modules.get(module)
    if found is None or not issubclass(type(found), ModuleType):
        return None
    names = object.__getattribute__(found, "__dict__")
    for part in name.split("."):
        found = names.get(part)
        if found is None:
            return None
        names = type.__getattribute__(found, "__dict__") if isinstance(found, type) else {}
    return found


def _made_up(name: str, module: str) -> type[Exception]:
    """Make a class of that name. It keeps the module's name too, so that it describes itself as it was described."""
    clean = "".join(char for char in name[:_LONGEST_NAME] if char.isprintable()) or "Exception"
    body = {"__module__": module[:_LONGEST_NAME], "__qualname__": clean, "__doc__": "An exception whose class is not imported here."}
    return type(clean.rpartition(".")[2] or clean, (Exception,), body)


def _construct(cls: type[Exception], args: tuple[Any, ...]) -> BaseException:
    try:
        made = cls(*args)
    except Exception:  # noqa: BLE001 - its constructor takes other arguments than it keeps
        return Exception(f"{cls}({saferepr(args)[1:-1]})")
    return made if isinstance(made, BaseException) else Exception(f"{cls}({saferepr(args)[1:-1]})")
