# ruff: noqa: ARG002 - not every driver needs every argument
"""The broker on RabbitMQ. What moves is copied, confirmed and removed, as the engine has no step that does all of it."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from umbel.broker import (
    Broker,
    BrokerFeatures,
    DeadLetter,
    Delivery,
    Item,
    OwnerLost,
    QueueDepth,
    Recovered,
    Revocations,
    Settlement,
    Tally,
)
from umbel.drivers.acceptance import refuse_odd_times, refuse_once, refuse_using
from umbel.drivers.amqp.channel import ChannelClosed, Pushed
from umbel.drivers.amqp.intake import Claim, Intake, Lane
from umbel.drivers.amqp.letters import Letters
from umbel.drivers.amqp.message import Received, delivery_of, read
from umbel.drivers.amqp.nodes import Nodes, nodes_of
from umbel.drivers.amqp.owners import Owners
from umbel.drivers.amqp.publisher import Publisher
from umbel.drivers.amqp.settling import Settling
from umbel.drivers.amqp.topology import Topology, count_of
from umbel.exceptions import ImproperlyConfigured, OperationalError
from umbel.forks import process
from umbel.state import State

__all__ = ["AmqpBroker"]

logger = logging.getLogger("celery.worker")
UNCOUNTED = 10.0  # seconds after a count failed: a store that is away must not hold up what is settled
SETTING_UP = 15.0  # seconds for a worker's first declarations: the 28 queues of delays are made once in a virtual host
MOST_BYTES = 8_000_000  # of messages after which a claim ends, with at least one


class Parts:
    """All that holds a socket or a lock, of one process."""

    def __init__(self, nodes: Nodes, options: Mapping[str, Any]) -> None:
        where = f"{socket.gethostname()}:{os.getpid()}"
        self.pid = process.pid
        self.topology = Topology(options.get("queue_arguments") or {})
        self.publisher = Publisher(nodes, f"umbel publisher {where}")
        self.owners = Owners(nodes, f"umbel worker {where}")
        self.letters = Letters(self.publisher, self.topology)
        self.settling = Settling(self.owners, self.publisher, self.topology, self.letters)

    def close(self) -> None:
        """Close all connections."""
        self.owners.close()
        self.publisher.close()

    def abandon(self) -> None:
        """Close our ends of the parent's connections."""
        self.owners.abandon()
        self.publisher.abandon()


