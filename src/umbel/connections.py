"""The drivers of an app: opened when first needed, and again when a setting that chose them changes.

Drivers are safe to use after a fork, so there is nothing to do about that here.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from umbel.broker_urls import broker_url, is_rabbitmq
from umbel.config_values import masked
from umbel.drivers import open_backend, open_broker
from umbel.exceptions import ImproperlyConfigured
from umbel.queues import queue_arguments
from umbel.result_wait import close_hub
from umbel.wire.serializers import content_types

if TYPE_CHECKING:
    from umbel.backend import ResultBackend
    from umbel.broker import Broker
    from umbel.config import FrozenSettings, Settings

__all__ = ["Connection", "backend_address", "backend_maker", "base_dir", "broker_maker", "broker_options", "comes_to_caller"]


class Closes(Protocol):
    """A driver."""

    def close(self) -> None:
        """Close what it has open."""


DATABASE = ("engine_options", "engine_callback", "short_lived_sessions", "table_schemas", "table_names", "create_tables_at_setup")

D = TypeVar("D", bound=Closes)
Choice = tuple[Any, ...]


class Connection(Generic[D]):
    """One driver, and the settings that it was made from."""

    def __init__(
        self, conf: Settings, choose: Callable[[Settings], Choice], make: Callable[..., D], leave: Callable[[D], None] | None = None
    ) -> None:
        self._conf, self._choose, self._make, self._leave = conf, choose, make, leave
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
                self.close()
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
            if self._leave is not None:
                self._leave(self.driver)
            self.driver.close()


def base_dir() -> str | None:
    """Return Django's BASE_DIR, which relative paths start at; None without one."""
    conf = sys.modules.get("django.conf")
    if conf is None or not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return None
    found = getattr(conf.settings, "BASE_DIR", None)
    return None if found is None else str(found)


def broker_options(conf: Settings | FrozenSettings) -> dict[str, Any]:
    """Return the options of the broker's driver; what `broker_use_ssl` says is among them as `ssl`."""
    return {**(conf.broker_transport_options or {}), **({"ssl": conf.broker_use_ssl} if conf.broker_use_ssl else {})}


def _choose_broker(conf: Settings) -> Choice:
    url, options = broker_url(conf), broker_options(conf)
    if is_rabbitmq(url):
        options = {**of_rabbitmq(conf), "queue_arguments": queue_arguments(conf), **options}
    return url, options, conf.broker_publish_timeout, conf.umbel_state_url


def _choose_backend(conf: Settings) -> Choice:
    tls = {"ssl": conf.redis_backend_use_ssl} if conf.redis_backend_use_ssl else {}
    url, options = conf.result_backend, {**(conf.result_backend_transport_options or {}), **tls}
    if is_database(url):
        url, options = database_url(conf, str(url)), {**database_options(conf), **options}
    elif comes_to_caller(conf):
        (content_type,) = content_types({conf.result_serializer})
        options = {**of_rabbitmq(conf), "content_type": content_type, **broker_options(conf), **options}
        url = url_of_replies(conf)
    return url, options, conf.broker_publish_timeout


def of_rabbitmq(conf: Settings) -> dict[str, Any]:
    """Return what settings say of a connection to RabbitMQ."""
    return {"heartbeat": conf.broker_heartbeat, "failover_strategy": conf.broker_failover_strategy}


def comes_to_caller(conf: Settings) -> bool:
    """Answer whether results are messages to the process that sent the task, and kept nowhere."""
    url = str(conf.result_backend or "")
    return url.partition(":")[0].lower() == "rpc" or is_rabbitmq(url)


def url_of_replies(conf: Settings) -> str:
    """Return the RabbitMQ over which results come: `rpc://` means the broker's.

    Raises:
        ImproperlyConfigured: the broker is another.
    """
    url = str(conf.result_backend)
    if is_rabbitmq(url):
        return url
    broker = broker_url(conf)
    if not is_rabbitmq(broker):
        raise ImproperlyConfigured(
            f"result_backend is {url!r}: results come over the broker, which must be a RabbitMQ, and broker_url is {masked(broker)!r}. "
            "Keep results in a store: result_backend = 'redis://localhost:6379/0'."
        )
    return broker


def is_database(url: str | None) -> bool:
    """Answer whether *url* names results in an SQL database."""
    return bool(url) and str(url).partition(":")[0].partition("+")[0].lower() in {"db", "database"}


def backend_address(conf: Settings) -> str:
    """Return where results are kept, without the password.

    Raises:
        ImproperlyConfigured: in a database that nobody named.
    """
    url = conf.result_backend
    return masked((database_url(conf, str(url)) if is_database(url) else url) or "disabled://")


def database_url(conf: Settings, url: str) -> str:
    """Return the URL of SQL results: `database` alone means the one in `database_url`.

    Raises:
        ImproperlyConfigured: there is none.
    """
    if url.lower().startswith("db+"):
        return url
    named = conf.database_url
    if not named:
        raise ImproperlyConfigured(
            f"result_backend is {url!r}, and database_url is not set. Set it to postgresql://user:password@host/name, or write "
            "result_backend = 'db+postgresql://user:password@host/name'."
        )
    return str(named) if str(named).startswith("db+") else f"db+{named}"


def database_options(conf: Settings) -> dict[str, Any]:
    """Return what the driver of SQL results must know of the settings."""
    expires = conf.result_expires
    return {
        **{name: conf[f"database_{name}"] for name in DATABASE},
        "serializer": conf.result_serializer,
        "accept": content_types({conf.result_serializer, *(conf.result_accept_content or conf.accept_content)}),
        "expires": (expires.total_seconds() if isinstance(expires, timedelta) else expires) or None,
    }


def _make_broker(url: str, options: dict[str, Any], timeout: float, state_url: str | None) -> Broker:
    return open_broker(url, options=options, timeout=timeout, base_dir=base_dir(), state_url=state_url)


def _make_backend(url: str | None, options: dict[str, Any], timeout: float) -> ResultBackend:
    return open_backend(url, options=options, timeout=timeout, base_dir=base_dir())


def broker_maker(conf: Settings) -> Connection[Broker]:
    """Return the connection to the broker that *conf* chooses."""
    return Connection(conf, _choose_broker, _make_broker)


def backend_maker(conf: Settings) -> Connection[ResultBackend]:
    """Return the connection to the result backend that *conf* chooses."""
    return Connection(conf, _choose_backend, _make_backend, close_hub)
