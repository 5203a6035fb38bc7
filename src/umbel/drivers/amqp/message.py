"""A task's message between the two forms it has: umbel's envelope, and properties, headers and body of AMQP as Celery sends them."""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Any

import msgspec

from umbel.broker import Delivery
from umbel.drivers.amqp.channel import Pushed
from umbel.drivers.amqp.properties import Properties
from umbel.exceptions import DecodeError
from umbel.wire.message import Message, unwrap

__all__ = ["ATTEMPTS", "DUE", "LETTER", "SUSPECT", "Received", "Sent", "read", "remade", "sent"]

ATTEMPTS, SUSPECT, DUE, LETTER = "umbel_attempts", "umbel_suspect", "umbel_due", "umbel_letter"
OURS = (ATTEMPTS, SUSPECT, DUE, LETTER)
KEPT = ("correlation_id", "reply_to")  # properties that stay; `expiration` does not: RabbitMQ would drop the message in silence
TOLD = (*KEPT, "delivery_mode", "priority", "expiration")  # properties that a task may read
COPIED = (
    "content_type",
    "content_encoding",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "message_id",
    "timestamp",
    "type",
    "app_id",
)
PERSISTENT = 2
BITS = re.compile(r"(?:[01]\.){28}")  # of a delay, before the routing key

_encode = msgspec.json.Encoder(enc_hook=lambda value: int(value) if isinstance(value, int) else str(value)).encode


class Sent(msgspec.Struct, frozen=True, gc=False):
    """One message as it goes out."""

    exchange: str
    routing_key: str
    properties: Any
    body: bytes
    queue: str  # where it is to arrive


class Received(msgspec.Struct, frozen=True, gc=False):
    """One message as it came in, and what its headers say to us."""

    raw: bytes
    id: str
    attempts: int = 0
    suspect: bool | None = None  # None: nothing is said
    due: float | None = None
    returned: int | None = None  # how often it went back to its queue, where that is counted


def sent(raw: bytes, queue: str, marks: dict[str, Any]) -> Sent:
    """Write an envelope for *queue*, with *marks* among the headers. What is no envelope goes as it is, for whoever reads it to bury it."""
    try:
        message = unwrap(raw)
    except DecodeError:
        message = Message(body=raw)
    headers = {name: value for name, value in message.headers.items() if name not in OURS}
    properties = message.properties
    priority = properties.get("priority")
    made = Properties(
        content_type=message.content_type, content_encoding=message.content_encoding, headers={**headers, **marks},
        delivery_mode=1 if properties.get("delivery_mode") == 1 else PERSISTENT,
        priority=min(max(priority, 0), 255) if isinstance(priority, int) else None,
        **{name: value for name in KEPT if isinstance(value := properties.get(name), str)},
    )  # fmt: skip
    return Sent("", queue, made, message.body, queue)


def remade(pushed: Pushed, queue: str, marks: dict[str, Any], to: str) -> Sent:
    """Copy a message that belongs to *queue* and goes to the queue *to*, with *marks* instead of those that it had."""
    made = Properties(**{name: getattr(pushed.properties, name) for name in COPIED})
    made.headers = {**theirs(pushed), **marks}
    made.delivery_mode = made.delivery_mode or PERSISTENT
    return Sent("", to, made, pushed.body, queue)


def theirs(pushed: Pushed) -> dict[str, Any]:
    """Return the headers that the sender wrote: neither ours nor the server's."""
    headers = pushed.properties.headers or {}
    return {name: value for name, value in headers.items() if name not in OURS and not name.startswith("x-")}


def read(pushed: Pushed) -> Received:
    """Read a message. One that JSON cannot hold becomes an envelope that is none: it will be buried."""
    headers, sent = pushed.properties.headers or {}, theirs(pushed)
    try:
        raw = _envelope(pushed, sent)
    except (TypeError, ValueError, RecursionError):
        raw = pushed.body
    return Received(
        raw=raw, id=str(sent.get("id") or pushed.properties.correlation_id or ""), attempts=_whole(headers.get(ATTEMPTS)) or 0,
        suspect=_flag(headers.get(SUSPECT)), due=_number(headers.get(DUE)), returned=_whole(headers.get("x-delivery-count", 0)),
    )  # fmt: skip


def _envelope(pushed: Pushed, headers: dict[str, Any]) -> bytes:
    properties = pushed.properties
    values = {name: value for name in TOLD if (value := getattr(properties, name)) is not None}
    exchange = "" if pushed.exchange.startswith("celery_delayed_") else pushed.exchange
    values["delivery_info"] = {
        "exchange": exchange, "routing_key": BITS.sub("", pushed.routing_key, count=1), "redelivered": pushed.redelivered,
    }  # fmt: skip
    values["body_encoding"] = "base64"
    values["delivery_tag"] = str(pushed.tag)
    # In the order in which kombu writes it: `message.glance` looks at the first bytes.
    return b'{"body": "%b", "content-encoding": %b, "content-type": %b, "headers": %b, "properties": %b}' % (
        b2a_base64(pushed.body, newline=False), _encode(properties.content_encoding or "utf-8"),
        _encode(properties.content_type or "application/json"), _encode(headers), _encode(values),
    )  # fmt: skip


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, float | int) else None


def marks_of(*, attempts: int = 0, suspect: bool | None = None, due: float | None = None) -> dict[str, Any]:
    """Return the headers that say this."""
    given = {ATTEMPTS: attempts or None, SUSPECT: suspect, DUE: due}
    return {name: value for name, value in given.items() if value is not None}


def delivery_of(received: Received, *, queue: str, tag: str, owner: str, fence: int, suspect: bool, revocations: int) -> Delivery:
    """Make a delivery of a message."""
    return Delivery(
        queue=queue, tag=tag, owner=owner, raw=received.raw, fence=fence, attempts=received.attempts, suspect=suspect,
        revocations=revocations,
    )  # fmt: skip
