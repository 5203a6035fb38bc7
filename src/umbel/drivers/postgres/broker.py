"""The broker in PostgreSQL. Each method is one call of a function in the server, and so one round trip and one transaction."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from umbel.backend import ResultBackend
from umbel.broker import (
    TALLIES_KEPT,
    Broker,
    BrokerFeatures,
    DeadLetter,
    Delivery,
    Item,
    OwnerLost,
    QueueDepth,
    Recovered,
    Revocation,
    Revocations,
    Settlement,
    Tally,
    Verb,
    decode_evidence,
)
from umbel.drivers.acceptance import refuse_odd_times
from umbel.drivers.postgres import statements as sql
from umbel.drivers.postgres.backend import PostgresBackend
from umbel.drivers.postgres.database import Database, OwnerLostError
from umbel.drivers.postgres.joining import Joining
from umbel.drivers.postgres.schema import rename, script
from umbel.drivers.postgres.session import Session
from umbel.drivers.postgres.settling import arrays_of, batches, claim_of, columns, keys_of, tag_of
from umbel.drivers.postgres.waiting import wait_for
from umbel.exceptions import BrokerUnavailable

__all__ = ["PostgresBroker"]

MOST_BYTES = 8_000_000  # of messages after which a claim or a recovery ends, with at least one: the answer has a deadline
PURGED_AT_ONCE = 5000
REVOKED_AT_ONCE = 1000
VALID = 0.5  # seconds after which an order to recover is void
WHOLE_LOOK = 1.0  # seconds between two looks of the claims for messages that have been due for long
RECENTLY = 5.0  # seconds; what has been due for longer is found by these
CARE = 1.0  # seconds between two turns of the rings
LARGEST = 2**63 - 1
SLOW, SLOW_EACH = 0.003, 0.000005  # seconds that a claim looks for messages, and for each
SLOW_AT_LEAST = 8  # claims that took longer, one after another: it is not the machine that is busy, they pass dead rows


class Place(NamedTuple):
    """Where the claims of a queue begin to look, while looking from the beginning takes long; they return there soon."""

    priority: int
    position: int
    until: float


BEGINNING = Place(-1, 0, 0.0)


class PostgresBroker(Broker):
    """Messages in the database that the URL names. Leases and due times go by its clock."""

    features: ClassVar[BrokerFeatures] = BrokerFeatures(atomic_settle=True, transactional_publish=True)

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        self._database = Database(url, options=options or {}, timeout=timeout, error=BrokerUnavailable)
        self._joining = Joining(self._database)
        self._places: dict[str, Place] = {}
        self._slow: dict[str, int] = {}  # queue -> how many claims in a row took long to find their messages
        self._looked: dict[str, float] = {}  # queue -> when a claim last looked for all that is due
        self._doubts: set[tuple[str, str]] = set()  # (queue, owner) whose last claim had no answer: it may still be under way
        self._steps: dict[tuple[str, str], int] = {}  # (queue, owner) -> the number of a recovery that had no answer
        self._slept: set[tuple[str, str]] = set()  # (queue, owner) that may still be rung for
        self._cared = 0.0
        self._caring = threading.Lock()

    def open(self) -> None:
        self._database.call("SELECT FROM umbel.owners LIMIT 1", repeat=True)

    def close(self) -> None:
        self._database.close()

    def migrate(self) -> list[str]:
        return self._database.migrate()

    def migration_sql(self) -> str:
        return script(self._database.schema)

    def publish(self, items: Sequence[Item], *, timeout: float | None = None, using: object = None) -> None:
        refuse_odd_times(items)
        if using is not None:
            self._joining.publish(using, items)
        elif items:
            keys = keys_of(items)
            self._database.call(sql.PUBLISH_ONCE if keys else sql.PUBLISH, (*columns(items), *keys), timeout=timeout)

    def join(self, owner: str, queues: Sequence[str], *, lease: float) -> None:
        try:
            self._database.call(sql.JOIN, (owner, list(queues), lease), repeat=True)
        except OwnerLostError:
            raise OwnerLost(owner) from None

    def renew(self, owner: str, queues: Sequence[str], *, lease: float) -> bool:
        return bool(self._database.call(sql.RENEW, (owner, list(queues), lease), repeat=True)[0][0])

    def leave(self, owner: str, queues: Sequence[str]) -> None:
        self._database.call(sql.LEAVE, (owner, list(queues)), repeat=True)
        self._places.clear()  # what was given back stands before them

    def fetch(
        self, queue: str, limit: int, *, owner: str, seq: int, settle: Sequence[Settlement] = (), parked: Sequence[str] = ()
    ) -> list[Delivery]:
        me, now = (queue, owner), time.monotonic()
        doubt = me in self._doubts
        self._doubts.add(me)
        whole = now > self._looked.get(queue, 0.0) + WHOLE_LOOK
        place = self._place(queue, now)
        tasks = list(dict.fromkeys(parked))
        how = (queue, owner, seq, limit, MOST_BYTES, tasks, doubt, me in self._slept, math.inf if whole else RECENTLY, *place[:2])
        *before, last = list(batches(settle)) or [[]]
        for batch in before:  # some claim or result comes twice, which is rare
            self._settle(batch)
        try:
            statement, riding = (sql.SETTLE_AND_FETCH, arrays_of(last)) if last else (sql.FETCH, ())
            rows = self._database.call(statement, (*riding, *how))
        except OwnerLostError:
            self._doubts.discard(me)
            raise OwnerLost(owner) from None
        self._doubts.discard(me)
        self._slept.discard(me)
        if whole:
            self._looked[queue] = now
        if any(each.verb is Verb.GIVE_BACK for each in settle):
            self._places.pop(queue, None)
        return self._claimed(queue, owner, seq, limit, rows, now)

    def _claimed(self, queue: str, owner: str, seq: int, limit: int, rows: list[tuple[Any, ...]], began: float) -> list[Delivery]:
        """Make deliveries of the rows, in their order, and remember where to go on if it took long to find them."""
        rows.sort(key=by_order)
        slow = len(rows) == limit and rows and rows[0][8] > SLOW + SLOW_EACH * len(rows)
        self._slow[queue] = self._slow.get(queue, 0) + 1 if slow else 0
        if len(rows) < limit:  # what is left may stand before the place
            self._places.pop(queue, None)
        elif self._slow[queue] >= SLOW_AT_LEAST:
            until = self._places.get(queue, BEGINNING).until
            if until < began:
                until = began + min(1.0, max(0.1, 10 * rows[0][8]))
            self._places[queue] = Place(rows[-1][5], rows[-1][0], until)
        return [delivery_of(queue, owner, seq, row, row[7]) for row in rows]

    def _place(self, queue: str, now: float) -> Place:
        place = self._places.get(queue, BEGINNING)
        return place if place.until > now else BEGINNING

    def wait(self, owner: str, queues: Sequence[str], timeout: float) -> None:
        due_in, names = rename(sql.DUE_IN, self._database.schema), list(queues)

        def look(session: Session) -> float | None:
            after: float | None = session.rows(due_in, (names, RECENTLY))[0][0]
            return after

        if wait_for(self._database, [f"q:{queue}" for queue in queues], owner, look, timeout, bell_ends=True):
            self._slept.update((queue, owner) for queue in queues)

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        return [flag for batch in batches(settlements) for flag in self._settle(batch)]

    def _settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        done = set(self._database.call(sql.SETTLE, arrays_of(settlements))[0][0])
        for each in settlements:
            if each.verb is Verb.GIVE_BACK:
                self._places.pop(each.delivery.queue, None)
        return [number in done for number in range(1, len(settlements) + 1)]

    def tallies(self, queue: str, *, since: float) -> list[Tally]:
        return [Tally(*row) for row in self._database.call(sql.TALLIES, (queue, since, TALLIES_KEPT), repeat=True)]

    def count(self, queue: str, tallies: Mapping[str, int]) -> None:
        self._database.call(sql.COUNT, (queue, list(tallies), list(tallies.values())))

    def recover(self, queue: str, *, owner: str, limit: int) -> Recovered:
        me = (queue, owner)
        known, lapsed, now = self._database.call(sql.LAPSED, me, repeat=True)[0]
        if not known:
            raise OwnerLost(owner)
        if not lapsed and me not in self._steps:
            return Recovered(deliveries=(), more=False)
        step = self._steps.setdefault(me, -random.randint(1, LARGEST))  # noqa: S311 - so that no two are the same
        try:
            rows = self._database.call(sql.RECOVER, (queue, owner, step, limit, MOST_BYTES, now + VALID), repeat=True)
        except OwnerLostError:
            raise OwnerLost(owner) from None
        del self._steps[me]
        taken = sorted((row for row in rows if row[0] is not None), key=by_order)
        return Recovered(deliveries=[delivery_of(queue, owner, step, row, 0) for row in taken], more=rows[0][7])

    def mark_started(self, delivery: Delivery) -> bool:
        return bool(self._database.call(sql.MARK_STARTED, tuple(claim_of(delivery)), repeat=True)[0][0])

    def promote(self, queue: str, *, limit: int = 1000) -> float | None:
        self._database.call(sql.PROMOTE, (queue, limit), repeat=True)
        self._care()
        rows = self._database.call(sql.NEXT_DUE, (queue,), repeat=True)
        return rows[0][0] if rows else None

    def _care(self) -> None:
        """Turn the rings and delete what has ended: workers call `promote` about once a second."""
        with self._caring:
            now = time.monotonic()
            if now < self._cared + CARE:
                return
            self._cared = now
        for statement in sql.TURNS:
            self._database.call(statement)

    def depth(self, queues: Sequence[str]) -> dict[str, QueueDepth]:
        rows = self._database.call(sql.DEPTH, (list(queues),), repeat=True)
        return {row[0]: QueueDepth(ready=row[1], delayed=row[2], claimed=row[3], parked=row[4], dead=row[5]) for row in rows}

    def purge(self, queue: str) -> int:
        last = self._database.call(sql.LAST_POSITION, repeat=True)[0][0]
        total = 0
        for statement in (sql.PURGE_READY, sql.PURGE_DELAYED):
            removed = PURGED_AT_ONCE
            while removed == PURGED_AT_ONCE:
                removed = int(self._database.call(statement, (queue, last, PURGED_AT_ONCE))[0][0])
                total += removed
        return total

    def dead(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        number = int(after) if after else LARGEST
        return self._letters(queue, "dead", sql.DEAD_OF if id else sql.DEAD, (number, *([id] if id else []), limit))

    def parked(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        return self._letters(queue, "parked", sql.PARKED_OF if id else sql.PARKED, (int(after or 0), *([id] if id else []), limit))

    def _letters(self, queue: str, place: Literal["dead", "parked"], statement: str, values: tuple[Any, ...]) -> list[DeadLetter]:
        rows = self._database.call(statement, (queue, *values), repeat=True)
        return [
            DeadLetter(
                queue=queue, place=place, key=str(number), id=task_id, raw=raw, reason=reason, evidence=decode_evidence(evidence), at=at
            ) for number, task_id, raw, reason, evidence, at in rows
        ]  # fmt: skip

    def parked_for(self, queue: str, tasks: Sequence[str]) -> list[str]:
        if not tasks:
            return []
        known = {row[0] for row in self._database.call(sql.PARKED_FOR, (list(tasks), queue, queue), repeat=True)}
        return [task for task in tasks if task in known]

    def requeue(self, letters: Sequence[DeadLetter]) -> int:
        return self._take_away(sql.REQUEUE, letters)

    def discard(self, letters: Sequence[DeadLetter]) -> int:
        return self._take_away(sql.DISCARD, letters)

    def _take_away(self, statement: str, letters: Sequence[DeadLetter]) -> int:
        places = [4 if each.place == "dead" else 3 for each in letters]
        values = ([int(each.key) for each in letters], [each.queue for each in letters], places)
        return int(self._database.call(statement, values)[0][0])

    def revoke(self, ids: Sequence[str], *, ttl: float, signal: str = "") -> None:
        for start in range(0, len(ids), REVOKED_AT_ONCE):
            self._database.call(sql.REVOKE, (list(ids[start : start + REVOKED_AT_ONCE]), ttl, signal))

    def revoked_since(self, mark: int) -> Revocations:
        (last, *_), *rows = self._database.call(sql.REVOKED_SINCE, (mark,), repeat=True)
        return Revocations(mark=last, entries=[Revocation(*row[1:]) for row in rows])

    def settles_with(self, backend: ResultBackend) -> bool:
        return isinstance(backend, PostgresBackend) and backend.identity == self._database.identity


def by_order(row: tuple[Any, ...]) -> tuple[int, int]:
    """Return priority and position of a row of FETCH or RECOVER."""
    return row[5], row[0]


def delivery_of(queue: str, owner: str, seq: int, row: tuple[Any, ...], mark: int) -> Delivery:
    """Make a delivery of a row of FETCH or RECOVER."""
    position, number, fence, attempts, suspect, _, raw = row[:7]
    return Delivery(
        queue=queue, tag=tag_of(number, seq, position, fence), owner=owner, raw=raw, fence=fence, attempts=attempts, suspect=suspect,
        revocations=mark,
    )  # fmt: skip
