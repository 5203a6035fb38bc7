"""Dead letters and parked messages: queues beside the queue. Who reads one keeps all others out meanwhile, and puts back what it read.

A queue of RabbitMQ can only be read by taking messages out of it, so each look reads all that is there.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import Any, Literal
from uuid import uuid4

import msgspec

from umbel.broker import DeadLetter, Evidence, Settlement, Verb, plain
from umbel.drivers.amqp.channel import LOCKED, NOT_FOUND, Channel, ChannelClosed, Pushed
from umbel.drivers.amqp.connection import Connection
from umbel.drivers.amqp.intake import LONGEST, Claim, Intake, Lane
from umbel.drivers.amqp.message import LETTER, Sent, marks_of, read, remade
from umbel.drivers.amqp.owners import Owners
from umbel.drivers.amqp.publisher import Publisher
from umbel.drivers.amqp.topology import Topology, count_of, dead_of, parked_of
from umbel.exceptions import BrokerUnavailable
from umbel.ids import uuid

__all__ = ["Letters"]

Place = Literal["dead", "parked"]
LOOK_AGAIN = 0.02  # seconds between two tries to be the only reader, or two looks whether all went back
BELIEVED = 5.0  # seconds for which what is parked is not read again while its number stays


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What is written on a letter."""

    key: str  # begins with the time, so that letters are in order
    at: float
    id: str
    reason: str
    evidence: Evidence = Evidence()


_read_label = msgspec.json.Decoder(Label).decode


