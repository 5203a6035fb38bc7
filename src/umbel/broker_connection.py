"""`app.connection()`: what code that was written for Celery asks of a connection to the broker, and no more.

It holds nothing open: the driver of the app has the connections, and `release()` must not take them from others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from umbel.config_values import masked
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured, NotSupported

if TYPE_CHECKING:
    from umbel.app_settings import ConfiguredApp

__all__ = ["BrokerConnection", "Transport", "connect_as_asked"]


class Transport(NamedTuple):
    """What kind of broker it is, and which package talks to it, as tools report them."""

    driver_type: str
    driver_name: str


AMQP, POSTGRES, REDIS = Transport("amqp", "pika"), Transport("postgresql", "psycopg"), Transport("redis", "redis")
NONE = Transport("N/A", "N/A")
TRANSPORTS = {
    **dict.fromkeys(("amqp", "amqps", "pyamqp"), AMQP),
    **dict.fromkeys(("postgres", "postgresql"), POSTGRES),
    "memory": Transport("memory", "memory"),
    "sqlite": Transport("sqlite", "sqlite3"),
}  # fmt: skip


class BrokerConnection:
    """The connection of an app to its broker. Making one connects to nothing."""

    def __init__(self, app: ConfiguredApp) -> None:
        self._app = app
        self.connected = False

    @property
    def transport(self) -> Transport:
        """What kind of broker it is; NONE without one, so that tools can ask while tasks run eagerly."""
        try:
            url = self._app.broker_url()
        except ImproperlyConfigured:
            return NONE
        return TRANSPORTS.get(url.partition(":")[0].lower(), REDIS)

    def as_uri(self, include_password: bool = False) -> str:
        """Return where the broker is; with the password only if asked."""
        return self._app.broker_url() if include_password else self._app.broker_address()

    def connect(self) -> Self:
        """Check once that the broker answers.

        Raises:
            BrokerUnavailable: it does not, within `broker_publish_timeout`.
        """
        self.connected = False
        self._app.broker.open()
        self.connected = True
        return self

    def ensure_connection(
        self,
        errback: Callable[[BaseException, float], Any] | None = None,
        max_retries: int | None = None,
        interval_start: float = 2,
        interval_step: float = 2,
        interval_max: float = 30,
        callback: Callable[[], Any] | None = None,
        reraise_as_library_errors: bool = True,
        timeout: float | None = None,
    ) -> Self:
        """Check that the broker answers, again after a failure.

        Args:
            errback: is called with the exception and the pause after each failure that another attempt follows.
            max_retries: attempts after the first; None: as many as the time allows, and none without *timeout*.
            interval_start: seconds before the second attempt.
            interval_step: seconds that each pause is longer than the last.
            interval_max: the longest pause.
            callback: is called before each pause.
            reraise_as_library_errors: accepted; the exception is always umbel's, which is `OperationalError`, too.
            timeout: seconds after which no further attempt is begun.

        Raises:
            BrokerUnavailable: it did not answer.
        """
        del reraise_as_library_errors
        most = (0 if timeout is None else None) if max_retries is None else max_retries
        end = None if timeout is None else time.monotonic() + timeout
        for attempt in count():
            pause = min(interval_start + attempt * interval_step, interval_max)
            try:
                return self.connect()
            except BrokerUnavailable as exc:
                if (most is not None and attempt >= most) or (end is not None and time.monotonic() + pause >= end):
                    raise
                for told, said in (errback, (exc, pause)), (callback, ()):
                    if told is not None:
                        told(*said)
            time.sleep(pause)
        raise AssertionError("count() does not end")

    def release(self) -> None:
        """Be done with it. The app's own connections stay."""
        self.connected = False

    close = release

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Connection: {self.transport.driver_type} at {id(self):#x}>"


def connect_as_asked(app: ConfiguredApp, url: str | None, options: dict[str, Any]) -> BrokerConnection:
    """Return the connection of *app*; one to another broker, or with options of its own, is refused.

    Raises:
        NotSupported: it was asked for.
    """
    asked = {name: value for name, value in options.items() if value is not None}
    if asked:
        raise NotSupported(
            f"app.connection({'=…, '.join(asked)}=…): it has no options of its own. Say it in the settings: broker_url, broker_use_ssl, "
            "broker_transport_options, broker_publish_timeout."
        )
    connection = BrokerConnection(app)
    if url is not None and url != connection.as_uri(include_password=True):
        raise NotSupported(
            f"app.connection({masked(url)!r}): an app has one broker, {connection.as_uri()}. Make another app: Umbel(broker=…)."
        )
    return connection
