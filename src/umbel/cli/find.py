"""From what stands behind `-A` to an app."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any

from umbel.cli.frames import from_first_foreign_frame
from umbel.current import reach
from umbel.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["AppNotFound", "find_app"]

SUBMODULES = ("umbel", "celery")
ATTRIBUTES = ("app", *SUBMODULES)


class AppNotFound(ImproperlyConfigured):
    """What stands behind `-A` does not lead to an app; the text says why."""


def find_app(name: str) -> Umbel:
    """Return the app that *name* leads to, with the working directory on the path.

    Args:
        name: `module:attribute`, `module.attribute`, a module, or a package. In a module the attributes `app`, `umbel` and
            `celery` come first, then the submodules `umbel` and `celery` of a package, then any app in it.

    Raises:
        AppNotFound: there is none, or importing it failed; then the text holds the traceback.
    """
    put_working_directory_on_path()
    module_name, colon, attribute = name.partition(":")
    if not module_name or module_name.startswith(".") or (colon and not attribute):
        raise AppNotFound(f"-A {name!r} names no module. Write it as 'mysite', 'mysite.celery' or 'mysite.celery:app'.")
    found = attribute_of(import_asked(module_name), attribute) if colon else import_dotted(name)
    return app_in(found, name)


def put_working_directory_on_path() -> None:
    """Let modules of the working directory be found first, as `python -m` does."""
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)


def app_in(found: Any, name: str) -> Umbel:
    """Return *found* if it is an app, else the app in the module that it is."""
    if is_app(found):
        app: Umbel = found
        return app
    if not isinstance(found, ModuleType):
        raise AppNotFound(f"-A {name} leads to {described(found)}, not to an app. {advice(found)}")
    return first_app(found) or app_of_submodule(found, name) or any_app(found) or no_app(found, name)


def first_app(module: ModuleType) -> Umbel | None:
    """Return the app under one of the usual names."""
    return next((value for value in (getattr(module, name, None) for name in ATTRIBUTES) if is_app(value)), None)


def app_of_submodule(package: ModuleType, name: str) -> Umbel | None:
    """Return the app in `package.umbel` or `package.celery`."""
    if not hasattr(package, "__path__"):
        return None
    for short in SUBMODULES:
        full = f"{package.__name__}.{short}"
        if full in sys.modules or importlib.util.find_spec(full) is not None:
            return app_in(import_asked(full), f"{name} ({full})")
    return None


def any_app(module: ModuleType) -> Umbel | None:
    """Return the first app in *module*, whatever its name."""
    return next((value for value in list(vars(module).values()) if is_app(value)), None)


def no_app(module: ModuleType, name: str) -> Umbel:
    """Say that *module* holds no app."""
    foreign = next((value for value in list(vars(module).values()) if is_celery(value)), None)
    where = getattr(module, "__file__", None) or "a namespace package, a folder without __init__.py"
    hint = (
        advice(foreign)
        if foreign is not None
        else "Make one with app = Celery('name') (from umbel import Celery), or write -A module:attribute."
    )
    raise AppNotFound(f"-A {name}: the module {module.__name__} ({where}) holds no app. {hint}")


def advice(value: Any) -> str:
    """Say what to do about something that is not an app."""
    if is_celery(value):
        return "It is an app of celery: change its import to 'from umbel import Celery'."
    return "Name an object made with Celery(...) (from umbel import Celery)."


def described(value: Any) -> str:
    """Name a value by its type."""
    return f"a {type(value).__name__} of {type(value).__module__}"


def is_app(value: Any) -> bool:
    """Answer whether *value* is an app of ours; proxies to one are."""
    try:
        return isinstance(value, reach("app"))
    except Exception:  # noqa: BLE001 - a proxy of another library that is bound to nothing here: not an app
        return False


def is_celery(value: Any) -> bool:
    """Answer whether *value* is an app of Celery's."""
    return type(value).__name__ == "Celery" and type(value).__module__.partition(".")[0] == "celery"


def import_dotted(name: str) -> Any:
    """Import the module *name*, else the last part of it as an attribute of the module before it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        parent, dot, last = name.rpartition(".")
        if not is_missing(exc, name):
            raise failed_import(name, exc) from exc
        if not dot or exc.name != name:
            raise missing_module(exc.name or name) from None
    except Exception as exc:
        raise failed_import(name, exc) from exc
    return attribute_of(import_asked(parent), last)


def import_asked(name: str) -> ModuleType:
    """Import the module *name*.

    Raises:
        AppNotFound: it is not there, or something in it failed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if is_missing(exc, name):
            raise missing_module(exc.name or name) from None
        raise failed_import(name, exc) from exc
    except Exception as exc:
        raise failed_import(name, exc) from exc


def attribute_of(holder: Any, path: str) -> Any:
    """Follow the dotted *path* from *holder*."""
    value = holder
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            where = getattr(value, "__name__", type(value).__name__)
            raise AppNotFound(f"The module {where} has no attribute and no submodule {part!r}.") from None
    return value


def is_missing(exc: ModuleNotFoundError, name: str) -> bool:
    """Answer whether *name* itself, or a package that it is in, is what was not found."""
    return exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}."))


def missing_module(name: str) -> AppNotFound:
    """Say that there is no such module."""
    return AppNotFound(f"The module {name} was not found. It was looked for in {os.getcwd()} and on Python's path.")  # noqa: PTH109


def failed_import(name: str, exc: Exception) -> AppNotFound:
    """Say that importing *name* failed, with the traceback of the user's own lines."""
    lines = traceback.format_exception(type(exc), exc, from_first_foreign_frame(exc.__traceback__))
    return AppNotFound(f"The module {name} could not be imported: {type(exc).__name__}: {exc}\n\n{''.join(lines).rstrip()}")
