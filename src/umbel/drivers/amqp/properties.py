"""Properties of a message with all values that a header of Celery may have: pika writes no float (a time limit of 1.5 s)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from struct import error, pack
from typing import Any

import pika

from umbel.exceptions import EncodeError
from umbel.wire.saferepr import saferepr

__all__ = ["Properties"]

HEADERS = 0x2000  # the flag of the table
BEFORE = (0x8000, 0x4000)  # flags of what stands before it: short texts


class Properties(pika.BasicProperties):  # type: ignore[misc]  # pika has no types
    """pika's, but for the table of headers, whose floats are doubles as those of Celery's client."""

    def encode(self) -> list[bytes]:
        """Write flags and values."""
        headers: dict[str, Any] | None = self.headers
        self.headers: dict[str, Any] | None = None
        try:
            rest = b"".join(super().encode())
        finally:
            self.headers = headers
        flags = int.from_bytes(rest[:2])
        at = 2
        for flag in BEFORE:
            if flags & flag:
                at += 1 + rest[at]
        return [pack(">H", flags | HEADERS), rest[2:at], table(headers or {}), rest[at:]]


def table(values: Mapping[str, Any]) -> bytes:
    """Write a table with its size.

    Raises:
        EncodeError: AMQP has no type for a value.
    """
    parts: list[bytes] = []
    for name, value in values.items():
        written = name.encode()
        if len(written) > 255:  # noqa: PLR2004 - named in the text
            raise EncodeError(f"The header {saferepr(name, 60)} has a name of {len(written)} bytes; AMQP takes 255. Choose a shorter one.")
        parts += (bytes((len(written),)), written, field(value))
    return sized(b"".join(parts))


def sized(data: bytes) -> bytes:
    """Put the size before *data*."""
    return pack(">L", len(data)) + data


def field(value: Any) -> bytes:  # noqa: C901, PLR0911 - one line for each type
    """Write a value with the letter of its type."""
    match value:
        case str():
            return b"S" + sized(value.encode("utf-8", "surrogatepass"))
        case None:
            return b"V"
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            return integer(value)
        case float():
            return b"d" + pack(">d", value)
        case dict():
            return b"F" + table(value)
        case list() | tuple():
            return b"A" + sized(b"".join(map(field, value)))
        case bytes():
            return b"x" + sized(value)
        case Decimal():
            return b"d" + pack(">d", value)
        case datetime():
            return b"T" + pack(">Q", int(value.replace(tzinfo=UTC).timestamp()))  # pika reads it without a zone
        case _:
            raise EncodeError(f"A header holds {saferepr(value, 60)}, a {type(value).__name__}, which AMQP cannot carry. Send text.")


def integer(value: int) -> bytes:
    """Write a whole number in as many bytes as Celery's client does."""
    try:
        return b"I" + pack(">i", value)
    except error:
        pass
    try:
        return b"l" + pack(">q", value)
    except error as exc:
        raise EncodeError(f"The header value {value} does not fit into the 64 bits that AMQP has. Send it as text.") from exc
