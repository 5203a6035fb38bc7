"""Where settings come from: objects, mappings, modules, names of these, and environment variables that hold such a name."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Final

from umbel.exceptions import ImproperlyConfigured
from umbel.settings_table import SETTINGS

__all__ = ["MISSING", "Names", "Source", "load", "module_from_envvar", "near_miss", "refuse_mixed_styles"]

MISSING: Final = object()

_LEGACY: Final[Mapping[str, str]] = {setting.legacy: name for name, setting in SETTINGS.items() if setting.legacy}
_OWN: Final = frozenset(name for name, setting in SETTINGS.items() if setting.legacy is None)
_OWN_PREFIX: Final = "UMBEL_"
# Names that others read from the same place and that look like ours.
_OF_OTHERS: Final = frozenset({
    "beat_dburi", "beat_executable", "beat_gid", "beat_logfile", "beat_pidfile", "beat_uid", "beat_umask", "db_reuse_max",
    "firestore_project", "gcs_threadpool_maxsize", "override_backends", "redis_backend_credential_provider",
    "redis_backend_health_check_interval", "redis_client_name", "result_backend_thread_safe", "worker_executable",
    "worker_gid", "worker_logfile", "worker_pidfile", "worker_uid", "worker_umask",
})  # fmt: skip
_NEAR: Final = 0.88  # two swapped letters in a name of ten are near, another word is not


@dataclass(frozen=True, slots=True)
class Names:
    """How settings are spelled where a namespace such as `CELERY` stands before their names."""

    namespace: str | None = None

    @property
    def prefix(self) -> str:
        """What stands before each name, its underscore included."""
        return f"{self.namespace.rstrip('_')}_" if self.namespace else ""

    def canonical(self, key: str) -> str:
        """Return the name of the setting that *key* spells; an unknown key loses the prefix of the namespace only."""
        if key in SETTINGS:
            return key
        bare = key
        if self.prefix and key.startswith(self.prefix):
            bare = key[len(self.prefix) :].lower()
            if bare in SETTINGS:
                return bare
        if key in _LEGACY:
            return _LEGACY[key]
        return self._own(key) or bare

    def spellings(self, name: str) -> list[str]:
        """Return the keys under which a source may hold the setting *name*, the one that counts first."""
        prefix = self.prefix
        keys = [prefix + (name if prefix.islower() else name.upper())] if prefix else []
        setting = SETTINGS.get(name)
        if prefix and name in _OWN:
            keys.append(own_variable(name))
        keys.append(name)
        if setting is not None and setting.legacy:
            keys.append(setting.legacy)
        return keys

    def _own(self, key: str) -> str | None:
        if not self.prefix or not key.startswith(_OWN_PREFIX):
            return None
        return next((name for name in (key[len(_OWN_PREFIX) :].lower(), key.lower()) if name in _OWN), None)


def own_variable(name: str) -> str:
    """Return the name of the setting *name* with our own prefix, as in the environment."""
    return _OWN_PREFIX + name.removeprefix("umbel_").upper()


class Source:
    """Reads settings from a mapping or from the attributes of anything else, each time anew."""

    def __init__(self, held: object, names: Names) -> None:
        self._names = names
        self._held = held
        self._get: Callable[[str], Any]
        if hasattr(held, "keys") and hasattr(held, "__getitem__"):
            mapping: Any = held
            self._get = lambda key: mapping[key] if key in mapping else MISSING  # noqa: SIM401 - it need not have get()
        else:
            self._get = lambda key: getattr(held, key, MISSING)

    def get(self, name: str) -> Any:
        """Return the value of the setting *name* under whichever spelling is there, else MISSING."""
        for key in self._names.spellings(name):
            value = self._get(key)
            if value is not MISSING:
                return value
        return MISSING

    def keys(self) -> Iterator[str]:
        """Yield the keys that are settings, as spelled there; other attributes of an object are not."""
        held: Any = self._held
        if hasattr(held, "keys") and hasattr(held, "__getitem__"):
            yield from (key for key in held.keys() if isinstance(key, str))  # noqa: SIM118 - it need not be iterable
            return
        for key in dir(held):
            if not key.startswith("_") and self._is_setting(key):
                yield key

    def names(self) -> Iterator[str]:
        """Yield the canonical name of each setting that is set there."""
        yield from dict.fromkeys(map(self._names.canonical, self.keys()))

    def _is_setting(self, key: str) -> bool:
        if self._names.canonical(key) in SETTINGS:
            return True
        if self._names.prefix:
            return key.startswith(self._names.prefix)
        return key.islower() and not isinstance(getattr(self._held, key, None), ModuleType | FunctionType | type)


def load(source: object, *, silent: bool = False) -> Any:
    """Return the object that *source* names: `pkg.mod`, `pkg.mod:attr`, `pkg.mod.attr`, or *source* when it is no string.

    Modules are looked for in the working directory too.

    Args:
        source: the name, or the object itself.
        silent: return None when it cannot be imported.

    Raises:
        ModuleNotFoundError: nothing is there, or reading it met a missing attribute.
    """
    if not isinstance(source, str):
        return source
    try:
        with _working_directory():
            return _imported(source)
    except ImportError:
        if silent:
            return None
        raise
    except AttributeError as missing:
        # Raised from `app.conf.x`, an AttributeError would read as "there is no setting x".
        if silent:
            return None
        raise ModuleNotFoundError(
            f"Loading the configuration from {source!r} failed: {missing}. Name a module, as in 'proj.config', "
            "or an attribute, as in 'django.conf:settings'.",
            name=source,
        ) from missing


def module_from_envvar(variable: str, *, silent: bool = False, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the name of the configuration that the environment variable *variable* holds; None if it may be absent.

    Raises:
        ImproperlyConfigured: it is not set or empty, and *silent* is false.
    """
    name = environ.get(variable)
    if not name and not silent:
        raise ImproperlyConfigured(
            f"The environment variable {variable!r} is not set, so there is no configuration to load. "
            "Set it to the name of a module that can be imported.",
        )
    return name or None


