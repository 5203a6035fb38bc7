"""What the parent sends to where tasks run, and what comes back."""

from __future__ import annotations

from enum import IntEnum

import msgspec

__all__ = ["Action", "Job", "Outcome", "Replacement", "decode_jobs", "decode_outcomes", "encode_jobs", "encode_outcomes"]


class Job(msgspec.Struct, frozen=True, array_like=True):
    """One message to run."""

    tag: int  # the parent's number for the delivery
    fence: int
    raw: bytes
    queue: str = ""  # where it was claimed: there its retry goes
    redelivered: bool = False


class Action(IntEnum):
    """What becomes of the message."""

    ACK = 1
    RETRY = 2  # send `replacement`, then acknowledge
    REQUEUE = 3  # as it is, to the tail of its queue
    BURY = 4  # keep it as a dead letter, with `reason`


class Replacement(msgspec.Struct, frozen=True, array_like=True):
    """The message that a retry sends."""

    raw: bytes
    queue: str
    id: str
    priority: int
    due: float | None


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What happened to one message: everything that settling it needs, already encoded."""

    tag: int
    action: Action
    state: str
    runtime: float  # seconds
    meta: bytes | None = None  # the result document; None: nothing is stored
    replacement: Replacement | None = None
    reason: str = ""
    kind: str = ""  # of a dead letter: see `umbel.broker.Evidence`
    traceback: str = ""  # the same
    value: bytes | None = None  # what it returned, if something in a workflow follows it
    failure: bytes = b""  # the result document of a failure that is not stored, if something follows it
    embeds: bool = False  # does what follows it travel in its message, as Celery's producers write it?


encode_jobs = msgspec.msgpack.Encoder().encode
encode_outcomes = msgspec.msgpack.Encoder().encode
decode_jobs = msgspec.msgpack.Decoder(list[Job]).decode
decode_outcomes = msgspec.msgpack.Decoder(list[Outcome]).decode
