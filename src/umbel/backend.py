"""What a result backend promises. `umbel.testing.conformance` holds each sentence of it as a test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from umbel.watch import Polling, Watch

__all__ = ["Arrival", "CeleryPart", "Flows", "Gone", "JoinProgress", "Over", "Record", "ResultBackend"]


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One state of one task, to be stored."""

    id: str
    state: str
    meta: bytes  # the result document, encoded: what a reader of the backend gets (Celery's JSON by default)
    fence: int = 0  # of the delivery that wrote it; 0: unknown (written outside a worker)
    expires: float | None = None  # seconds to live from now; None: for ever
    reply_to: str = ""  # where the caller waits for it, for a backend that keeps nothing; empty: nobody said


class Arrival(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One part of a join, which has ended."""

    flow: str
    join: int
    position: int
    id: str  # of the task that ended there
    value: bytes | None  # encoded; None: it failed
    failure: bytes = b""  # what is known of the failure: its result document


class Over(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A join that is over: what follows it was not sent yet, as far as the backend was told."""

    flow: str
    join: int
    size: int  # how many values it has, if all succeeded; who reads fewer comes late: it was marked as sent meanwhile
    failed: str | None  # the id of the part that failed first; None: all succeeded
    failure: bytes = b""


class Gone(msgspec.Struct, frozen=True):
    """There is no such join: it has expired, or somebody has deleted it."""


class CeleryPart(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A part of a chord that a Celery producer has sent, which has ended."""

    group: str
    index: int | None  # its place in the group
    id: str  # of the task
    document: bytes  # Celery's: [1, id, state, result] as JSON
    claim: float = 5.0  # seconds for which nobody else may send the body: less than a lease, or a worker of Celery's that gets the message
    # of one that died would leave the body to it


class JoinProgress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How far a join is."""

    size: int
    done: int  # parts that have succeeded
    failed: str | None  # the id of the part that failed first
    sent: bool  # was what follows it sent?


class Flows(ABC):
    """Records of workflows. All that is written for one flow lives for `expires` seconds after the last write to it.

    Where a write before said longer, it lives so long. None: for ever. What has expired is as what never was.
    """

    keeps_flows: ClassVar[bool] = True  # False: each call raises NotImplementedError, and chains travel in their messages

    @abstractmethod
    def begin_flow(self, flow: str, nodes: Mapping[int, bytes], joins: Mapping[int, tuple[int, bytes]], *, expires: float | None) -> None:
        """Write *nodes* and open *joins* (number: size and what is to be known of it). Of a large flow it is called for each part of it.

        Repeated, it changes nothing: a node or join that is there stays as it is, and so does what has arrived. A join of no parts is over
        at once; as nobody arrives there, `overs` alone returns it.
        """

    @abstractmethod
    def nodes(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """Return the nodes of *places* (flow and number), in order; None where there is none or it has expired."""

    @abstractmethod
    def node_numbers(self, flow: str) -> list[int]:
        """Return the numbers of all nodes of *flow*, in order; empty if it is unknown or has expired."""

    @abstractmethod
    def join_data(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """Return what is known of the joins of *places*, as `begin_flow` was given it."""

    @abstractmethod
    def arrive(self, arrivals: Sequence[Arrival], *, expires: float | None) -> list[Over | Gone | None]:
        """Note each arrival once: whoever repeats a position changes nothing.

        In the same step in which the last part arrives, or the first that failed, the join is over, and nothing changes that afterwards.
        Return for that arrival the join, and for its repetition, too, until it is marked as sent: who gets it answers for what follows.
        Return Gone for those of a join that is unknown or has expired, and None for all others: it waits for more, or was over before.
        """

    @abstractmethod
    def arrived(self, flow: str, join: int, *, start: int = 0, limit: int = 500) -> list[bytes]:
        """Return the values of a join by position, from *start* on, at most *limit*; only of one that is over, not failed, and not sent.

        Of large ones a page may have fewer; one without any is the end.
        """

    @abstractmethod
    def sent(self, overs: Sequence[Over]) -> None:
        """Mark joins as sent: what follows them was published. Their values may be deleted."""

    @abstractmethod
    def overs(self, *, older: float, limit: int = 100) -> list[Over]:
        """Return joins that are over for at least *older* seconds and not marked as sent: whoever answered for them has died, or is slow.

        Who gets one answers for it from now on: others get it when it is *older* again.
        """

    @abstractmethod
    def grow(self, flow: str, join: int, by: int, *, key: str) -> int | None:
        """Let a join that is not over wait for *by* parts more; return the position of the first of them, None if it is over or unknown.

        *key* says what they are for: repeated with the same, it returns the same, and the join waits for no more.
        """

    @abstractmethod
    def progress(self, flow: str) -> dict[int, JoinProgress]:
        """Return how far the joins of *flow* are; empty if it is unknown or has expired."""

    @abstractmethod
    def forget_flows(self, flows: Sequence[str]) -> None:
        """Delete all that was written for *flows*."""

    @abstractmethod
    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        """Bind each task id to the copy of its message (id and copy) that starts first; False: another copy has started."""

    @abstractmethod
    def save_group(self, id: str, document: bytes, *, expires: float | None) -> None:
        """Keep the document of a group, which names its results."""

    @abstractmethod
    def saved_group(self, id: str) -> bytes | None:
        """Return the document of a group; None if there is none or it has expired."""

    @abstractmethod
    def delete_group(self, id: str) -> None:
        """Delete the document of a group."""


class ResultBackend(Flows):
    """A place for states and results, keyed by task id, and for the records of workflows."""

    is_shared_with_celery: ClassVar[bool] = False  # Do Celery's workers read and write the same results?
    counts_celery_chords: ClassVar[bool] = False  # Do they count the parts of a chord there? Else a task looks for them again and again.

    @abstractmethod
    def open(self) -> None:
        """Check that the engine answers. Optional before other calls."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections. Safe twice and after a fork."""

    @abstractmethod
    def store(self, records: Sequence[Record]) -> list[bool]:
        """Write each record and tell those who wait for its id. False: refused.

        Refused are: any write over SUCCESS; a write with a fence (not 0) smaller than the one stored; and a state that
        is not final, with the same fence, over one that is (FAILURE, REVOKED).
        """

    @abstractmethod
    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        """Return the documents of *ids*, in order; None where there is none or it has expired."""

    def watch(self) -> Watch:
        """Return a subscription to documents, for one thread. Here: one that looks again and again, for an engine that tells nobody.

        Raises:
            NotImplementedError: there is nothing to wait for.
        """
        return Polling(self)

    @abstractmethod
    def forget(self, ids: Sequence[str]) -> None:
        """Delete the documents of *ids*."""

    def expect(self, reply_to: str) -> None:
        """Be ready for results that come to *reply_to*; called before calls are sent that name it, if nothing is kept."""

    def migrate(self) -> Sequence[str] | None:
        """Bring the tables up to date, safe for many at once; return the names of what was carried out, None if there are none."""
        return None

    def migration_sql(self) -> str:
        """Return the SQL that makes all tables, for who runs it by hand; empty if there are none."""
        return ""

    def open_celery_chord(self, group: str, size: int, *, expires: float | None) -> None:
        """Say in Celery's keys of how many parts a chord is. Where it has ended already, nothing changes."""

    def grow_celery_chord(self, group: str, id: str, *, expires: float | None) -> bool:
        """Let a chord in Celery's keys wait for the part *id*, too, once however often it is said; False: it is over.

        Raises:
            NotImplementedError: they are not counted in this engine.
        """
        raise NotImplementedError(
            f"The chord {group} of a Celery producer can take no further members ({id}): where results are in tables, the message that "
            "looks for its end has the list of them. Keep the results in Redis, or put a group in the place of the member: self.replace()."
        )

    def celery_part(self, part: CeleryPart, *, expires: float | None) -> Sequence[bytes] | None:  # noqa: ARG002 - nothing to do here
        """Note a part of a chord of a Celery producer in Celery's keys; return all documents, in order, to who is to send the body.

        None: it waits for more, another sends the body, or Celery counts no parts in this engine: a `celery.chord_unlock` looks for them.
        """
        return None

    def celery_chord_sent(self, group: str, *, failed: bool) -> None:
        """Clean up after the body of a chord of Celery's was sent, or could not be as a part had *failed*."""

    @abstractmethod
    def prune(self) -> int:
        """Delete what has expired, where the engine does not by itself; return how many."""
