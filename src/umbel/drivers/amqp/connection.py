"""One connection to RabbitMQ, over pika: its loop runs in a thread of its own, which reads, writes and sends heartbeats.

pika is called in that thread only. Whoever calls hands over what to do, a batch at a time, and waits on a condition. Every wait has
a deadline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop
from pika.exceptions import ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from umbel.drivers.amqp.address import Address
from umbel.drivers.amqp.channel import Channel, again
from umbel.exceptions import BrokerUnavailable

__all__ = ["Connection"]

TICK = 0.025  # seconds between two looks at what lies here for too long

_left_to_parent: list[Any] = []  # connections of a parent, in its fork: kept, as to collect them would close what is not ours


class Loop(IOLoop):  # type: ignore[misc]  # pika has no types
    """pika's loop, which remembers its sockets: a fork lets go of them."""

    def __init__(self) -> None:
        self.sockets: set[int] = set()
        super().__init__()

    def add_handler(self, fd: int, handler: Any, events: int) -> None:
        self.sockets.add(fd)
        super().add_handler(fd, handler, events)

    def remove_handler(self, fd: int) -> None:
        self.sockets.discard(fd)
        super().remove_handler(fd)


class Connection:
    """Connected when made.

    Args:
        address: where to.
        name: what operators read in RabbitMQ's list of connections.
        deadline: of the handshake, on the monotonic clock.
        on_tick: called again and again in the connection's thread.

    Raises:
        BrokerUnavailable: nobody answers in time, or it is refused.
    """

    def __init__(self, address: Address, *, name: str, deadline: float, on_tick: Callable[[], None] | None = None) -> None:
        self.address, self._on_tick = address, on_tick
        lock = threading.RLock()
        self.changed = threading.Condition(lock)  # guards all that follows, and the channels
        self.arrived = threading.Condition(lock)  # the same lock: who waits for an answer is not woken by each message
        self.lost: BrokerUnavailable | None = None
        self.blocked: str | None = None  # why the server takes no messages
        self._opened = False
        self._channels: set[Channel] = set()
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # what happens is said here, once
        self._loop = Loop()
        self._pika = pika.SelectConnection(
            self._parameters(name), custom_ioloop=self._loop, on_open_callback=self._on_open,
            on_open_error_callback=self._on_error, on_close_callback=self._on_error,
        )  # fmt: skip
        self._pika.add_on_connection_blocked_callback(lambda _, frame: self._on_blocked(frame.method.reason or "an alarm"))
        self._pika.add_on_connection_unblocked_callback(lambda _, frame: self._on_blocked(None))  # noqa: ARG005
        self._thread = threading.Thread(target=self._run, name="amqp", daemon=True)
        self._thread.start()
        try:
            self.wait(lambda: self._opened, deadline, "opening the connection")
        except BaseException:
            self.drop()
            raise

    def _parameters(self, name: str) -> Any:
        address = self.address
        return pika.ConnectionParameters(
            host=address.host, port=address.port, virtual_host=address.vhost, heartbeat=int(address.heartbeat),
            credentials=pika.PlainCredentials(address.user, address.password), connection_attempts=1,
            ssl_options=None if address.tls is None else pika.SSLOptions(address.tls, address.host),
            client_properties={"product": "umbel", "connection_name": name},
        )  # fmt: skip

    # In the thread

    def _run(self) -> None:
        try:
            if self._on_tick is not None:
                self._loop.call_later(TICK, self._tick)
            self._loop.start()
        except Exception as exc:  # noqa: BLE001 - whatever ends the loop ends the connection, and is said to all who wait
            self._fail(self._words(exc), refused=False)
        with contextlib.suppress(Exception):  # of a connection that never was, or was broken off, the socket is still open
            self._pika._transport.abort()  # noqa: SLF001 - pika closes it only after a good-bye that may never be answered
            self._loop.process_timeouts()
        self._loop.close()

    def _tick(self) -> None:
        assert self._on_tick is not None
        self._on_tick()
        self._loop.call_later(TICK, self._tick)

    def _on_open(self, _: Any) -> None:
        with self.changed:
            self._opened = True
            self.changed.notify_all()

    def _on_blocked(self, why: str | None) -> None:
        with self.changed:
            self.blocked = why
            self.changed.notify_all()

    def _on_error(self, _: Any, exc: Exception) -> None:
        cause = root_of(exc)
        refused = isinstance(cause, ConnectionClosedByBroker | ProbableAuthenticationError | ProbableAccessDeniedError)
        self._fail(self._words(cause), refused=refused and not self._opened)
        self._loop.stop()

    def _words(self, exc: BaseException) -> str:
        where = self.address.shown
        if isinstance(exc, ProbableAuthenticationError) or getattr(exc, "reply_code", 0) == 403:  # noqa: PLR2004
            return f"RabbitMQ at {where} refused the user {self.address.user!r}: {exc}. Look at user and password in broker_url."
        if isinstance(exc, ProbableAccessDeniedError) or getattr(exc, "reply_code", 0) == 530:  # noqa: PLR2004
            return (
                f"RabbitMQ at {where} refused: {exc}. Make the virtual host (rabbitmqctl add_vhost {self.address.vhost}), and give the "
                "user its permissions (rabbitmqctl set_permissions)."
            )
        if not self._opened:
            return f"No connection to RabbitMQ at {where}: {type(exc).__name__} {exc}."
        return f"The connection to RabbitMQ at {where} was lost: {type(exc).__name__} {exc}."

    def _fail(self, words: str, *, refused: bool) -> None:
        with self.changed:
            if self.lost is None:
                self.lost = BrokerUnavailable(words, maybe_sent=self._opened, unreachable=not self._opened, refused=refused)
            for channel in self._channels:
                channel.end(0, words)
            self.changed.notify_all()
            self.arrived.notify_all()

    # For those who call

    def submit(self, act: Callable[[], None]) -> None:
        """Let the thread do *act*, after all that was handed over before."""
        if self.lost is None:
            self._loop.add_callback_threadsafe(act)

    def wait(self, condition: Callable[[], Any], deadline: float, what: str, *, messages: bool = False) -> None:
        """Return when *condition*, asked under the lock, holds; *messages*: it is about messages that come.

        Raises:
            BrokerUnavailable: not until *deadline*, or the connection was lost.
        """
        with self.changed:
            while not condition():
                if self.lost is not None:
                    raise again(self.lost)
                left = deadline - time.monotonic()
                if left <= 0:
                    blocked = f" It takes no messages at present: {self.blocked}." if self.blocked is not None else ""
                    raise BrokerUnavailable(
                        f"RabbitMQ at {self.address.shown} did not answer in time ({what}).{blocked}", maybe_sent=self._opened,
                        unreachable=not self._opened,
                    )  # fmt: skip
                (self.arrived if messages else self.changed).wait(left)

    def channel(self, deadline: float) -> Channel:
        """Open a channel."""
        channel = Channel(self)
        with self.changed:
            self._channels.add(channel)
        self.submit(lambda: channel.open(self._pika))
        self.wait(lambda: channel.pika is not None or channel.closed, deadline, "opening a channel")
        if channel.closed is not None:
            raise channel.refusal()
        return channel

    def forget(self, channel: Channel) -> None:
        """Take out a closed channel."""
        with self.changed:
            self._channels.discard(channel)

    # End

    def close(self) -> None:
        """Say good-bye and close. Safe twice."""
        if self.lost is None:
            self.submit(self._good_bye)
            self._thread.join(1.0)
        self.drop()

    def _good_bye(self) -> None:
        if self._pika.is_open:
            self._pika.close()

    def drop(self) -> None:
        """Give it up: nothing more is sent or read, and the sockets are closed."""
        with self.changed:
            known = self.lost is not None
        if not known:
            self._loop.add_callback_threadsafe(self._break_off)
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)
        self._fail(f"The connection to RabbitMQ at {self.address.shown} was closed.", refused=False)

    def _break_off(self) -> None:
        """Close the socket without a word, as nobody may answer: pika has until the next heartbeat to be polite."""
        self._fail(f"The connection to RabbitMQ at {self.address.shown} was given up.", refused=False)
        if self._pika.is_open:
            self._pika.close()
        self._loop.call_later(0.0, self._loop.stop)

    def abandon(self) -> None:
        """Let go of a parent's connection, in its fork: nothing is sent, no lock is taken, and the parent's end stays as it is."""
        _left_to_parent.append(self)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
            for fd in self._loop.sockets:
                os.dup2(nothing.fileno(), fd)


def root_of(exc: BaseException) -> BaseException:
    """Return what is behind the errors that pika wraps around a connection that cannot be made."""
    inner = getattr(exc, "exceptions", None) or [getattr(exc, "exception", None), *exc.args]
    causes = [each for each in inner if isinstance(each, BaseException)]
    return root_of(causes[-1]) if causes else exc