class Letters:
    """Reads and changes what is put away."""

    def __init__(self, publisher: Publisher, topology: Topology) -> None:
        self._publisher, self._topology = publisher, topology
        self._names: dict[str, tuple[int, float, frozenset[str]]] = {}  # queue -> how many, when, tasks that are parked
        self._claiming = threading.Lock()

    def letter(self, claim: Claim, queue: str, settlement: Settlement) -> Sent:
        """Return the letter that *settlement* makes of a message."""
        now = time.time()
        label = Label(
            key=f"{now:017.6f}-{uuid4().hex}", at=now, id=claim.received.id or uuid(), reason=plain(settlement.reason),
            evidence=cleaned(settlement.evidence),
        )  # fmt: skip
        place = dead_of(queue) if settlement.verb is Verb.BURY else parked_of(queue)
        marks = {**marks_of(attempts=claim.received.attempts), LETTER: msgspec.json.encode(label).decode()}
        return remade(claim.pushed, queue, marks, place)

    # Counts

    def counts(self, queues: Sequence[str], deadline: float) -> dict[str, tuple[int, int, int]]:
        """Return how many messages of each queue are ready, parked and dead."""
        with self._publisher.connection(deadline) as (connection, _), scratch(connection, deadline) as channel:
            found = {}
            for queue in queues:
                found[queue] = tuple(self._count(channel, name, deadline) for name in (queue, parked_of(queue), dead_of(queue)))
        return found  # type: ignore[return-value]

    def _count(self, channel: Scratch, name: str, deadline: float) -> int:
        return channel.ask(lambda each: count_of(each, name, deadline), 0)

    def purge(self, queue: str, deadline: float) -> int:
        """Delete what is ready."""
        with self._publisher.connection(deadline) as (connection, _), scratch(connection, deadline) as channel:
            return channel.ask(lambda each: int(each.ask(lambda c, done: c.queue_purge(queue, callback=done), deadline).message_count), 0)

    # Reading

    def page(self, queue: str, place: Place, limit: int, after: str, id: str, deadline: float) -> list[DeadLetter]:
        """Return a page: of the dead the newest first, of the parked the oldest."""
        with self._publisher.connection(deadline) as (connection, _), self._reading(connection, queue, place, deadline) as reading:
            found = [letter for pushed in reading.messages if not id or letter_id(pushed) == id if (letter := opened(pushed, queue, place))]
        newest_first = place == "dead"
        found.sort(key=lambda letter: letter.key, reverse=newest_first)
        if after:
            found = [letter for letter in found if (letter.key < after if newest_first else letter.key > after)]
        return found[:limit]

    def parked_for(self, queue: str, tasks: Sequence[str], deadline: float) -> list[str]:
        """Return those of *tasks* of which messages are parked; it reads them only if their number has changed, or after a while."""
        with self._publisher.connection(deadline) as (connection, _):
            with scratch(connection, deadline) as channel:
                count = self._count(channel, parked_of(queue), deadline)
            if not count:
                return []
            known = self._names.get(queue)
            if known is None or known[0] != count or time.monotonic() - known[1] > BELIEVED:
                with self._reading(connection, queue, "parked", deadline) as reading:
                    names = frozenset(label.reason for pushed in reading.messages if (label := label_of(pushed)))
                known = self._names[queue] = (count, time.monotonic(), names)
        return [task for task in tasks if task in known[2]]

    def take_away(self, letters: Sequence[DeadLetter], deadline: float, *, again: bool) -> int:
        """Take *letters* out of their places, each once; *again*: and put them into their queues."""
        wanted: defaultdict[tuple[str, Place], set[str]] = defaultdict(set)
        for letter in letters:
            wanted[letter.queue, letter.place].add(letter.key)
        return sum(self._take_from(queue, place, keys, deadline, again=again) for (queue, place), keys in wanted.items())

    def _take_from(self, queue: str, place: Place, keys: set[str], deadline: float, *, again: bool) -> int:
        with self._publisher.connection(deadline) as (connection, confirming), self._reading(connection, queue, place, deadline) as reading:
            found = [pushed for pushed in reading.messages if key_of(pushed) in keys]
            if again and found:
                self._topology.declare_work(connection, queue, deadline)
                self._publisher.publish([remade(pushed, queue, {}, queue) for pushed in found], confirming, deadline)
            reading.remove(found)
        return len(found)

    def claim(self, intake: Intake, tasks: Sequence[str], limit: int, owners: Owners, seq: int, deadline: float) -> int:
        """Claim parked messages of *tasks*, the oldest of each first; return how many."""
        connection = intake.channel.connection
        with self._claiming, self._reading(connection, intake.queue, "parked", deadline) as reading:
            fitting = sorted((p for p in reading.messages if (label := label_of(p)) and label.reason in tasks), key=key_of)
            chosen, size = [], 0
            for pushed in fitting[:limit]:
                if size > MOST_BYTES:
                    break
                chosen.append(pushed)
                size += len(pushed.body) * 4 // 3
            if not chosen:
                return 0
            lane = reading.keep(chosen)
            with connection.changed:
                for pushed in chosen:
                    fence, received = owners.next_fence(), read(pushed)
                    claim = Claim(lane, pushed.tag, pushed, received, bool(received.suspect), fence, seq)
                    intake.claims[str(fence)] = claim
        return len(chosen)

    @contextmanager
    def _reading(self, connection: Connection, queue: str, place: Place, deadline: float) -> Iterator[Reading]:
        """Read all of a place, as the only reader."""
        name = dead_of(queue) if place == "dead" else parked_of(queue)
        with alone(connection, name, deadline), scratch(connection, deadline) as channel:
            count = self._count(channel, name, deadline)
            reading = Reading(connection.channel(deadline), name, count)
            try:
                reading.read(deadline)
                yield reading
            finally:
                reading.put_back(deadline)


MOST_BYTES = 8_000_000  # of parked messages in one claim


class Reading:
    """All messages of one queue, taken out and not acknowledged."""

    def __init__(self, channel: Channel, queue: str, count: int) -> None:
        self.lane = Lane(channel)
        self.messages: list[Pushed] = []
        self._queue, self._count = queue, count
        self._removed = 0
        self._consumers: list[str] = []
        self._kept: set[int] = set()  # tags that are claims now
        channel.on_pushed = self._pushed

    def _pushed(self, pushed: Pushed) -> None:
        self.lane.open[pushed.tag] = pushed.consumer
        self.messages.append(pushed)

    def read(self, deadline: float) -> None:
        """Read as many as there were."""
        channel = self.lane.channel
        while len(self.messages) < self._count:
            self._consumers.append(f"umbel-reader-{len(self._consumers)}")
            channel.do(channel.consume(self._queue, self._consumers[-1], min(LONGEST, self._count)))
            enough = min(self._count, len(self._consumers) * LONGEST)
            channel.connection.wait(partial(self._has, enough), deadline, f"reading {self._queue!r}", messages=True)
            if channel.closed:
                raise channel.refusal()
        channel.do([channel.cancel(consumer) for consumer in self._consumers])

    def _has(self, count: int) -> bool:
        return len(self.messages) >= count or self.lane.channel.closed is not None

    def remove(self, messages: Sequence[Pushed]) -> None:
        """Acknowledge *messages*."""
        self._removed += len(messages)
        self.lane.send(lambda: self.lane.acks(pushed.tag for pushed in messages))

    def keep(self, messages: Sequence[Pushed]) -> Lane:
        """Leave the channel open, with *messages*: they are claims now."""
        self._removed += len(messages)
        self._kept = {pushed.tag for pushed in messages}
        return self.lane

    def put_back(self, deadline: float) -> None:
        """Give back what is neither removed nor kept, and wait until it is there: the next reader counts it."""
        channel, lane = self.lane.channel, self.lane
        if channel.closed is None and lane.open:
            lane.send(lambda: lane.nacks([tag for tag in lane.open if tag not in self._kept]))
        expected = len(self.messages) - self._removed
        while expected and channel.closed is None and count_of(channel, self._queue, deadline) < expected:
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"RabbitMQ did not put {expected} messages back into {self._queue!r} in time.", maybe_sent=True)
            time.sleep(LOOK_AGAIN)
        if not self._kept:
            channel.close()


