"""The settings of an app: one live mapping over what was written, the defaults that were added, a source and the table."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from types import MappingProxyType
from typing import Any, Final, NoReturn

from umbel.config_sources import MISSING, Names, Source, near_miss, own_variable, refuse_mixed_styles
from umbel.config_values import censored, checked, from_text
from umbel.exceptions import CeleryWarning
from umbel.settings_table import SETTINGS, Setting, Status

__all__ = ["SETTINGS", "FrozenSettings", "Setting", "Settings"]

# What the environment says of these counts more than what the program says, so that a deployment can move a project.
_ENVIRONMENT_FIRST: Final = frozenset({"broker_url", "broker_read_url", "broker_write_url", "result_backend"})
_FALLBACKS: Final[Mapping[str, str]] = {
    "broker_read_url": "broker_url",
    "broker_write_url": "broker_url",
    "task_default_exchange": "task_default_queue",
    "task_default_routing_key": "task_default_queue",
    "timezone": "TIME_ZONE",  # Django's
}

Defaults = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


class _Display(Mapping[str, Any]):
    """What settings can do with their values once these are known."""

    def first(self, *keys: str) -> Any:
        """Return the first value of *keys* that is not None."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    def get_by_parts(self, *parts: str) -> Any:
        """Return the setting whose name is *parts* joined with underscores."""
        return self["_".join(part for part in parts if part)]

    def _chosen(self) -> Mapping[str, Any]:
        raise NotImplementedError

    def without_defaults(self) -> dict[str, Any]:
        """Return what somebody has set: in the program, the environment or the source."""
        return dict(self._chosen())

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return the settings by name; secrets in names and URLs are replaced unless *censored* is false."""
        values = dict(self) if with_defaults else self.without_defaults()
        return {name: _censored(name, value) for name, value in values.items()} if censored else values

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return the table as text, one `name: value` a line."""
        return "\n".join(f"{name}: {value!r}" for name, value in self.table(with_defaults, censored).items())

    def set_with(self, status: Status) -> list[str]:
        """Return the names of the settings of *status* that were set to something else than their default."""
        known = ((name, value) for name, value in self._chosen().items() if name in SETTINGS)
        return sorted(name for name, value in known if SETTINGS[name].status == status and value != SETTINGS[name].default)


_censored = censored  # `table` has an argument of that name


class FrozenSettings(_Display):
    """The settings as they were at one moment; a worker runs with them to its end."""

    def __init__(self, values: Mapping[str, Any], chosen: Mapping[str, Any], names: Names) -> None:
        vars(self).update({name: value for name, value in values.items() if name in SETTINGS})  # read at the speed of attributes
        vars(self).update(_values=dict(values), _given=dict(chosen), _names=names)

    def __getitem__(self, key: str) -> Any:
        values: dict[str, Any] = vars(self)["_values"]
        return values[key] if key in values else values[vars(self)["_names"].canonical(key)]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self:
            return self[name]
        raise AttributeError(f"There is no setting {name!r}.")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        shown = _censored(name, value)
        raise TypeError(f"{name} cannot be set to {shown!r}: a running worker's settings are fixed. Set it on app.conf before.")

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self)["_values"])

    def __len__(self) -> int:
        return len(vars(self)["_values"])

    def _chosen(self) -> Mapping[str, Any]:
        given: Mapping[str, Any] = vars(self)["_given"]
        return given


