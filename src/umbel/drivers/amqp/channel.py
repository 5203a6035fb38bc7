"""A channel of a connection: what is done and asked in its thread, confirms, and what the server pushes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pika.exceptions import ChannelClosedByBroker

from umbel.exceptions import BrokerUnavailable, EncodeError

if TYPE_CHECKING:
    from umbel.drivers.amqp.connection import Connection

__all__ = ["LOCKED", "NOT_EQUAL", "NOT_FOUND", "Act", "Channel", "ChannelClosed", "Pushed", "Question", "again"]

LOCKED, NOT_FOUND, NOT_EQUAL = 405, 404, 406  # why the server closes a channel

Act = Callable[[Any], None]  # what is done with pika's channel, in its thread
Question = Callable[[Any, Callable[[Any], None]], None]  # the same, and what is to be called with the answer


class ChannelClosed(Exception):  # noqa: N818 - an answer of the server
    """The server closed the channel: it will not do what was asked."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Pushed(NamedTuple):
    """One message as the server sent it."""

    consumer: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    properties: Any
    body: bytes
    at: float  # when it came, on the monotonic clock


class Channel:
    """Made by its connection. Its fields change under the connection's lock."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pika: Any = None
        self.closed: tuple[int, str] | None = None
        self.on_pushed: Callable[[Pushed], None] | None = None
        self.on_cancelled: Callable[[str], None] | None = None  # the server ended a consumer: its queue was deleted
        self.returned: list[tuple[int, str, str]] = []  # code, text and routing key of what could not be routed
        self.unconfirmed: set[int] = set()
        self.nacked = 0
        self.broken: Exception | None = None  # an error of pika about what was to be sent
        self._published = 0

    # In the thread

    def open(self, connection: Any) -> None:
        """Open it."""
        if connection.is_open:
            connection.channel(on_open_callback=self._on_open)

    def _on_open(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_close)
        channel.add_on_cancel_callback(self._on_cancel)
        channel.add_on_return_callback(self._on_return)
        with self.connection.changed:
            self.pika = channel
            self.connection.changed.notify_all()

    def _on_close(self, _: Any, why: Exception) -> None:
        with self.connection.changed:
            found = (why.reply_code, why.reply_text) if isinstance(why, ChannelClosedByBroker) else (0, str(why))
            self.end(*found)
            self.connection.changed.notify_all()
            self.connection.arrived.notify_all()

    def _on_cancel(self, frame: Any) -> None:
        with self.connection.changed:
            if self.on_cancelled is not None:
                self.on_cancelled(frame.method.consumer_tag)
            self.connection.changed.notify_all()
            self.connection.arrived.notify_all()

    def _on_return(self, _: Any, method: Any, __: Any, ___: bytes) -> None:
        with self.connection.changed:
            self.returned.append((method.reply_code, method.reply_text, method.routing_key))

    def on_message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        """Take one message; called by pika."""
        came = Pushed(
            method.consumer_tag, method.delivery_tag, method.redelivered, method.exchange, method.routing_key, properties, body,
            time.monotonic(),
        )  # fmt: skip
        with self.connection.changed:
            if self.on_pushed is not None:
                self.on_pushed(came)
            self.connection.arrived.notify_all()

    def _on_confirm(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        with self.connection.changed:
            done = {each for each in self.unconfirmed if each <= tag} if multiple else {tag}
            self.unconfirmed -= done
            if frame.method.NAME == "Basic.Nack":
                self.nacked += len(done)
            if not self.unconfirmed:
                self.connection.changed.notify_all()

    def _do(self, acts: Sequence[Act]) -> None:
        """Do *acts*, if it is still open."""
        try:
            for act in acts:
                if self.pika.is_open:
                    act(self.pika)
        except Exception as exc:  # noqa: BLE001 - it is about what was to be sent: who waits is told, and the others' connection stays
            with self.connection.changed:
                self.broken = exc
                self.connection.changed.notify_all()

    # For those who call

    def do(self, acts: Sequence[Act]) -> None:
        """Let the thread do *acts*, in order, and wait for nothing."""
        if acts:
            self.connection.submit(lambda: self._do(acts))

    def ask(self, question: Question, deadline: float) -> Any:
        """Return the answer to *question*, a method with its fields. It raises as `ask_all` does."""
        return self.ask_all([question], deadline)[0]

    def ask_all(self, questions: Sequence[Question], deadline: float) -> list[Any]:
        """Ask *questions*, and return the answers.

        Raises:
            ChannelClosed: the server refused one; those before it were done.
            BrokerUnavailable: it did not answer in time.
        """
        answers: list[Any] = []

        def answer(frame: Any) -> None:
            with self.connection.changed:
                answers.append(frame.method)
                self.connection.changed.notify_all()

        self.do([lambda channel, question=question: question(channel, answer) for question in questions])  # type: ignore[misc]
        self.connection.wait(lambda: len(answers) == len(questions) or self.closed or self.broken, deadline, "waiting for an answer")
        if len(answers) < len(questions):
            raise self.refusal()
        return answers

    def barrier(self, deadline: float) -> None:
        """Return when the server has taken all that was sent before."""
        self.ask(lambda channel, done: channel.basic_qos(prefetch_count=1, callback=done), deadline)

    def consume(self, queue: str, consumer: str, prefetch: int) -> list[Act]:
        """Return the acts that begin a consumer."""
        return [
            lambda channel: channel.basic_qos(prefetch_count=prefetch),
            lambda channel: channel.basic_consume(queue, self.on_message, consumer_tag=consumer),
        ]

    def cancel(self, consumer: str) -> Act:
        """Return the act that ends a consumer and waits for nothing; what is on its way to it still comes."""

        def act(channel: Any) -> None:
            channel.basic_cancel(consumer)
            # pika would reject in silence what still comes, and it would look like messages of a node that died.
            channel._cancelled.discard(consumer)  # noqa: SLF001 - there is no public way
            channel._consumers[consumer] = self.on_message  # noqa: SLF001

        return act

    def publish(self, messages: Sequence[tuple[str, str, Any, bytes]], *, mandatory: bool = True) -> None:
        """Publish exchange, routing key, properties and body of each, and expect their confirms; *mandatory*: must it be routed?"""
        with self.connection.changed:
            self.returned.clear()
            self.nacked = 0
            tags = range(self._published + 1, self._published + len(messages) + 1)
            self._published += len(messages)
            self.unconfirmed.update(tags)
        self.do([partial(publish, message=message, mandatory=mandatory) for message in messages])

    def with_confirms(self, deadline: float) -> None:
        """Let the server confirm what is published."""
        self.ask(lambda channel, done: channel.confirm_delivery(self._on_confirm, callback=done), deadline)

    def refusal(self) -> Exception:
        """Return why it is closed, as an error."""
        if self.connection.lost is not None:
            return again(self.connection.lost)
        if isinstance(self.broken, EncodeError):
            return EncodeError(*self.broken.args)
        if self.broken is not None:
            return EncodeError(
                f"AMQP cannot carry this message: {type(self.broken).__name__} {self.broken}. Send texts and numbers in headers."
            )
        return ChannelClosed(*(self.closed or (0, "it was closed")))

    def close(self) -> None:
        """Close it; what it had not acknowledged goes back. Safe twice."""
        if self.closed is None:
            self.do([lambda channel: channel.close()])
            with self.connection.changed:
                self.connection.changed.wait_for(lambda: self.closed is not None, 1.0)
        self.end(0, "it was closed here")
        self.connection.forget(self)

    def end(self, code: int, text: str) -> None:
        """Note that it is closed."""
        self.closed = self.closed or (code, text)


def publish(channel: Any, message: tuple[str, str, Any, bytes], *, mandatory: bool) -> None:
    """Publish one message."""
    exchange, routing_key, properties, body = message
    channel.basic_publish(exchange, routing_key, body, properties, mandatory=mandatory)


def again(lost: BrokerUnavailable) -> BrokerUnavailable:
    """Return the error anew: each who waits raises its own."""
    return BrokerUnavailable(*lost.args, maybe_sent=lost.maybe_sent, unreachable=lost.unreachable, refused=lost.refused)