class Scratch:
    """A channel for questions that may be refused: each refusal closes it, and the next question opens another."""

    def __init__(self, connection: Connection, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline
        self._channel: Channel | None = None

    def ask(self, question: Callable[[Channel], int], otherwise: int) -> int:
        """Return the answer; *otherwise* if what was asked for does not exist."""
        channel = self._channel = self._channel or self._connection.channel(self._deadline)
        try:
            return question(channel)
        except ChannelClosed as exc:
            channel.close()
            self._channel = None
            if exc.code != NOT_FOUND:
                raise BrokerUnavailable(f"RabbitMQ refused: {exc}.", refused=True) from exc
            return otherwise

    def close(self) -> None:
        """Close it."""
        if self._channel is not None:
            self._channel.close()


@contextmanager
def scratch(connection: Connection, deadline: float) -> Iterator[Scratch]:
    """Lend a channel for questions."""
    made = Scratch(connection, deadline)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def alone(connection: Connection, name: str, deadline: float) -> Iterator[None]:
    """Be the only reader of a queue: a queue that only this connection may have stands for the right to."""
    lock = f"{name}.reader"
    while True:
        channel = connection.channel(deadline)
        try:
            channel.ask(lambda c, done: c.queue_declare(lock, exclusive=True, auto_delete=True, callback=done), deadline)
            break
        except ChannelClosed as exc:
            channel.close()
            if exc.code != LOCKED:
                raise BrokerUnavailable(f"RabbitMQ refused the lock {lock!r}: {exc}.", refused=True) from exc
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"Somebody else reads {name!r}, and has not finished in time. Try again.")
        time.sleep(LOOK_AGAIN)
    try:
        yield
    finally:
        if channel.closed is None:
            channel.ask(lambda c, done: c.queue_delete(lock, callback=done), max(deadline, time.monotonic() + 1.0))
            channel.close()


def label_of(pushed: Pushed) -> Label | None:
    """Read what is written on a letter; None: somebody else put it there."""
    try:
        written = (pushed.properties.headers or {}).get(LETTER)
        return _read_label(written) if isinstance(written, str) else None
    except ValueError:
        return None


def key_of(pushed: Pushed) -> str:
    """Return the key of a letter."""
    label = label_of(pushed)
    return label.key if label else f"{0:017.6f}-{sha256(pushed.body).hexdigest()}"


def letter_id(pushed: Pushed) -> str:
    """Return the task id of a letter."""
    label = label_of(pushed)
    return label.id if label else read(pushed).id


def opened(pushed: Pushed, queue: str, place: Place) -> DeadLetter:
    """Make a letter of what was read."""
    label = label_of(pushed) or Label(key=key_of(pushed), at=0.0, id=read(pushed).id or uuid(), reason="put there by somebody else")
    return DeadLetter(
        queue=queue, place=place, key=label.key, id=label.id, raw=read(pushed).raw, reason=label.reason, evidence=label.evidence,
        at=label.at,
    )  # fmt: skip


def cleaned(evidence: Evidence) -> Evidence:
    """Return *evidence* with texts that JSON can hold."""
    texts: dict[str, Any] = {name: plain(value) for name, value in msgspec.structs.asdict(evidence).items() if isinstance(value, str)}
    return msgspec.structs.replace(evidence, **texts)
