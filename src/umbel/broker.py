"""What a broker driver promises. `umbel.testing.conformance` holds each sentence of it as a test.

At every moment a message is in exactly one of: ready, delayed, claimed, parked, dead. Each method below moves messages
between these places in one atomic step. All methods are synchronous, safe to call from several threads and after a
fork, and bounded in time: a broker that does not answer raises `BrokerUnavailable`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Literal

import msgspec

from umbel.backend import Record, ResultBackend
from umbel.exceptions import NotSupported

__all__ = [
    "TALLIES_KEPT",
    "Broker",
    "BrokerFeatures",
    "DeadLetter",
    "Delivery",
    "Evidence",
    "Item",
    "OwnerLost",
    "QueueDepth",
    "Recovered",
    "Revocation",
    "Revocations",
    "Settlement",
    "Tally",
    "Verb",
    "decode_evidence",
    "encode_evidence",
    "plain",
]


TALLIES_KEPT = 3 * 3600  # seconds from a minute's begin on, at least


class OwnerLost(Exception):  # noqa: N818 - an event of the protocol, not a fault of the caller
    """The owner is not in the queue's table: its lease lapsed and its claims were given to others.

    Its holder must stop what it runs, forget its claims and join again under a new epoch.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFeatures:
    """What a driver can do, as data. Each flag answers the question in its comment."""

    atomic_settle: bool = False  # Can results and follow-ups be part of the same step as the acknowledgement?
    shared: bool = True  # Do other processes see the same messages?
    transactional_publish: bool = False  # Can `publish` be part of a transaction of the caller's (`using`)?
    priorities: bool = True  # Are messages with a smaller priority number delivered first?
    leases: bool = True  # Do leases lapse by time? Else claims end with the connection, and the engine gives them back at once.
    verbatim: bool = True  # Does a message arrive byte for byte? Else with the same headers, properties that matter, and body.
    sees_delayed: bool = True  # Does it know what is delayed: can it be counted and purged, and its due time be told?
    due_step: float = 0.0  # To how many seconds are delays rounded up? Within one step there is no order.
    once: bool = True  # Does it remember keys, so that of the messages with one key (`Item.once`) only the first is stored?
    gives_back_to_head: bool = True  # Does what is given back go to the head of its queue, in its order? Else to where the engine puts it.


# Structs rather than dataclasses: one is made for every message, and a frozen dataclass takes fifteen times as long.
class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message to publish."""

    raw: bytes  # the envelope, as `umbel.wire.message.encode` wrote it
    queue: str
    id: str  # the task id
    priority: int = 0  # 0 is first
    due: float | None = None  # seconds since the epoch; None: now
    once: str = ""  # a key: while it is remembered for this queue, `publish` leaves the message out; empty: none
    once_for: float = 0.0  # seconds for which the key is remembered, by the broker's clock


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message, claimed by one owner."""

    queue: str
    tag: str  # names the claim within (queue, owner)
    owner: str
    raw: bytes
    fence: int  # grows with every claim of a store; a larger one is newer
    attempts: int = 0  # deliveries that had started and ended with the death of their process
    suspect: bool = False  # came back from a dead node that left no testimony: claim it alone, mark its start
    revocations: int = 0  # the mark of the list of revoked ids, read after the claim (see `Broker.revoked_since`)


class Verb(IntEnum):
    """What becomes of a claimed message."""

    ACK = 1  # done: forget it
    RETRY = 2  # replace it by `replacement`, ready at `due` (None: now, at the tail of its queue)
    GIVE_BACK = 3  # to the head of the queue, those of one call in their order; `attempts` and `suspect` are rewritten
    BURY = 4  # to the dead letters, with `reason`
    PARK = 5  # to the parked messages: no worker that asked knows this task; `reason` names it
    DELAY = 6  # to the delayed messages until `due`; its `attempts` and `suspect` stay, its bytes become `raw`, if given


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of why a message was put away; it is kept beside it as JSON."""

    kind: str = ""  # crashed, rejected, failed, unreadable, refused (its content type), broken; unknown: parked
    node: str = ""  # the worker that put it away
    attempts: int = 0  # how often its process died while it ran
    signal: str = ""  # which ended the process: SIGKILL
    exitcode: int | None = None  # with which the process ended, if by no signal
    peak_memory: int | None = None  # bytes, of the process
    traceback: str = ""  # the last that is known


def encode_evidence(evidence: Evidence) -> bytes:
    """Write *evidence* as JSON; half of a surrogate pair, which Python's texts may hold, as an escape."""
    try:
        return msgspec.json.encode(evidence)
    except UnicodeEncodeError:
        texts = {name: plain(value) for name, value in msgspec.structs.asdict(evidence).items() if isinstance(value, str)}
        return msgspec.json.encode(msgspec.structs.replace(evidence, **texts))


