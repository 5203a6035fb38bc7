"""What one owner gets of one queue: consumers that fetch ahead as much as was asked for, a buffer, and the claims."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from umbel.drivers.amqp.channel import Act, Channel, Pushed
from umbel.drivers.amqp.message import Received

__all__ = ["Claim", "Intake", "Lane"]

MOST_CONSUMERS = 8  # of one queue: more asked for only little by little; then one takes the place of those that are full
LONGEST_HERE = 0.08  # seconds that a message may lie in a buffer that nobody empties; then it goes back, so that others may start it
LONGEST_FLOWING = 1.0  # seconds that it may lie in one that is being emptied, or whose claims come to an end
STILL = 0.05  # seconds without a new message after which none is taken to be on its way
LONGEST = 65535  # messages that one consumer may have unacknowledged


class Lane:
    """A channel on which messages were pushed, and those of them that are not acknowledged, in their order.

    All fields change under the connection's lock.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.open: dict[int, str] = {}  # delivery tag -> consumer

    def send(self, acts: Callable[[], list[Act]]) -> None:
        """Do what *acts*, asked under the connection's lock, returns.

        Invariant: what is noted here as given back or acknowledged is sent in that order, or an acknowledgement of all up to a
        tag might reach the server before the one that gives an earlier tag back.
        """
        with self.channel.connection.changed:
            if self.channel.closed is not None:
                raise self.channel.refusal()
            self.channel.do(acts())

    def barrier(self, deadline: float) -> None:
        """Return when the server has taken all that was sent on the channel."""
        self.channel.barrier(deadline)

    def acks(self, tags: Iterable[int]) -> list[Act]:
        """Return the acts that acknowledge *tags*; those at the head of all that is open by one."""
        done = set(tags)
        last = 0
        for tag in self.open:
            if tag not in done:
                break
            last = tag
        acts = [ack(last, multiple=True)] if last else []
        acts += [ack(tag, multiple=False) for tag in sorted(done) if tag > last]
        for tag in done:
            self.settled(tag)
        return acts

    def nacks(self, tags: Iterable[int]) -> list[Act]:
        """Return the acts that give *tags* back, in their order."""
        ordered = sorted(tags)
        for tag in ordered:
            self.settled(tag)
        return [nack(tag) for tag in ordered]

    def settled(self, tag: int) -> None:
        """Forget a tag."""
        self.open.pop(tag, None)


@dataclass(slots=True)
class Flow:
    """One consumer."""

    prefetch: int
    open: int = 0  # messages it has pushed that are not acknowledged


class Claim(NamedTuple):
    """One message that was handed to its owner."""

    lane: Lane
    tag: int
    pushed: Pushed
    received: Received
    suspect: bool
    fence: int
    seq: int


class Intake(Lane):
    """The lane of an owner's consumers of one queue.

    How much is asked for in advance is what the last fetch wanted, beside what is held: what cannot start here soon is left to others.
    It grows by one more consumer, as the prefetch of one cannot be changed; when something was given back, all are cancelled and the next
    wish begins anew.

    Invariant: while messages flow only a consumer that is full is cancelled. What is on its way to another one is given back by the server
    itself, comes again as if a node had died, and is then run by itself, as a suspect.
    """

    _tags = itertools.count(1)

    def __init__(self, channel: Channel, queue: str) -> None:
        super().__init__(channel)
        self.queue = queue
        self.buffer: deque[Pushed] = deque()
        self.claims: dict[str, Claim] = {}
        self.flows: dict[str, Flow] = {}
        self.cancelled: str | None = None  # the server ended a consumer
        self.started: Lane | None = None  # where copies of started suspects come
        self.copies: dict[str, Pushed] = {}
        self.seq = 0
        self.moved_at = 0.0  # when something was claimed or settled
        self.fetching = threading.Lock()
        channel.on_pushed, channel.on_cancelled = self._pushed, self._cancelled

    def _pushed(self, pushed: Pushed) -> None:
        self.open[pushed.tag] = pushed.consumer
        if (flow := self.flows.get(pushed.consumer)) is not None:
            flow.open += 1
        self.buffer.append(pushed)

    def _cancelled(self, consumer: str) -> None:
        self.flows.pop(consumer, None)
        self.cancelled = consumer

    def settled(self, tag: int) -> None:
        consumer = self.open.pop(tag, "")
        if (flow := self.flows.get(consumer)) is not None:
            flow.open -= 1

    @property
    def coming(self) -> int:
        """How many there are here, or may come without being asked for."""
        return len(self.buffer) + sum(flow.prefetch - flow.open for flow in self.flows.values())

    def want(self, count: int) -> list[Act]:
        """Return the acts that ask for *count* messages, those of the buffer among them."""
        coming = self.coming
        if coming >= count:  # who wants little now may want more in a moment; what lies here for too long goes back
            return self._cancel(self._full()[:1]) if len(self.buffer) > count else []
        acts = self._cancel(self._full()) if len(self.flows) >= MOST_CONSUMERS else []
        return acts + self._consume(count - coming) if len(self.flows) < MOST_CONSUMERS else []

    def _full(self) -> list[str]:
        """Return the consumers to which nothing can be on its way."""
        return [consumer for consumer, flow in self.flows.items() if flow.open >= flow.prefetch]

    def _consume(self, prefetch: int) -> list[Act]:
        prefetch = min(prefetch, LONGEST)
        if prefetch <= 0:
            return []
        tag = f"umbel-{next(self._tags)}"
        self.flows[tag] = Flow(prefetch)
        return self.channel.consume(self.queue, tag, prefetch)

    def _cancel(self, consumers: Sequence[str]) -> list[Act]:
        for consumer in consumers:
            del self.flows[consumer]
        return [self.channel.cancel(consumer) for consumer in consumers]

    def give_back(self, tags: Iterable[int]) -> list[Act]:
        """Return the acts that end all consumers and give back *tags* and the buffer, in the order in which they came."""
        acts = self._cancel(list(self.flows))
        buffered = [pushed.tag for pushed in self.buffer]
        self.buffer.clear()
        return acts + self.nacks([*tags, *buffered])

    def give_all_back(self) -> list[Act]:
        """Return the acts that end all consumers and give back everything that was pushed, in its order."""
        self.buffer.clear()
        return self.give_back(list(self.open))

    def lanes(self) -> set[Lane]:
        """Return this one and those on which other claims of it came."""
        return {self, *(claim.lane for claim in self.claims.values())}

    def late(self, now: float) -> bool:
        """Answer whether something lies here for too long: for longer while what is here is being fetched, as giving back has its price.

        Called under the connection's lock.
        """
        if not self.buffer or self.fetching.locked():
            return False
        if now - self.buffer[-1].at < STILL and len(self._full()) < len(self.flows):
            return False
        waits = now - self.buffer[0].at
        return waits > LONGEST_FLOWING or (waits > LONGEST_HERE and now - self.moved_at > LONGEST_HERE)

    def held(self, seq: int) -> Sequence[Claim]:
        """Return what the fetch *seq* claimed and is still held."""
        return [claim for claim in self.claims.values() if claim.seq == seq]


def ack(tag: int, *, multiple: bool) -> Act:
    """Return the act that acknowledges."""
    return lambda channel: channel.basic_ack(tag, multiple)


def nack(tag: int) -> Act:
    """Return the act that gives back."""
    return lambda channel: channel.basic_nack(tag, requeue=True)
