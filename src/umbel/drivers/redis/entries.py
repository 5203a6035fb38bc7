"""What was put away, as the scripts write and read it."""

from __future__ import annotations

from typing import Literal

from umbel.broker import DeadLetter, decode_evidence
from umbel.exceptions import SerializationError
from umbel.ids import uuid
from umbel.wire.message import glance

__all__ = ["letter_of", "name_of"]


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
