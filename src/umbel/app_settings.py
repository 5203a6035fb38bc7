"""The part of an app that is decided by settings: them, its times, its queues, its drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from umbel import config_sources
from umbel.breaker import Breaker
from umbel.broker_connection import BrokerConnection, connect_as_asked
from umbel.broker_urls import broker_url
from umbel.config import Settings
from umbel.config_values import masked
from umbel.connections import backend_address, backend_maker, broker_maker, comes_to_caller
from umbel.exceptions import ImproperlyConfigured
from umbel.letters import Letters
from umbel.meta import decode_meta
from umbel.periodic import Periodic
from umbel.queues import consumed_queues, describe_queues, router_of
from umbel.routing import Queue
from umbel.signals import Signal
from umbel.wire.serializers import content_types, decode
from umbel.wire.size import limit_of

if TYPE_CHECKING:
    from umbel.backend import ResultBackend
    from umbel.broker import Broker
    from umbel.routing import Router

__all__ = ["ConfiguredApp"]


class ConfiguredApp(Periodic):
    """Settings, and what is made from them. All of it follows a change at its next use.

    Args:
        settings: those known from the start.
        namespace: what stands before the names of settings.
    """

    def __init__(self, settings: Mapping[str, Any], namespace: str | None) -> None:
        self.on_configure, self.on_after_configure, self.on_after_finalize, self.on_after_fork = (
            Signal(name=name) for name in ("on_configure", "on_after_configure", "on_after_finalize", "on_after_fork")
        )
        self.conf = Settings(
            settings,
            namespace=namespace,
            on_first_read=lambda: self.on_configure.send(sender=self),
            on_ready=self._settings_read,
        )
        self._added = {}
        self._router: tuple[int, Router] | None = None
        self._zone: tuple[int, tzinfo] | None = None
        self._replies: tuple[int, ResultBackend | None] | None = None
        self._broker, self._backend = broker_maker(self.conf), backend_maker(self.conf)
        self.breaker = Breaker()

    # --- settings

    def _settings_read(self) -> None:
        self.enter_added()
        self.on_after_configure.send(sender=self, source=self.conf)

    def config_from_object(self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None) -> None:
        """Take settings from a module, an object, a mapping, or the dotted path of one; it is loaded at the first read."""
        self.conf.set_source(lambda: config_sources.load(obj, silent=silent), namespace=namespace, force=force)

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> bool:
        """Take settings from the module that an environment variable names.

        Raises:
            ImproperlyConfigured: it is not set, and not *silent*.
        """
        name = config_sources.module_from_envvar(variable_name, silent=silent)
        if not name:
            return False
        self.config_from_object(name, silent=silent, force=force)
        return True

    def add_defaults(self, defaults: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Add settings that count less than all that the user says."""
        self.conf.add_defaults(defaults)

    def either(self, default_key: str, *values: Any) -> Any:
        """Return the first of *values* that is not None, else the setting."""
        return next((value for value in values if value is not None), self.conf.get(default_key))

    @property
    def timezone(self) -> tzinfo:
        """The zone of the app's times.

        Raises:
            ImproperlyConfigured: there is no such zone.
        """
        generation = self.conf.generation
        if self._zone is None or self._zone[0] != generation:
            zone = self.conf.timezone
            if zone is None:
                zone = UTC if self.conf.enable_utc else datetime.now().astimezone().tzinfo or UTC
            self._zone = generation, zone_of(zone) if isinstance(zone, str) else zone
        return self._zone[1]

    def now(self) -> datetime:
        """Return the time in the app's zone."""
        return datetime.now(self.timezone)

    @property
    def result_expires(self) -> float | None:
        """Seconds that results are kept; None: for ever."""
        expires = self.conf.result_expires
        return (expires.total_seconds() if isinstance(expires, timedelta) else expires) or None

    def accepted_content(self) -> frozenset[str]:
        """Return the content types of messages that are read."""
        return content_types(self.conf.accept_content)

    def read_meta(self, data: bytes) -> dict[str, Any]:
        """Read a document of the result backend."""
        conf = self.conf
        (kind,) = content_types([conf.result_serializer])
        accept = content_types(conf.result_accept_content or conf.accept_content)
        return decode_meta(data, content_type=kind, content_encoding="utf-8", accept=accept, limit=limit_of(conf.result_max_size))

    def read_stored(self, data: bytes) -> Any:
        """Read what else the result backend keeps, such as the document of a group."""
        (kind,) = content_types([self.conf.result_serializer])
        return decode(data, kind, "utf-8", content_types(self.conf.result_accept_content or self.conf.accept_content))

    # --- drivers

    @property
    def broker(self) -> Broker:
        """The broker that the settings choose.

        Raises:
            ImproperlyConfigured: they choose none, or one that is not there.
        """
        connection = self._broker
        if connection.generation == self.conf.generation and connection.driver is not None:
            return connection.driver
        return connection.get()

    def wrap_broker(self, wrapping: Callable[[Broker], Broker]) -> None:
        """Use *wrapping(broker)* for the broker from now on, until a change of settings chooses another."""
        self._broker.wrap(wrapping)

    @property
    def backend(self) -> ResultBackend:
        """The result backend that the settings choose; without one, what keeps nothing."""
        connection = self._backend
        if connection.generation == self.conf.generation and connection.driver is not None:
            return connection.driver
        return connection.get()

    @property
    def replies(self) -> ResultBackend | None:
        """The result backend, if results come to this process as messages; None if they are kept somewhere."""
        generation = self.conf.generation
        if self._replies is None or self._replies[0] != generation:
            self._replies = generation, self.backend if comes_to_caller(self.conf) else None
        return self._replies[1]

    @property
    def dead_letters(self) -> Letters:
        """The messages that nobody can run, to look at, send again or delete."""
        return Letters(self, "dead")

    @property
    def parked_messages(self) -> Letters:
        """The messages that wait for a worker that knows their task."""
        return Letters(self, "parked")

    @property
    def router(self) -> Router:
        """What decides where a message goes."""
        generation = self.conf.generation
        if self._router is None or self._router[0] != generation:
            self._router = generation, router_of(self.conf)
        return self._router[1]

    def consumed_queues(self, wanted: str | Iterable[str] | None = None, excluded: str | Iterable[str] | None = None) -> list[str]:
        """Return the names of the queues that a worker consumes: *wanted*, or all that the settings name."""
        return consumed_queues(self.router, wanted, excluded)

    def describe_queues(self, names: Iterable[str]) -> list[Queue]:
        """Return the queues of these names, with their exchanges and keys."""
        return describe_queues(self.router, names)

    def broker_url(self) -> str:
        """Return where messages are sent.

        Raises:
            ImproperlyConfigured: nobody said where.
        """
        return broker_url(self.conf)

    def connection(self, hostname: str | None = None, **options: Any) -> BrokerConnection:
        """Return the connection to the broker, for tools that ask what it is and whether it answers. It connects to nothing by itself.

        Raises:
            NotSupported: to another broker than that of the settings, or with *options*.
        """
        return connect_as_asked(self, hostname, options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> BrokerConnection:
        """Return the connection to the broker."""
        return connect_as_asked(self, url, options)

    def connection_for_read(self, url: str | None = None, **options: Any) -> BrokerConnection:
        """Return the connection to the broker."""
        return connect_as_asked(self, url, options)

    def broker_address(self) -> str:
        """Return where messages are sent, without the password."""
        return masked(broker_url(self.conf))

    def backend_address(self) -> str:
        """Return where results are kept, without the password.

        Raises:
            ImproperlyConfigured: in a database that nobody named.
        """
        return backend_address(self.conf)


def zone_of(name: str) -> tzinfo:
    """Return the time zone of this name.

    Raises:
        ImproperlyConfigured: this system does not know it.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        raise ImproperlyConfigured(
            f"timezone is {name!r}, and this system knows no such time zone. Write a name such as 'Europe/Berlin' or 'UTC', "
            "or install the zones: pip install tzdata."
        ) from exc
