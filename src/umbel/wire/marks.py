"""What umbel writes into a message that comes back: how often it was tried in vain, and when a rate limit lets it start."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from umbel.exceptions import DecodeError, SerializationError
from umbel.wire.jsontypes import dumps, parse
from umbel.wire.message import read_as

__all__ = ["mark", "marks", "turn_of", "with_turn"]

_ATTEMPTS = "umbel_attempts"
_SUSPECT = "umbel_suspect"


class _Marks(msgspec.Struct, gc=False):
    umbel_attempts: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    umbel_turn: float | None = None
    umbel_suspect: bool = False


class _Marked(msgspec.Struct, gc=False):
    headers: _Marks


_read_marked = msgspec.json.Decoder(_Marked).decode


def mark(raw: bytes, *, attempts: int, suspect: bool) -> bytes:
    """Write into an envelope how often it was tried in vain, and that it is being delivered again.

    What cannot be read is returned as it is: a message is never lost for want of a mark.
    """
    try:
        envelope = parse(raw)
        if not isinstance(envelope, dict):
            return raw
        headers = envelope.get("headers") or {}
        kept = {name: value for name, value in headers.items() if name not in (_ATTEMPTS, _SUSPECT)}
        kept["redelivered"] = True
        if attempts:
            kept[_ATTEMPTS] = attempts
        if suspect:
            kept[_SUSPECT] = True
        properties = envelope.get("properties") or {}
        info = {**(properties.get("delivery_info") or {}), "redelivered": True}
        return dumps({**envelope, "headers": kept, "properties": {**properties, "delivery_info": info}}).encode("ascii")
    except (SerializationError, AttributeError, TypeError):  # an envelope, headers or properties of another shape
        return raw


def turn_of(raw: bytes) -> float | None:
    """Return when a rate limit lets this message start (seconds since the epoch), if one has said so."""
    if b'"umbel_turn"' not in raw:
        return None
    try:
        turn = read_as(raw, _read_marked, _Marked).headers.umbel_turn
    except DecodeError:
        return None
    return turn if turn is not None and math.isfinite(turn) else None


def with_turn(raw: bytes, turn: float) -> bytes:
    """Write into an envelope when a rate limit lets it start; what cannot be read is returned as it is."""
    try:
        envelope = parse(raw)
        return dumps({**envelope, "headers": {**envelope["headers"], "umbel_turn": turn}}).encode("ascii")
    except (SerializationError, LookupError, AttributeError, TypeError):
        return raw


def marks(raw: bytes) -> tuple[int, bool]:
    """Read what `mark` wrote: attempts, suspect."""
    if b'"redelivered"' not in raw:  # which `mark` always writes, too
        return 0, False
    try:
        headers = read_as(raw, _read_marked, _Marked).headers
    except DecodeError:
        return 0, False
    return headers.umbel_attempts, headers.umbel_suspect
