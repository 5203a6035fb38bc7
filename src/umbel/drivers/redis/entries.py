"""Messages as the scripts write and read them: those that were put away, and those that bear marks."""

from __future__ import annotations

from typing import Literal

from umbel.broker import DeadLetter, Delivery, Settlement, decode_evidence
from umbel.exceptions import SerializationError
from umbel.ids import uuid
from umbel.wire.marks import mark, marks
from umbel.wire.message import glance

__all__ = ["letter_of", "marked", "name_of", "unmarked"]


def name_of(raw: bytes) -> str:
    """Return the task id, or a new id for what cannot be read."""
    try:
        return glance(raw).id
    except SerializationError:
        return uuid()


def letter_of(queue: str, place: Literal["dead", "parked"], name: bytes, data: bytes) -> DeadLetter:
    """Make a letter of what the script `letters` returns."""
    task_id, reason, evidence, raw = data.split(b"\0", 3)
    return DeadLetter(
        queue=queue, place=place, key=name.decode(), id=task_id.decode(), raw=raw[1:], reason=reason.decode(),
        evidence=decode_evidence(evidence), at=int(name) / 1e6,
    )  # fmt: skip


def marked(delivery: Delivery, settlement: Settlement) -> bytes:
    """Return the message with the marks that the settlement asks for, rewritten only when they change."""
    if (settlement.attempts, settlement.suspect) == (delivery.attempts, delivery.suspect) == marks(delivery.raw):
        return delivery.raw
    return mark(delivery.raw, attempts=settlement.attempts, suspect=settlement.suspect)


def unmarked(raw: bytes) -> bytes:
    """Return the message without attempts and suspicion; empty if it has none, and stays as it is."""
    return b"" if marks(raw) == (0, False) else mark(raw, attempts=0, suspect=False)