class AmqpBroker(Broker):
    """Messages in the queues of a virtual host. A claim is a message that was pushed to a connection and is not acknowledged."""

    features: ClassVar[BrokerFeatures] = BrokerFeatures(
        once=False, leases=False, priorities=False, verbatim=False, sees_delayed=False, due_step=1.0, gives_back_to_head=False
    )

    def __init__(
        self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, state: State | None = None,
        patience: float = 0.0,
    ) -> None:  # fmt: skip
        """*state*: what keeps revokes and counts. *patience*: seconds in which `fetch` waits for what is on its way here, for tests."""
        self._options, self._timeout, self._patience = dict(options or {}), timeout, patience
        self._nodes = nodes_of(url, self._options)
        self._state, self._mark, self._count_again = state, 0, 0.0
        self._made: Parts | None = None
        self._pid, self._making = process.pid, threading.Lock()
        self.longest_lease = self._nodes.heartbeat

    @property
    def _parts(self) -> Parts:
        made = self._made
        if made is not None and made.pid == process.pid:
            return made
        if self._pid != process.pid:  # a thread that held the lock does not exist in this process
            self._pid, self._making = process.pid, threading.Lock()
        with self._making:
            made = self._made
            if made is None or made.pid != process.pid:
                if made is not None:
                    made.abandon()
                made = self._made = Parts(self._nodes, self._options)
            return made

    def _deadline(self, timeout: float | None = None) -> float:
        return time.monotonic() + (self._timeout if timeout is None else timeout)

    def open(self) -> None:
        with self._parts.publisher.connection(self._deadline()):
            pass

    def close(self) -> None:
        made, self._made = self._made, None
        if self._state is not None:
            self._state.close()
        if made is None:
            return
        if made.pid == process.pid:
            made.close()
        else:
            made.abandon()

    # Messages go in

    def publish(self, items: Sequence[Item], *, timeout: float | None = None, using: object = None) -> None:
        refuse_using(using, "amqp")
        refuse_odd_times(items)
        refuse_once(items, "amqp")
        self._parts.settling.publish(items, self._deadline(timeout))

    # Owners

    def join(self, owner: str, queues: Sequence[str], *, lease: float) -> None:
        parts, deadline = self._parts, self._deadline(SETTING_UP)
        parts.topology.forget()  # a queue may have been deleted since, which is why this owner joins anew
        with parts.publisher.connection(deadline) as (connection, _):
            for queue in queues:
                parts.topology.declare_work(connection, queue, deadline)
        parts.owners.add(owner, queues, self._deadline())

    def renew(self, owner: str, queues: Sequence[str], *, lease: float) -> bool:
        return self._parts.owners.ask(owner, queues, self._deadline())

    def leave(self, owner: str, queues: Sequence[str]) -> None:
        parts = self._parts
        for queue in queues:
            if (intake := parts.owners.take_out(owner, queue)) is not None:
                parts.settling.leave(intake, self._deadline())

    # Claims

    def fetch(
        self, queue: str, limit: int, *, owner: str, seq: int, settle: Sequence[Settlement] = (), parked: Sequence[str] = ()
    ) -> list[Delivery]:
        parts, deadline = self._parts, self._deadline()
        intake = parts.owners.find(owner, queue)
        with intake.fetching:
            if seq > intake.seq:
                on_their_way = self._settle(settle, deadline)[1]
                known = parts.letters.claim(intake, parked, limit, parts.owners, seq, deadline) if parked and limit else 0
                self._claim(intake, limit - known, seq, deadline)
                intake.seq, intake.moved_at = seq, time.monotonic()
                parts.settling.confirm(on_their_way, deadline)  # last: what was claimed lay here all the time
            with intake.channel.connection.changed:
                held = intake.held(seq)
        parts.owners.find(owner, queue)  # what came over a connection that broke meanwhile is others'
        if held and self._state is not None:
            # Invariant: the mark is read after the claim; what was revoked before the claim is then never overlooked.
            self._mark = self._state.revoked_since(self._mark).mark
        return [
            delivery_of(
                claim.received, queue=queue, tag=str(claim.fence), owner=owner, fence=claim.fence, suspect=claim.suspect,
                revocations=self._mark,
            )
            for claim in held
        ]  # fmt: skip

    def _claim(self, intake: Intake, count: int, seq: int, deadline: float) -> None:
        """Hand over up to *count* of what lies in the buffer, and see to it that as many come."""
        parts = self._parts
        if count <= 0:
            return
        connection = intake.channel.connection
        try:
            intake.send(lambda: intake.want(count))
        except ChannelClosed as exc:
            raise OwnerLost(str(exc)) from exc
        if self._patience:
            self._await(intake, count, deadline)
        early: list[tuple[Pushed, Received]] = []
        taken = size = 0
        while taken < count and size < MOST_BYTES:
            with connection.changed:
                if not intake.buffer:
                    break
                pushed = intake.buffer.popleft()
            message = read(pushed)
            if message.due is not None and message.due > time.time():
                early.append((pushed, message))
                continue
            taken, size = taken + 1, size + len(message.raw)
            suspect = self._is_suspect(pushed.redelivered, message, intake.queue)
            fence = parts.owners.next_fence()
            with connection.changed:
                intake.claims[f"{fence}"] = Claim(intake, pushed.tag, pushed, message, suspect, fence, seq)
        if early:
            parts.settling.put_off(intake, early, deadline)

    def _await(self, intake: Intake, count: int, deadline: float) -> None:
        """Wait until *count* messages lie here, or the server has no more of them."""
        connection, more = intake.channel.connection, True
        while more and time.monotonic() < deadline:
            with connection.changed:
                connection.arrived.wait_for(lambda: len(intake.buffer) >= count or intake.channel.closed, self._patience)
                missing = len(intake.buffer) < count and not intake.channel.closed
            more = missing and count_of(intake.channel, intake.queue, deadline) > 0

    def _is_suspect(self, redelivered: bool, message: Received, queue: str) -> bool:
        """Answer whether it may have started elsewhere before: that node left no word."""
        return bool(message.suspect) or (redelivered and not self._parts.owners.is_clean(queue, message))

    def wait(self, owner: str, queues: Sequence[str], timeout: float) -> None:
        self._parts.owners.wait(owner, queues, timeout)

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        deadline = self._deadline()
        done, lanes = self._settle(settlements, deadline)
        self._parts.settling.confirm(lanes, deadline)
        return done

    def _settle(self, settlements: Sequence[Settlement], deadline: float) -> tuple[list[bool], set[Lane]]:
        if not settlements:
            return [], set()
        done, lanes = self._parts.settling.settle(settlements, deadline)
        if self._state is not None and time.monotonic() >= self._count_again:
            self._count(self._state, [each for each, held in zip(settlements, done, strict=True) if held and each.tally])
        return done, lanes

    def _count(self, state: State, done: Sequence[Settlement]) -> None:
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for each in done:
            counts[each.delivery.queue][each.tally] += 1
        try:
            for queue, tallies in counts.items():
                state.count(queue, tallies)
        except OperationalError as exc:
            logger.warning("What was done is not counted for %g s: %s", UNCOUNTED, exc)
            self._count_again = time.monotonic() + UNCOUNTED

    def recover(self, queue: str, *, owner: str, limit: int) -> Recovered:
        self._parts.owners.find(owner, queue)
        return Recovered(deliveries=(), more=False)  # RabbitMQ gives back what a connection held when it ends

    def mark_started(self, delivery: Delivery) -> bool:
        return self._parts.settling.mark_started(delivery, self._deadline())

    def promote(self, queue: str, *, limit: int = 1000) -> float | None:
        return None  # RabbitMQ moves what is due

    # What is kept elsewhere

    def tallies(self, queue: str, *, since: float) -> list[Tally]:
        return self._kept("Counters").tallies(queue, since=since)

    def revoke(self, ids: Sequence[str], *, ttl: float, signal: str = "") -> None:
        self._kept("Revoked tasks").revoke(ids, ttl=ttl, signal=signal)

    def revoked_since(self, mark: int) -> Revocations:
        return Revocations(mark=0, entries=()) if self._state is None else self._state.revoked_since(mark)

    def migrate(self) -> Sequence[str] | None:
        return None if self._state is None else self._state.migrate()

    def migration_sql(self) -> str:
        return "" if self._state is None else self._state.migration_sql()

    def _kept(self, what: str) -> State:
        if self._state is None:
            raise ImproperlyConfigured(
                f"{what} cannot be kept in RabbitMQ. Set umbel_state_url (CELERY_UMBEL_STATE_URL in Django's settings) to a store that "
                "all workers and clients reach, such as redis://localhost:6379/0."
            )
        return self._state

    # What there is

    def depth(self, queues: Sequence[str]) -> dict[str, QueueDepth]:
        parts, deadline = self._parts, self._deadline()
        counts = parts.letters.counts(queues, deadline)
        return {
            queue: QueueDepth(ready=ready + parts.owners.buffered(queue), delayed=None, claimed=None, parked=parked, dead=dead)
            for queue, (ready, parked, dead) in counts.items()
        }

    def purge(self, queue: str) -> int:
        parts, deadline = self._parts, self._deadline()
        for intake in parts.owners.all_of(queue):
            parts.owners.empty(intake)
        return parts.letters.purge(queue, deadline)

    def dead(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        return self._parts.letters.page(queue, "dead", limit, after, id, self._deadline())

    def parked(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        return self._parts.letters.page(queue, "parked", limit, after, id, self._deadline())

    def parked_for(self, queue: str, tasks: Sequence[str]) -> list[str]:
        return self._parts.letters.parked_for(queue, tasks, self._deadline()) if tasks else []

    def requeue(self, letters: Sequence[DeadLetter]) -> int:
        return self._parts.letters.take_away(letters, self._deadline(), again=True)

    def discard(self, letters: Sequence[DeadLetter]) -> int:
        return self._parts.letters.take_away(letters, self._deadline(), again=False)
