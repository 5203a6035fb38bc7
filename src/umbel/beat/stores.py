"""Where the schedulers of an app meet: the store of their lease, of entries and of what was handled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel.backend import ResultBackend
from umbel.broker_urls import broker_url
from umbel.config_values import masked
from umbel.connections import base_dir
from umbel.drivers import keeps_schedules, open_backend, open_leases, open_schedule_store
from umbel.exceptions import ImproperlyConfigured
from umbel.leases import LeaseStore
from umbel.schedule_store import ScheduleStore

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.config import FrozenSettings, Settings

__all__ = ["Layer", "layers", "name_of", "open_for_copies", "open_lease_store", "open_schedules", "open_stores", "store_url"]


class Layer(NamedTuple):
    """Another source of entries, laid over a store."""

    where: Callable[[], str]  # says where these entries are
    over: Callable[[ScheduleStore], ScheduleStore]


layers: list[Layer] = []


def store_url(conf: Settings | FrozenSettings) -> str:
    """Return the URL of the store: `beat_store_url`, or the first of broker, state store and result backend that can be one.

    Raises:
        ImproperlyConfigured: none of them can.
    """
    if conf.beat_store_url:
        return str(conf.beat_store_url)
    candidates = [str(url) for url in (broker_url(conf), conf.umbel_state_url, conf.result_backend) if url]
    for url in candidates:
        if keeps_schedules(url):
            return url
    raise ImproperlyConfigured(
        f"Schedulers need a store that says which of them leads, and what was sent; {' and '.join(map(masked, candidates))} cannot be one. "
        "Set beat_store_url = 'redis://localhost:6379/0', or a postgresql:// or sqlite:// URL."
    )


def name_of(app: Umbel) -> str:
    """Return under which name the schedulers of *app* meet: apps that share a store have each its own leader and schedule."""
    return f"beat:{app.main}" if app.main else "beat"


def open_stores(app: Umbel) -> tuple[LeaseStore, ScheduleStore]:
    """Open the store of leases and that of entries, with what else there are entries in."""
    store = open_schedules(app)
    for layer in layers:
        store = layer.over(store)
    return open_lease_store(app), store


def open_lease_store(app: Umbel) -> LeaseStore:
    """Open the store of leases alone."""
    url = store_url(app.conf)
    return open_leases(url, **_how(app.conf, url))


def open_schedules(app: Umbel) -> ScheduleStore:
    """Open the store of entries and of what was handled."""
    url = store_url(app.conf)
    return open_schedule_store(url, name=name_of(app), **_how(app.conf, url))


def open_for_copies(conf: Settings | FrozenSettings) -> ResultBackend:
    """Open the store that says which copy of a run has started, for workers whose result backend cannot: it must be one for all of them.

    Raises:
        ImproperlyConfigured: there is none.
    """
    url = str(conf.umbel_state_url or store_url(conf))
    return open_backend(url, **_how(conf, url))


def _how(conf: Settings | FrozenSettings, url: str) -> dict[str, Any]:
    options = dict(conf.broker_transport_options or {}) if url == broker_url(conf) else {}
    return {"options": options, "timeout": conf.broker_publish_timeout, "base_dir": base_dir()}