class Settings(_Display, MutableMapping[str, Any]):
    """The live settings of an app, read and written as attributes or items, under new, namespaced or old names.

    What counts, first to last: for the URLs of broker and results the environment (`UMBEL_BROKER_URL`,
    `CELERY_BROKER_URL`); what the program wrote, before or after the source was read; the environment for all others
    (`UMBEL_WORKER_CONCURRENCY=4`); `add_defaults`, newest first; the source; the table.

    Nothing is loaded until the first read: then `on_first_read` is called, the source is loaded, and `on_ready` is
    called. A value that was read is kept until `generation` changes, which each write, `set_source`, `add_defaults`
    and `invalidate` do; whoever derives something from settings keeps it for one generation. Changing a list or
    dictionary in place changes no generation.

    Args:
        pre: settings that are known at the start, such as the keyword arguments of the app.
        namespace: what stands before each name in the source, such as `CELERY`.
        on_first_read: called once, before the source is loaded; it may write settings and set the source.
        on_ready: called once, after the source was loaded; it may read settings.
        environ: the environment variables, those of the process unless given.
    """

    def __init__(
        self,
        pre: Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        on_first_read: Callable[[], object] | None = None,
        on_ready: Callable[[], object] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._lock = threading.RLock()
        self._names = Names(namespace)
        self._environ = environ
        self._on_first_read, self._on_ready = on_first_read, on_ready
        self._load: Callable[[], object] = lambda: None
        self._state = "unread"  # then "loading", then "ready"
        self._source: Source | None = None
        self._changes: dict[str, Any] = {}
        self._added: list[Defaults] = []
        self._added_sources: list[Source] = []  # those of `_added` that were evaluated, newest first
        self._own_defaults: dict[str, Any] = {}  # copies: an app that fills a default dictionary fills its own
        self._warned: set[str] = set()
        self._snapshot_taken = False
        self._generation = 0
        self.update(pre or {})

    # --- reading ------------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Reached only when the value is not kept in the instance's own dictionary.
        if not name.startswith("_"):
            value = self._read(name)
            if value is not MISSING:
                return value
        raise AttributeError(f"There is no setting {name!r}.")

    def __getitem__(self, key: str) -> Any:
        if key in SETTINGS and key in vars(self):
            return vars(self)[key]
        value = self._read(key)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        self.load()
        return iter(dict.fromkeys([*SETTINGS, *self._chosen_names()]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and (key in SETTINGS or self._read(key) is not MISSING)

    def __repr__(self) -> str:
        return f"<Settings: {len(self._changes)} written, {self._state}>"

    @property
    def generation(self) -> int:
        """A number that is another one after each change."""
        return self._generation

    @property
    def changes(self) -> Mapping[str, Any]:
        """What the program wrote, without the source and the defaults."""
        return MappingProxyType(self._changes)

    @property
    def defaults(self) -> list[Mapping[str, Any]]:
        """What counts less than `changes`: the added defaults, the source, and the table's defaults."""
        self.load()
        layers = [*self._added_sources, *([self._source] if self._source else [])]
        table = {name: self._default(name) for name in SETTINGS}
        return [*({name: layer.get(name) for name in layer.names()} for layer in layers), table]

    def value_set_for(self, key: str) -> bool:
        """Return whether the program wrote *key*."""
        return self._names.canonical(key) in self._changes

    def load(self) -> None:
        """Load the source if that was not done; whatever its import raises comes out here, and again at the next read.

        Raises:
            ImproperlyConfigured: the source mixes old and new names.
        """
        if self._state == "ready":
            return
        with self._lock:
            if self._state != "unread":  # in a callback of the loading itself: what is there so far counts
                return
            self._state = "loading"
            try:
                self._load_source()
                self._state = "ready"
            finally:
                self._state = "ready" if self._state == "ready" else "unread"
                self.invalidate()
            ready, self._on_ready = self._on_ready, None
            if ready is not None:
                ready()

    # --- writing ------------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __setitem__(self, key: str, value: Any) -> None:
        name = self._names.canonical(key)
        if name in SETTINGS:
            value = checked(SETTINGS[name], value)
        else:
            self._warn_of_near_miss(key, name)
        if self._snapshot_taken:
            self._warn_once("snapshot", f"{key} was set while a worker runs: its tasks see the new value, the worker keeps the old one.")
        with self._lock:
            self._changes[name] = value
            self.invalidate()

    def __delattr__(self, name: str) -> None:
        if name.startswith("_"):
            object.__delattr__(self, name)
            return
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"{name!r} was not set by the program, so there is nothing to take back.") from None

    def __delitem__(self, key: str) -> None:
        with self._lock:
            del self._changes[self._names.canonical(key)]
            self.invalidate()

    def pop(self, key: str, *default: Any) -> Any:
        """Take back what the program wrote for *key* and return it."""
        with self._lock:
            value = self._changes.pop(self._names.canonical(key), *default)
            self.invalidate()
            return value

    def clear(self) -> None:
        """Take back all that the program wrote."""
        with self._lock:
            self._changes.clear()
            self.invalidate()

    def set_source(self, load: Callable[[], object], *, namespace: str | None = None, force: bool = False) -> None:
        """Read settings from what *load* returns instead of the present source; what the program wrote stays.

        Args:
            load: returns an object, a mapping, a module or None; called at the next read.
            namespace: the prefix of its names; the present one when None.
            force: call *load* now, which happens too when settings were read before.
        """
        with self._lock:
            was_ready = self._state == "ready"
            self._load = load
            if namespace is not None:
                self._names = Names(namespace)
                self._changes = {self._names.canonical(key): value for key, value in self._changes.items()}
            self._source = None
            if self._state == "ready":
                self._state = "unread"
            self.invalidate()
        if force or was_ready:
            self.load()

    def add_defaults(self, defaults: Defaults) -> None:
        """Let *defaults*, a mapping or what returns one when settings are first read, count more than the source."""
        with self._lock:
            self._added.append(defaults)
            if self._state == "ready":
                self._evaluate_added()
            self.invalidate()

    def invalidate(self) -> None:
        """Forget the values that were read: the source and the environment are asked again."""
        with self._lock:
            self._generation += 1
            for name in [name for name in vars(self) if not name.startswith("_")]:
                vars(self).pop(name, None)

    def copy(self) -> Settings:
        """Return settings with the same source and values, whose later changes are their own."""
        self.load()
        twin = Settings(namespace=self._names.namespace, environ=self._environ)
        twin._changes = {name: copy(value) for name, value in self._changes.items()}
        twin._added, twin._load = [*self._added], self._load
        return twin

    def snapshot(self) -> FrozenSettings:
        """Return what holds now, for a worker to run with; the next write warns, once."""
        frozen = FrozenSettings(dict(self), dict(self._chosen()), self._names)
        self._snapshot_taken = True
        return frozen

    # --- inside -------------------------------------------------------------------------------------------------------

    def _read(self, key: str) -> Any:
        self.load()
        name = self._names.canonical(key)
        setting = SETTINGS.get(name)
        if setting is None:
            return self._find(name, None)
        with self._lock:  # no write comes between reading a value and keeping it
            value = self._find(name, setting)
            value = self._default(name) if value is MISSING else checked(setting, value)
            if value is None and name in _FALLBACKS:
                value = self._read(_FALLBACKS[name])
                value = None if value is MISSING else value
            if self._state == "ready":
                vars(self)[name] = value
            return value

    def _find(self, name: str, setting: Setting | None) -> Any:
        said = MISSING if setting is None else self._from_environment(setting)
        if said is not MISSING and name in _ENVIRONMENT_FIRST:
            return said
        if name in self._changes:
            return self._changes[name]
        if said is not MISSING:
            return said
        layers = [*self._added_sources, *([self._source] if self._source else [])]
        return next((value for layer in layers if (value := layer.get(name)) is not MISSING), MISSING)

    def _from_environment(self, setting: Setting) -> Any:
        variables = [own_variable(setting.name)]
        if setting.name in _ENVIRONMENT_FIRST:
            variables.append(f"CELERY_{setting.name.upper()}")
        text = next((found for found in map(self._environ.get, variables) if found), None)
        return MISSING if text is None else from_text(setting, text)

    def _default(self, name: str) -> Any:
        default = SETTINGS[name].default
        return self._own_defaults.setdefault(name, copy(default)) if isinstance(default, dict) else default

    def _chosen(self) -> Mapping[str, Any]:
        self.load()
        return {name: self[name] for name in self._chosen_names()}

    def _chosen_names(self) -> list[str]:
        layers = [*self._added_sources, *([self._source] if self._source else [])]
        said = (name for name, setting in SETTINGS.items() if self._from_environment(setting) is not MISSING)
        return list(dict.fromkeys([*self._changes, *said, *(name for layer in layers for name in layer.names())]))

    def _load_source(self) -> None:
        if self._on_first_read is not None:
            self._on_first_read()
            self._on_first_read = None
        held = self._load()
        self._source = None if held is None else Source(held, self._names)
        if self._source is not None:
            self._examine(self._source)
        self._evaluate_added()

    def _examine(self, source: Source) -> None:
        if not self._names.namespace:
            refuse_mixed_styles(source.keys())
        for key in source.keys():  # noqa: SIM118 - a source is no mapping
            name = self._names.canonical(key)
            if name not in SETTINGS:
                self._warn_of_near_miss(key, name)

    def _evaluate_added(self) -> None:
        held = [defaults() if callable(defaults) else defaults for defaults in reversed(self._added)]
        self._added = [*reversed(held)]
        self._added_sources = [Source(mapping, self._names) for mapping in held]

    def _warn_of_near_miss(self, key: str, name: str) -> None:
        meant = near_miss(name)
        if meant is not None:
            self._warn_once(key, f"{key} is no setting and changes nothing. Was {meant} meant?")

    def _warn_once(self, about: str, text: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(text, CeleryWarning, stacklevel=4)