def plain(text: str) -> str:
    """Return *text* as every store can keep it: without NUL, and without halves of surrogate pairs."""
    return text.replace("\0", " ").encode("utf-8", "backslashreplace").decode()


decode_evidence = msgspec.json.Decoder(Evidence).decode


class Settlement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What to do with one delivery, and what to write in the same step when the driver can (`atomic_settle`)."""

    delivery: Delivery
    verb: Verb
    replacement: Item | None = None  # for RETRY
    reason: str = ""  # for BURY a sentence; for PARK the name of the task
    evidence: Evidence = Evidence()  # for BURY and PARK
    due: float | None = None  # for DELAY, in seconds since the epoch; None: ready at once, at the tail
    raw: bytes | None = None  # for DELAY
    attempts: int = 0  # for GIVE_BACK
    suspect: bool = False  # for GIVE_BACK
    records: Sequence[Record] = ()
    follow_ups: Sequence[Item] = ()
    tally: str = ""  # what is counted if it is carried out, in the same step (see `Broker.tallies`); empty: nothing


class Tally(msgspec.Struct, frozen=True, gc=False):
    """How often something was counted in one minute of one queue."""

    minute: int  # when it begins, by the broker's clock, in seconds since the epoch
    tally: str  # as the settlements said it; a driver does not read it
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """How many messages a queue holds; None where the engine cannot tell."""

    ready: int | None
    delayed: int | None
    claimed: int | None
    parked: int | None
    dead: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One buried or parked message."""

    queue: str
    place: Literal["dead", "parked"]
    key: str  # names this letter in its place, and its order there; never used twice
    id: str  # the task id, or a new one if the message cannot be read
    raw: bytes
    reason: str
    evidence: Evidence
    at: float  # seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What one bounded step of recovery did."""

    deliveries: Sequence[Delivery]  # now claimed by the caller, who settles each
    more: bool  # is there more to recover at once?


@dataclass(frozen=True, slots=True)
class Revocation:
    """One task that must not start any more."""

    id: str
    expires: float  # seconds since the epoch, after which it is forgotten
    signal: str  # what ends it if it runs, for example SIGTERM; empty: it may end by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """What was revoked since a mark."""

    mark: int  # to ask with the next time
    entries: Sequence[Revocation]


