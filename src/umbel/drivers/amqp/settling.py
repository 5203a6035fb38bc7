"""What becomes of messages: published, settled, put off, given back. First all that must exist is confirmed, then the old is removed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from umbel.broker import Delivery, Item, OwnerLost, Settlement, Verb
from umbel.drivers.amqp.channel import ChannelClosed, Pushed
from umbel.drivers.amqp.intake import LONGEST, Claim, Intake, Lane
from umbel.drivers.amqp.letters import Letters
from umbel.drivers.amqp.message import Received, Sent, marks_of, remade, sent
from umbel.drivers.amqp.owners import Owners
from umbel.drivers.amqp.publisher import Publisher, Unroutable
from umbel.drivers.amqp.topology import Topology, delayed, started_of
from umbel.exceptions import BrokerUnavailable

__all__ = ["Settling"]

START = "umbel_start"  # the header by which a started copy is known when it comes


class Held(NamedTuple):
    """One settlement and the claim that it is about."""

    settlement: Settlement
    intake: Intake
    claim: Claim


class Settling:
    """Moves messages."""

    def __init__(self, owners: Owners, publisher: Publisher, topology: Topology, letters: Letters) -> None:
        self._owners, self._publisher, self._topology, self._letters = owners, publisher, topology, letters

    # In

    def publish(self, items: Sequence[Item], deadline: float) -> None:
        """Publish *items*, in order."""
        now = time.time()
        self.send([self._sent(item, now) for item in items], deadline)

    def _sent(self, item: Item, now: float) -> Sent:
        if item.due is None or item.due <= now:
            return sent(item.raw, item.queue, {})
        return put_off(sent(item.raw, item.queue, marks_of(due=item.due)), item.due - now)

    def send(self, batch: Sequence[Sent], deadline: float) -> None:
        """Declare what *batch* needs, and publish it."""
        if not batch:
            return
        topology = self._topology
        with self._publisher.connection(deadline) as (connection, channel):
            for each in batch:
                topology.declare_work(connection, each.queue, deadline)
                if each.exchange:
                    topology.declare_delays(connection, each.queue, deadline)
                elif each.routing_key != each.queue:
                    topology.declare_place(connection, each.routing_key, deadline)
            try:
                self._publisher.publish(batch, channel, deadline)
            except Unroutable:
                topology.forget()
                raise

    # Claims end

    def settle(self, settlements: Sequence[Settlement], deadline: float) -> tuple[list[bool], set[Lane]]:
        """Carry out *settlements*; what failed is claimed as before, if its connection is still there.

        Return which were held, and the lanes on which this is on its way: the server has all after `confirm`.
        """
        held = [self._take(settlement) for settlement in settlements]
        found = [each for each in held if each is not None]
        try:
            self.send([copy for each in found if (copy := self._copy(each)) is not None], deadline)
        except BaseException:
            for each in found:
                with each.intake.channel.connection.changed:
                    each.intake.claims[each.settlement.delivery.tag] = each.claim
            raise
        return [each is not None for each in held], self._remove(found)

    def _take(self, settlement: Settlement) -> Held | None:
        """Take the claim out, so that nobody else settles it; None: it is not held."""
        delivery = settlement.delivery
        try:
            intake = self._owners.find(delivery.owner, delivery.queue)
        except OwnerLost:
            return None
        with intake.channel.connection.changed:
            claim, intake.moved_at = intake.claims.pop(delivery.tag, None), time.monotonic()
        return None if claim is None else Held(settlement, intake, claim)

    def _copy(self, held: Held) -> Sent | None:
        """Return what is to be published before the claim ends."""
        settlement, claim, queue = held.settlement, held.claim, held.intake.queue
        now = time.time()
        match settlement.verb:
            case Verb.ACK:
                return None
            case Verb.RETRY:
                assert settlement.replacement is not None, "a retry needs its replacement"
                return self._sent(settlement.replacement, now)
            case Verb.GIVE_BACK:
                if stays(held):
                    return None
                return remade(claim.pushed, queue, marks_of(attempts=settlement.attempts, suspect=settlement.suspect), queue)
            case Verb.DELAY:
                due = settlement.due if settlement.due is not None and settlement.due > now else None
                marks = marks_of(attempts=claim.received.attempts, suspect=claim.suspect, due=due)
                copy = sent(settlement.raw, queue, marks) if settlement.raw is not None else remade(claim.pushed, queue, marks, queue)
                return copy if due is None else put_off(copy, due - now)
            case Verb.BURY | Verb.PARK:
                return self._letters.letter(claim, queue, settlement)

    def _remove(self, found: Sequence[Held]) -> set[Lane]:
        """Acknowledge or give back, lane by lane."""
        gone: defaultdict[Lane, list[int]] = defaultdict(list)
        back: defaultdict[Intake, list[int]] = defaultdict(list)
        for each in found:
            if stays(each):
                back[each.intake].append(each.claim.tag)
                if not each.claim.suspect:
                    self._owners.remember(each.intake.queue, each.claim.pushed, each.claim.received)
            else:
                gone[each.claim.lane].append(each.claim.tag)
        try:
            for lane, tags in gone.items():
                lane.send(lambda lane=lane, tags=tags: lane.acks(tags))  # type: ignore[misc]
            for intake, tags in back.items():
                intake.send(lambda intake=intake, tags=tags: self._owners.give_back(intake, tags))  # type: ignore[misc]
        except ChannelClosed as exc:
            raise closed(exc) from exc
        return {*gone, *back}

    def confirm(self, lanes: Iterable[Lane], deadline: float) -> None:
        """Return when the server has what was sent on *lanes*."""
        try:
            for lane in lanes:
                lane.barrier(deadline)
        except ChannelClosed as exc:
            raise closed(exc) from exc

    def put_off(self, intake: Intake, early: Sequence[tuple[Pushed, Received]], deadline: float) -> None:
        """Send round again what came before it is due; what cannot be sent lies in the buffer as before."""
        batch = []
        for pushed, received in early:
            assert received.due is not None
            marks = marks_of(attempts=received.attempts, suspect=received.suspect, due=received.due)
            batch.append(put_off(remade(pushed, intake.queue, marks, intake.queue), received.due - time.time()))
        try:
            self.send(batch, deadline)
        except BaseException:
            with intake.channel.connection.changed:
                intake.buffer.extendleft(pushed for pushed, _ in reversed(early))
            raise
        intake.send(lambda: intake.acks(pushed.tag for pushed, _ in early))

    def leave(self, intake: Intake, deadline: float) -> None:
        """Give back all that *intake* has, in its order, and close its channels."""
        lanes = intake.lanes()
        with intake.channel.connection.changed:
            claims, intake.claims = list(intake.claims.values()), {}
        for claim in claims:
            if claim.lane is intake and not claim.suspect:
                self._owners.remember(intake.queue, claim.pushed, claim.received)
        for pushed in list(intake.buffer):
            self._owners.remember(intake.queue, pushed)
        started = [claim for claim in claims if claim.lane is intake.started]
        try:
            self.send(
                [remade(c.pushed, intake.queue, marks_of(attempts=c.received.attempts, suspect=True), intake.queue) for c in started],
                deadline,
            )
            for lane in lanes:
                tags = [claim.tag for claim in claims if claim.lane is lane]
                if lane is intake:
                    intake.send(intake.give_all_back)
                elif lane is intake.started:
                    lane.send(lambda lane=lane, tags=tags: lane.acks(tags))  # type: ignore[misc]
                else:
                    lane.send(lambda lane=lane, tags=tags: lane.nacks(tags))  # type: ignore[misc]
                lane.barrier(deadline)
        except ChannelClosed:
            pass  # all has gone back with the channel
        for lane in lanes:
            lane.channel.close()

    # Starts that must be remembered if this process dies

    def mark_started(self, delivery: Delivery, deadline: float) -> bool:
        """Put a copy that counts one attempt more where only we take it from, and which is given back to the queue when we die."""
        try:
            intake = self._owners.find(delivery.owner, delivery.queue)
        except OwnerLost:
            return False
        claim = intake.claims.get(delivery.tag)
        if claim is None or claim.lane is intake.started:
            return claim is not None
        place = started_of(delivery.queue, delivery.owner)
        lane = intake.started or self._open_started(intake, place, deadline)
        copy = remade(claim.pushed, delivery.queue, {**marks_of(attempts=claim.received.attempts + 1), START: delivery.tag}, place)
        with self._publisher.connection(deadline) as (_, channel):
            self._publisher.publish([copy], channel, deadline)
        lane.channel.connection.wait(
            lambda: delivery.tag in intake.copies or lane.channel.closed, deadline, "a suspect to come", messages=True
        )
        with lane.channel.connection.changed:
            pushed = intake.copies.pop(delivery.tag, None)
            if pushed is None or intake.claims.get(delivery.tag) is not claim:
                return False
            intake.claims[delivery.tag] = claim._replace(lane=lane, tag=pushed.tag)
        try:
            claim.lane.send(lambda: claim.lane.acks([claim.tag]))
            claim.lane.barrier(deadline)
        except ChannelClosed as exc:
            raise closed(exc) from exc
        return True

    def _open_started(self, intake: Intake, place: str, deadline: float) -> Lane:
        with self._publisher.connection(deadline) as (connection, _):
            self._topology.declare_started(connection, place, intake.queue, deadline)
        channel = intake.channel.connection.channel(deadline)
        lane = intake.started = Lane(channel)

        def pushed(came: Pushed) -> None:
            lane.open[came.tag] = came.consumer
            intake.copies[str((came.properties.headers or {}).get(START))] = came

        channel.on_pushed = pushed
        channel.do(channel.consume(place, "umbel-started", LONGEST))
        return lane


def closed(exc: ChannelClosed) -> BrokerUnavailable:
    """Return the error of what was to be done with claims."""
    return BrokerUnavailable(f"RabbitMQ closed the channel of these claims: {exc}.", maybe_sent=True)


def put_off(message: Sent, seconds: float) -> Sent:
    """Send *message* by way of the delays."""
    exchange, routing_key = delayed(message.queue, seconds)
    return Sent(exchange, routing_key, message.properties, message.body, message.queue)


def stays(held: Held) -> bool:
    """Answer whether it goes back as it is: then it goes to the head of its queue."""
    settlement, claim = held.settlement, held.claim
    return (
        settlement.verb is Verb.GIVE_BACK and claim.lane is held.intake
        and settlement.attempts == claim.received.attempts and settlement.suspect == claim.suspect
    )  # fmt: skip
