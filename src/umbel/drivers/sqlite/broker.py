# ruff: noqa: ARG002 - not every driver needs every argument
"""The broker in an SQLite file. Each method is one transaction, and so one write to the disk for its whole batch."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from umbel.backend import ResultBackend
from umbel.broker import (
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
    encode_evidence,
    plain,
)
from umbel.clock import Clock, SystemClock
from umbel.drivers.acceptance import refuse_odd_times, refuse_using
from umbel.drivers.sqlite import statements as sql
from umbel.drivers.sqlite.backend import SQLiteBackend, write_record
from umbel.drivers.sqlite.database import Database, path_of
from umbel.drivers.sqlite.tallies import Tallies
from umbel.exceptions import BrokerUnavailable

__all__ = ["SQLiteBroker"]

READY, DELAYED, PARKED, DEAD = 0, 1, 3, 4  # see schema.sql
PROMOTED_AT_ONCE = 1000
PURGED_AT_ONCE = 5000
REVOKED_AT_ONCE = 1000
KEYS_FORGOTTEN = 100  # in one publish, and two for each message
MOST_BYTES = 8_000_000  # of messages after which a claim or a recovery ends, with at least one: others wait for the lock
VALID = 0.5  # seconds after which an order to recover is void


class SQLiteBroker(Broker):
    """Messages in the file that the URL names, shared by the processes of one host. Leases go by the host's clock."""

    features: ClassVar[BrokerFeatures] = BrokerFeatures(atomic_settle=True)

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None) -> None:
        self.path = os.path.realpath(path_of(url))
        self._database = Database(self.path, options=options or {}, timeout=timeout, error=BrokerUnavailable)
        self._clock = clock or SystemClock()
        self._tallies = Tallies()

    def open(self) -> None:
        with self._database.read() as connection:
            connection.execute("SELECT 1 FROM umbel_messages LIMIT 1")

    def close(self) -> None:
        self._database.close()

    def publish(self, items: Sequence[Item], *, timeout: float | None = None, using: object = None) -> None:
        refuse_using(using, "sqlite")
        refuse_odd_times(items)
        with self._database.write(timeout) as connection:
            if any([item.once for item in items]):  # noqa: C419 - cheaper than a generator
                items = self._without_known(connection, items)
            self._add(connection, items)

    def _without_known(self, connection: sqlite3.Connection, items: Sequence[Item]) -> list[Item]:
        """Return *items* but those whose keys are remembered, and remember the keys of the others."""
        now = self._clock.now()
        connection.execute(sql.FORGET_KEYS, (now, 2 * len(items) + KEYS_FORGOTTEN))

        def is_new(item: Item) -> bool:
            return connection.execute(sql.REMEMBER, (item.queue, item.once, now + item.once_for, now)).rowcount == 1

        return [item for item in items if not item.once or is_new(item)]

    def _add(self, connection: sqlite3.Connection, items: Iterable[Item]) -> None:
        now = self._clock.now()
        connection.executemany(sql.PUBLISH, [row_of(item, now) for item in items])

    def join(self, owner: str, queues: Sequence[str], *, lease: float) -> None:
        with self._database.write() as connection:
            expires = self._clock.now() + lease
            for queue in queues:
                if connection.execute(sql.JOIN, (queue, owner, expires)).rowcount != 1:
                    raise OwnerLost(owner)

    def renew(self, owner: str, queues: Sequence[str], *, lease: float) -> bool:
        with self._database.write() as connection:
            expires = self._clock.now() + lease
            return connection.executemany(sql.RENEW, [(expires, queue, owner) for queue in queues]).rowcount == len(queues)

    def leave(self, owner: str, queues: Sequence[str]) -> None:
        with self._database.write() as connection:
            for queue in queues:
                if last_seq(connection, queue, owner) is not None:
                    connection.execute(sql.LEAVE, (queue, owner))
                    connection.execute(sql.REMOVE_OWNER, (queue, owner))

    def fetch(
        self, queue: str, limit: int, *, owner: str, seq: int, settle: Sequence[Settlement] = (), parked: Sequence[str] = ()
    ) -> list[Delivery]:
        if not settle and not parked and self._has_nothing(queue, owner, seq):
            return []
        with self._database.write() as connection:
            last = last_seq(connection, queue, owner)
            if last is None:
                raise OwnerLost(owner)
            if seq > last:
                self._settle(connection, settle)
                self._promote(connection, queue, PROMOTED_AT_ONCE)
                places = [(sql.PARKED_SIZES, sql.CLAIM_PARKED, (queue, task)) for task in dict.fromkeys(parked)]
                claim(connection, [*places, (sql.READY_SIZES, sql.CLAIM, (queue,))], limit, owner=owner, seq=seq)
                connection.execute(sql.SET_SEQ, (seq, queue, owner))
            rows = connection.execute(sql.CLAIMED, (queue, owner, seq))
            mark = revoked_mark(connection)
            return [delivery_of(queue, owner, row, mark) for row in rows]

    def _has_nothing(self, queue: str, owner: str, seq: int) -> bool:
        """Look without a transaction, so that an idle worker neither writes nor holds up those who do."""
        with self._database.read() as connection:
            last = last_seq(connection, queue, owner)
            return last is not None and seq > last and self._due_in(connection, [queue]) != 0

    def _due_in(self, connection: sqlite3.Connection, queues: Sequence[str]) -> float | None:
        """Return in how many seconds there is something to claim, if nothing changes."""
        soonest: float | None = None
        for queue in queues:
            if connection.execute(sql.ANY_READY, (queue,)).fetchone()[0]:
                return 0.0
            (due,) = connection.execute(sql.NEXT_DUE, (queue,)).fetchone()
            if due is not None and (soonest is None or due < soonest):
                soonest = due
        return None if soonest is None else max(0.0, soonest - self._clock.now())

    def wait(self, owner: str, queues: Sequence[str], timeout: float) -> None:
        self._database.wait(lambda connection: self._due_in(connection, queues), timeout)

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        with self._database.write() as connection:
            return self._settle(connection, settlements)

    def _settle(self, connection: sqlite3.Connection, settlements: Sequence[Settlement]) -> list[bool]:
        owners = {(s.delivery.queue, s.delivery.owner) for s in settlements}
        valid = {owner for owner in owners if last_seq(connection, *owner) is not None}
        flags = [(s.delivery.queue, s.delivery.owner) in valid and self._settle_one(connection, s) for s in settlements]
        self._tallies.add(connection, (s for s, done in zip(settlements, flags, strict=True) if done), self._clock.now())
        return flags

    def tallies(self, queue: str, *, since: float) -> list[Tally]:
        with self._database.read() as connection:
            return self._tallies.since(connection, queue, since, self._clock.now())

    def count(self, queue: str, tallies: Mapping[str, int]) -> None:
        with self._database.write() as connection:
            self._tallies.count(connection, {(queue, tally): times for tally, times in tallies.items()}, self._clock.now())

    def _settle_one(self, connection: sqlite3.Connection, settlement: Settlement) -> bool:
        claim, now = claim_of(settlement.delivery), self._clock.now()
        match settlement.verb:
            case Verb.ACK | Verb.RETRY:
                cursor = connection.execute(sql.ACK, claim)
            case Verb.GIVE_BACK:
                cursor = connection.execute(sql.GIVE_BACK, (settlement.attempts, settlement.suspect, *claim))
            case Verb.DELAY:
                due = now if settlement.due is None else settlement.due
                cursor = connection.execute(sql.DELAY, (due, settlement.raw, *claim))
            case Verb.BURY | Verb.PARK:
                place = DEAD if settlement.verb is Verb.BURY else PARKED
                cursor = connection.execute(
                    sql.PUT_AWAY, (place, plain(settlement.reason), encode_evidence(settlement.evidence), now, *claim)
                )
        if cursor.rowcount != 1:
            return False
        if settlement.verb is Verb.RETRY:
            assert settlement.replacement is not None, "a retry needs its replacement"
            self._add(connection, (settlement.replacement,))
        for record in settlement.records:
            write_record(connection, record, now)
        if settlement.follow_ups:
            self._add(connection, settlement.follow_ups)
        return True

    def recover(self, queue: str, *, owner: str, limit: int) -> Recovered:
        now = self._clock.now()
        with self._database.read() as connection:  # nearly always nobody lapsed, and a look costs no write
            if last_seq(connection, queue, owner) is None:
                raise OwnerLost(owner)
            if connection.execute(sql.LAPSED, (queue, owner, now)).fetchone() is None:
                return Recovered(deliveries=(), more=False)
        with self._database.write() as connection:
            if last_seq(connection, queue, owner) is None:
                raise OwnerLost(owner)
            # While this waited for the lock nobody could renew: owners that live may seem to have lapsed.
            late = self._clock.now() - now > VALID
            lapsed = connection.execute(sql.LAPSED, (queue, owner, now)).fetchall()
            if late or not lapsed:
                return Recovered(deliveries=(), more=False)
            lost, fence = lapsed[0][0], next_fence(connection)
            connection.execute(sql.REAP, (queue, lost))
            fits, _ = fitting(connection.execute(sql.CLAIMED_SIZES, (queue, lost, limit)), MOST_BYTES)
            connection.execute(sql.TAKE_OVER, (owner, fence, queue, lost, fits))
            taken = [delivery_of(queue, owner, row) for row in connection.execute(sql.TAKEN, (queue, owner, fence))]
            (left,) = connection.execute(sql.COUNT_CLAIMED, (queue, lost)).fetchone()
            if not left:
                connection.execute(sql.REMOVE_OWNER, (queue, lost))
            return Recovered(deliveries=taken, more=left > 0 or len(lapsed) > 1)

    def mark_started(self, delivery: Delivery) -> bool:
        with self._database.write() as connection:
            if last_seq(connection, delivery.queue, delivery.owner) is None:
                return False
            return connection.execute(sql.MARK_STARTED, claim_of(delivery)).rowcount == 1

    def promote(self, queue: str, *, limit: int = 1000) -> float | None:
        with self._database.read() as connection:
            due = next_due(connection, queue)
        if due is None or due > self._clock.now():
            return due
        with self._database.write() as connection:
            self._promote(connection, queue, limit)
            return next_due(connection, queue)

    def _promote(self, connection: sqlite3.Connection, queue: str, limit: int) -> None:
        positions = connection.execute(sql.DUE, (queue, self._clock.now(), limit)).fetchall()
        for position in positions:  # one by one: each takes the position behind the one before
            connection.execute(sql.TO_TAIL, position)

    def depth(self, queues: Sequence[str]) -> dict[str, QueueDepth]:
        with self._database.read() as connection:
            return {queue: depth_of(connection.execute(sql.DEPTH, (queue,)).fetchone()) for queue in queues}

    def purge(self, queue: str) -> int:
        with self._database.read() as connection:
            (last,) = connection.execute(sql.LAST_POSITION).fetchone()  # what comes later is not waited for
        return sum(self._purge(statement, queue, last) for statement in (sql.PURGE_READY, sql.PURGE_DELAYED))

    def _purge(self, statement: str, queue: str, last: int | None) -> int:
        """Delete in steps, between which others write: a million messages at once would keep the lock for longer than they wait."""
        total, removed = 0, PURGED_AT_ONCE
        while removed == PURGED_AT_ONCE:
            with self._database.write() as connection:
                removed = connection.execute(statement, (queue, last, PURGED_AT_ONCE)).rowcount
            total += removed
        return total

    def dead(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        at, position = place_in_order(after) if after else (math.inf, 0)
        return self._letters(queue, "dead", sql.DEAD_OF if id else sql.DEAD, (at, position, *([id] if id else []), limit))

    def parked(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        at, position = place_in_order(after) if after else (-math.inf, 0)
        return self._letters(queue, "parked", sql.PARKED_OF if id else sql.PARKED, (at, position, *([id] if id else []), limit))

    def _letters(self, queue: str, place: Literal["dead", "parked"], statement: str, values: tuple[Any, ...]) -> list[DeadLetter]:
        with self._database.read() as connection:
            return [letter_of(queue, place, row) for row in connection.execute(statement, (queue, *values))]

    def parked_for(self, queue: str, tasks: Sequence[str]) -> list[str]:
        with self._database.read() as connection:
            if not connection.execute(sql.ANY_PARKED, (queue,)).fetchone()[0]:
                return []
            return [task for task in tasks if connection.execute(sql.PARKED_FOR, (queue, task)).fetchone()[0]]

    def requeue(self, letters: Sequence[DeadLetter]) -> int:
        return self._take_away(sql.REQUEUE, letters)

    def discard(self, letters: Sequence[DeadLetter]) -> int:
        return self._take_away(sql.DISCARD, letters)

    def _take_away(self, statement: str, letters: Sequence[DeadLetter]) -> int:
        taken = 0
        with self._database.write() as connection:
            for letter in letters:
                at, position = place_in_order(letter.key)
                place = DEAD if letter.place == "dead" else PARKED
                taken += connection.execute(statement, (position, at, letter.queue, place)).rowcount
        return taken

    def revoke(self, ids: Sequence[str], *, ttl: float, signal: str = "") -> None:
        for start in range(0, len(ids), REVOKED_AT_ONCE):
            with self._database.write() as connection:
                now = self._clock.now()
                connection.execute(sql.FORGET_REVOKED, (now, 2 * REVOKED_AT_ONCE))
                for task_id in ids[start : start + REVOKED_AT_ONCE]:
                    mark = connection.execute(sql.NEXT_REVOKED_MARK).fetchall()[0][0]
                    connection.execute(sql.REVOKE, (task_id, mark, now + ttl, signal))

    def revoked_since(self, mark: int) -> Revocations:
        with self._database.read() as connection:
            last = revoked_mark(connection)
            if mark == last:
                return Revocations(mark=last, entries=())
            rows = connection.execute(sql.REVOKED_SINCE, (mark if mark <= last else 0, self._clock.now()))
            return Revocations(mark=last, entries=[Revocation(*row) for row in rows])

    def settles_with(self, backend: ResultBackend) -> bool:
        return isinstance(backend, SQLiteBackend) and backend.path == self.path


def row_of(item: Item, now: float) -> tuple[Any, ...]:
    """Return the values for PUBLISH."""
    place = DELAYED if item.due is not None and item.due > now else READY
    return item.queue, place, item.priority, item.due, item.id, item.raw


def last_seq(connection: sqlite3.Connection, queue: str, owner: str) -> int | None:
    """Return the number of the owner's last fetch; None if it is not in the table, or reaped."""
    row = connection.execute(sql.OWNER, (queue, owner)).fetchone()
    return None if row is None else row[0]


def claim(connection: sqlite3.Connection, places: Sequence[tuple[str, str, tuple[str, ...]]], limit: int, *, owner: str, seq: int) -> None:
    """Claim up to *limit* messages of *places*: each has a statement for sizes, one that claims, and values for both."""
    fence, left = next_fence(connection), MOST_BYTES
    for sizes, statement, which in places:
        fits, left = fitting(connection.execute(sizes, (*which, limit)), left)
        if fits:
            limit -= connection.execute(statement, (owner, seq, fence, *which, fits)).rowcount


def fitting(sizes: Iterable[tuple[int]], left: int) -> tuple[int, int]:
    """Return how many of *sizes* to take until *left* bytes are used up, and what is left then; the last may be larger."""
    count = 0
    for (size,) in sizes:
        if left <= 0:
            break
        count, left = count + 1, left - size
    return count, left


def next_fence(connection: sqlite3.Connection) -> int:
    """Return a fence larger than all before, of any queue: a task that moves to another queue must not look older."""
    fence: int = connection.execute(sql.NEXT_FENCE).fetchall()[0][0]
    return fence


def next_due(connection: sqlite3.Connection, queue: str) -> float | None:
    """Return when the next delayed message of *queue* is due."""
    due: float | None = connection.execute(sql.NEXT_DUE, (queue,)).fetchone()[0]
    return due


def revoked_mark(connection: sqlite3.Connection) -> int:
    """Return the mark of the last entry of the list of revoked ids."""
    mark: int = connection.execute(sql.REVOKED_MARK).fetchone()[0]
    return mark


def delivery_of(queue: str, owner: str, row: tuple[int, int, int, int, bytes], mark: int = 0) -> Delivery:
    """Make a delivery of a row of CLAIMED or TAKEN."""
    position, fence, attempts, suspect, raw = row
    return Delivery(
        queue=queue, tag=f"{position}:{fence}", owner=owner, raw=raw, fence=fence, attempts=attempts, suspect=bool(suspect),
        revocations=mark,
    )  # fmt: skip


def claim_of(delivery: Delivery) -> tuple[int, int, str, str]:
    """Return the values for HELD."""
    position, _, fence = delivery.tag.partition(":")
    return int(position), int(fence), delivery.owner, delivery.queue


def letter_of(queue: str, place: Literal["dead", "parked"], row: tuple[int, str, bytes, str, bytes, float]) -> DeadLetter:
    """Make a letter of a row of DEAD or PARKED."""
    position, task_id, raw, reason, evidence, at = row
    return DeadLetter(
        queue=queue, place=place, key=f"{at!r} {position}", id=task_id, raw=raw, reason=reason, evidence=decode_evidence(evidence), at=at
    )  # fmt: skip


def place_in_order(key: str) -> tuple[float, int]:
    """Return time and position of a letter by its key."""
    at, _, position = key.partition(" ")
    return float(at), int(position)


def depth_of(row: tuple[int, int, int, int, int]) -> QueueDepth:
    """Make a depth of a row of DEPTH."""
    ready, delayed, claimed, parked, dead = row
    return QueueDepth(ready=ready, delayed=delayed, claimed=claimed, parked=parked, dead=dead)
