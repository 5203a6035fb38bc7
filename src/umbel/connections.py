"""The drivers of an app: opened when first needed, and again when a setting that chose them changes.

Drivers are safe to use after a fork, so there is nothing to do about that here.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from umbel.drivers import open_backend, open_broker
from umbel.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from umbel.backend import ResultBackend
    from umbel.broker import Broker
    from umbel.config import Settings

__all__ = ["Connection", "backend_maker", "base_dir", "broker_maker", "broker_url"]


class Closes(Protocol):
    """A driver."""

    def close(self) -> None:
        """Close what it has open."""


D = TypeVar("D", bound=Closes)
Choice = tuple[Any, ...]


class Connection(Generic[D]):
    """One driver, and the settings that it was made from."""

    def __init__(self, conf: Settings, choose: Callable[[Settings], Choice], make: Callable[..., D]) -> None:
        self._conf, self._choose, self._make = conf, choose, make
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._choice: Choice | None = None
        self.driver: D | None = None
        self.generation = -1  # of the settings at which the driver was known to be the right one

    def get(self) -> D:
        """Return the driver that the settings choose now."""
        if self._pid != os.getpid():  # a thread that held the lock does not exist in this process
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            generation = self._conf.generation
            choice = self._choose(self._conf)
            if self.driver is None or choice != self._choice:
                made = self._make(*choice)
                if self.driver is not None:
                    self.driver.close()
                self.driver, self._choice = made, choice
            self.generation = generation
            return self.driver

    def wrap(self, wrapping: Callable[[D], D]) -> None:
        """Put something around the driver; it goes with the driver when the settings choose another."""
        driver = self.get()
        with self._lock:
            self.driver = wrapping(driver)

    def close(self) -> None:
        """Close the driver if there is one; the next use connects again."""
        if self.driver is not None:
            self.driver.close()


def broker_url(conf: Settings) -> str:
    """Return where messages are sent.

    Raises:
        ImproperlyConfigured: nobody said where.
    """
    url = conf.broker_write_url or conf.broker_url
    if not url:
        raise ImproperlyConfigured(
            "broker_url is not set, so there is nowhere to send tasks. Set it (CELERY_BROKER_URL in Django's settings) to "
            "sqlite:////absolute/path/umbel.sqlite3 for a file that needs no server, or to redis://localhost:6379/0.",
        )
    return str(url[0] if isinstance(url, list | tuple) else url)


def base_dir() -> str | None:
    """Return Django's BASE_DIR, which relative paths start at; None without one."""
    conf = sys.modules.get("django.conf")
    if conf is None or not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return None
    found = getattr(conf.settings, "BASE_DIR", None)
    return None if found is None else str(found)


def _choose_broker(conf: Settings) -> Choice:
    return broker_url(conf), dict(conf.broker_transport_options or {}), conf.broker_publish_timeout


def _choose_backend(conf: Settings) -> Choice:
    return conf.result_backend, dict(conf.result_backend_transport_options or {}), conf.broker_publish_timeout


def _make_broker(url: str, options: dict[str, Any], timeout: float) -> Broker:
    return open_broker(url, options=options, timeout=timeout, base_dir=base_dir())


def _make_backend(url: str | None, options: dict[str, Any], timeout: float) -> ResultBackend:
    return open_backend(url, options=options, timeout=timeout, base_dir=base_dir())


def broker_maker(conf: Settings) -> Connection[Broker]:
    """Return the connection to the broker that *conf* chooses."""
    return Connection(conf, _choose_broker, _make_broker)


def backend_maker(conf: Settings) -> Connection[ResultBackend]:
    """Return the connection to the result backend that *conf* chooses."""
    return Connection(conf, _choose_backend, _make_backend)