def near_miss(name: str) -> str | None:
    """Return the setting that *name*, which is none, was probably meant to be."""
    if name in SETTINGS or name in _OF_OTHERS or not name.islower():
        return None
    found = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=_NEAR)
    return found[0] if found else None


def refuse_mixed_styles(keys: Iterator[str]) -> None:
    """Check that a configuration without a namespace uses old or new names, not some of each.

    Raises:
        ImproperlyConfigured: it mixes them; the text lists what to rename.
    """
    present = set(keys)
    old = {key for key in present if key in _LEGACY and _LEGACY[key] not in present}
    new = {key for key in present if key in SETTINGS and SETTINGS[key].legacy not in present | {None}}
    if not old or not new:
        return
    if len(old) > len(new):
        renames = sorted((key, SETTINGS[key].legacy or key) for key in new)
    else:
        renames = sorted((key, _LEGACY[key]) for key in old)
    listed = ", ".join(f"{wrong} -> {right}" for wrong, right in renames)
    raise ImproperlyConfigured(f"The configuration mixes old and new names of settings. Use one style; rename: {listed}.")


def _imported(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if colon:
        return _attribute(importlib.import_module(module), attribute)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        parent, dot, last = name.rpartition(".")
        # Only "there is no such module" means that the last part may be an attribute; a failure inside it is the user's to see.
        if not dot or missing.name != name:
            raise
        return _attribute(importlib.import_module(parent), last)


def _attribute(holder: Any, path: str) -> Any:
    for part in path.split("."):
        holder = getattr(holder, part)
    return holder


@contextmanager
def _working_directory() -> Iterator[None]:
    here = str(os.getcwd())  # noqa: PTH109 - sys.path holds strings
    if here in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