class Broker(ABC):
    """A place for messages. The driver retries by itself only what is safe to repeat, and within its deadline."""

    features: ClassVar[BrokerFeatures] = BrokerFeatures()
    longest_lease: float = math.inf  # seconds: what it grants at most, and a node may rely on, whatever lease it asks for

    @abstractmethod
    def open(self) -> None:
        """Check that the engine answers. Optional before other calls, which connect when they need to."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections. Safe twice, and after a fork, where it must not disturb the parent's connections."""

    @abstractmethod
    def publish(self, items: Sequence[Item], *, timeout: float | None = None, using: object = None) -> None:
        """Make all *items* durable, in order; *timeout*, in seconds, is for this call instead of the broker's own.

        An item whose key (`once`) is remembered for its queue is left out. Else its key is remembered in the step that stores it, so
        that to repeat a call whose reply was lost stores it once. Only here: what rides on a settlement is stored in any case.

        With *using*, a connection of the caller's to the same database, they are part of its transaction: durable when that commits, never
        there if it does not; what its library raises passes through.

        Raises:
            NotSupported: *using* was given, and this driver cannot (`features.transactional_publish`), or does not know its kind; or
                an item has a key, and this driver remembers none (`features.once`).
            ImproperlyConfigured: *using* leads to another database.
            BrokerUnavailable: nothing was stored, or, if `maybe_sent`, perhaps everything was.
            ValueError: one is due at nan, or its key is remembered for no time or for ever, and nothing was stored.
        """

    @abstractmethod
    def join(self, owner: str, queues: Sequence[str], *, lease: float) -> None:
        """Enter *owner* into the table of each queue, with a lease of *lease* seconds by the broker's clock."""

    @abstractmethod
    def renew(self, owner: str, queues: Sequence[str], *, lease: float) -> bool:
        """Extend the lease; an owner that lapsed but was not reaped is revived. False: reaped from some queue."""

    @abstractmethod
    def leave(self, owner: str, queues: Sequence[str]) -> None:
        """Take *owner* out of the tables and give what it still claims back to the heads, unchanged."""

    @abstractmethod
    def fetch(
        self, queue: str, limit: int, *, owner: str, seq: int, settle: Sequence[Settlement] = (), parked: Sequence[str] = ()
    ) -> list[Delivery]:
        """Settle *settle* (of the same queue), promote what is due, and claim up to *limit* messages. Does not wait.

        Parked messages of the tasks *parked* (names) are claimed before what is ready, the oldest of each task first.

        Idempotent by *seq*: it starts at 1, grows by one with every call of this owner on this queue that returned, and
        a call repeated with the same number (its reply was lost) returns the same messages. A copy with a smaller number, which
        came late, changes nothing. With *limit* 0 it only settles. Of large messages it may claim fewer than there are, not none.

        Raises:
            OwnerLost: nothing was claimed or settled.
        """

    @abstractmethod
    def wait(self, owner: str, queues: Sequence[str], timeout: float) -> None:
        """Return when one of *queues* may have a message for *owner*, within 0.1 s of it, or after *timeout* seconds."""

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Carry out *settlements*, each of another claim. False for those whose claim is not held any more: they change nothing at all.

        What is carried out, here or by `fetch`, is counted in the same step as its `tally` says. What cannot be counted fails nothing.
        """

    @abstractmethod
    def tallies(self, queue: str, *, since: float) -> list[Tally]:
        """Return what was counted of *queue* in the minutes that begin at *since* (seconds since the epoch) or later, in their order.

        A minute is forgotten by itself, `TALLIES_KEPT` seconds after its begin or a little later.
        """

    def count(self, queue: str, tallies: Mapping[str, int]) -> None:  # noqa: ARG002
        """Count *tallies* in this minute, each so often: for a broker that keeps no counts itself (see `umbel.state`).

        Raises:
            NotSupported: this driver cannot be used so.
        """
        raise NotSupported(f"{type(self).__name__} cannot be umbel_state_url. Use redis://, sqlite:// or postgresql://.")

    @abstractmethod
    def recover(self, queue: str, *, owner: str, limit: int) -> Recovered:
        """Take up to *limit* claims of one owner whose lease has lapsed, fewer if they are large, and make them *owner*'s.

        The dead owner leaves the table when its last claim was taken; from its first on, it is fenced. What was taken
        carries the `attempts` and `suspect` it had. A start that was marked (see `mark_started`) adds one to `attempts`;
        all others come as `suspect`. Called again after `BrokerUnavailable`, it gives what the lost reply held.
        """

    @abstractmethod
    def mark_started(self, delivery: Delivery) -> bool:
        """Write beside the claim that it starts now, so that `recover` can count it. False: the claim is lost."""

    @abstractmethod
    def promote(self, queue: str, *, limit: int = 1000) -> float | None:
        """Move what is due to ready; return when the next is due (seconds since the epoch), None if there is none."""

    @abstractmethod
    def depth(self, queues: Sequence[str]) -> dict[str, QueueDepth]:
        """Count the messages of each queue."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Delete what is ready and delayed; return how many that were."""

    @abstractmethod
    def dead(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        """Return a page of the dead letters, the newest first; an empty page is the end.

        Args:
            queue: its name.
            limit: how many at most; there may be fewer, though more follow.
            after: the `key` of the last letter of the page before, which need not be there any more.
            id: a task id: only its letters.
        """

    @abstractmethod
    def parked(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        """Return a page of the parked messages, the oldest first; all else as for `dead`."""

    @abstractmethod
    def parked_for(self, queue: str, tasks: Sequence[str]) -> list[str]:
        """Return those of *tasks* (names) of which messages are parked. Workers ask every second: it must be cheap."""

    @abstractmethod
    def requeue(self, letters: Sequence[DeadLetter]) -> int:
        """Put *letters* at the tails of their queues, with no attempts and no suspicion; return how many that were.

        One that is not there any more is passed over, so each goes back once, however many ask for it.
        """

    @abstractmethod
    def discard(self, letters: Sequence[DeadLetter]) -> int:
        """Delete *letters*; return how many were still there."""

    @abstractmethod
    def revoke(self, ids: Sequence[str], *, ttl: float, signal: str = "") -> None:
        """Enter the task ids *ids* into the list of revoked ids, for *ttl* seconds, in bounded steps.

        What is claimed after this returned carries a mark that differs from all before. *signal* names what ends those
        that run. An id that is entered again keeps its signal, if none is given now, and the longer of both times.

        Raises:
            BrokerUnavailable: none, some or all of them were entered; to repeat it is safe.
        """

    @abstractmethod
    def revoked_since(self, mark: int) -> Revocations:
        """Return what was entered after *mark* and has not expired; with 0, or a mark that the store does not know, all."""

    def migrate(self) -> Sequence[str] | None:
        """Bring the tables up to date, safe for many at once; return the names of what was carried out, None if there are none."""
        return None

    def migration_sql(self) -> str:
        """Return the SQL that makes all tables, for who runs it by hand; empty if there are none."""
        return ""

    def settles_with(self, backend: ResultBackend) -> bool:  # noqa: ARG002
        """Answer whether records for *backend* can ride in `Settlement.records`, in the same atomic step."""
        return False
