"""A broker beside a simple reference: hypothesis looks for a row of calls after which they differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.simulation.drivers import LEASE

from umbel.broker import TALLIES_KEPT, Delivery, Item, OwnerLost, Settlement, Verb
from umbel.testing.conformance.base import item
from umbel.wire.message import glance

PRIORITIES = st.sampled_from([0, 3, 6, 9])
TASKS = ["tests.one", "tests.two"]
TALLIES = ["", "done", "not done"]
FAR = 5e5  # seconds from now until a delayed message is due
PICK = st.integers(0, 10**6)  # which of those that there are


@dataclass
class Known:
    """What the reference knows of a message."""

    place: str  # ready, delayed, claimed, parked, dead, gone
    priority: int
    attempts: int = 0
    suspect: bool = False
    started: bool = False
    claim: tuple[str, str] = ("", "")  # owner and tag
    recovered: bool = False  # claimed by a recovery: whether it is a suspect is open
    task: str = ""  # it was parked for


@dataclass
class Member:
    """An owner in the table."""

    seq: int = 0
    lapsed: bool = False
    reaped: bool = False


class BrokerMachine(RuleBasedStateMachine):
    """Calls of the broker's interface, in any order."""

    def __init__(self, driver: Any) -> None:
        super().__init__()
        self.driver, self.queue = driver, driver.queue
        self.broker = driver.make()
        self.known: dict[str, Known] = {}
        self.keys: set[str] = set()  # of messages that are stored once
        self.members: dict[str, Member] = {}
        self.seen: list[tuple[str, Delivery]] = []  # every claim that there was, with its task key
        self.numbers = iter(range(10**9))
        self.counts: Counter[str] = Counter()
        self.begun = driver.now()

    # The reference

    def ids(self, place: str) -> set[str]:
        return {key for key, known in self.known.items() if known.place == place}

    def living(self) -> list[str]:
        return [name for name, member in self.members.items() if not member.lapsed]

    def holders(self) -> list[str]:
        return [name for name, member in self.members.items() if not member.reaped]

    def holds(self, key: str, delivery: Delivery) -> bool:
        known, member = self.known[key], self.members.get(delivery.owner)
        return member is not None and not member.reaped and known.place == "claimed" and known.claim == (delivery.owner, delivery.tag)

    def claim(self, pick: int) -> tuple[str, Delivery]:
        """One of the claims that are held, or, at every fourth pick, of all that there ever were."""
        held = [(key, delivery) for key, delivery in self.seen if self.holds(key, delivery)]
        among = held if held and pick % 4 else self.seen
        return among[pick // 4 % len(among)]

    def new(self, priority: int, due: float | None = None) -> Item:
        key = f"m{next(self.numbers)}"
        self.known[key] = Known("ready" if due is None else "delayed", priority)
        return item(self.queue, key, priority=priority, due=due)

    def claimed(self, delivery: Delivery) -> str:
        key = glance(delivery.raw).id
        self.known[key].place, self.known[key].claim = "claimed", (delivery.owner, delivery.tag)
        self.seen.append((key, delivery))
        return key

    # Producers

    @rule(priorities=st.lists(PRIORITIES, min_size=1, max_size=4), later=st.booleans())
    def publish(self, priorities, later):
        due = self.driver.now() + FAR if later else None
        self.broker.publish([self.new(priority, due) for priority in priorities])

    @precondition(lambda self: self.broker.features.once)
    @rule(keys=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4), priority=PRIORITIES, later=st.booleans())
    def publish_once(self, keys, priority, later):
        """Keys are remembered for longer than all this takes."""
        due, items = self.driver.now() + FAR if later else None, []
        for key in keys:
            new = self.new(priority, due)
            items.append(msgspec.structs.replace(new, once=key, once_for=1e9))
            if key in self.keys:
                self.known[new.id].place = "gone"
            self.keys.add(key)
        self.broker.publish(items)

    @rule()
    def purge(self):
        removed = self.ids("ready") | self.ids("delayed")
        assert self.broker.purge(self.queue) == len(removed)
        for key in removed:
            self.known[key].place = "gone"

    # Owners

    @initialize()
    def first(self):
        self.join()

    @precondition(lambda self: len(self.members) < 3)
    @rule()
    def join(self):
        name = f"w{next(self.numbers)}"
        self.broker.join(name, [self.queue], lease=LEASE)
        self.members[name] = Member()

    @precondition(lambda self: self.members)
    @rule(pick=PICK)
    def renew(self, pick):
        name, member = sorted(self.members.items())[pick % len(self.members)]
        assert self.broker.renew(name, [self.queue], lease=LEASE) is not member.reaped
        member.lapsed = member.reaped

    @precondition(lambda self: self.living())
    @rule(pick=PICK)
    def lapse(self, pick):
        """A worker crashes, or is cut off, or stands still."""
        name = self.living()[pick % len(self.living())]
        self.members[name].lapsed = True
        self.driver.lapse(self.broker, name, self.living())

    @precondition(lambda self: self.members)
    @rule(pick=PICK)
    def leave(self, pick):
        name, member = sorted(self.members.items())[pick % len(self.members)]
        self.broker.leave(name, [self.queue])
        if not member.reaped:
            del self.members[name]
            for known in self.known.values():
                if known.place == "claimed" and known.claim[0] == name:
                    known.place, known.started = "ready", False

    # Claims

    @precondition(lambda self: self.members)
    @rule(pick=PICK, limit=st.integers(0, 5), riding=st.integers(0, 2), repeats=st.integers(0, 2), unpark=st.booleans(), due=st.booleans())
    def fetch(self, pick, limit, riding, repeats, unpark, due):
        name, member = sorted(self.members.items())[pick % len(self.members)]
        rides = [(key, d) for key, d in self.seen if d.owner == name and self.holds(key, d)][:riding]
        call = {"owner": name, "seq": member.seq + 1, "settle": [Settlement(delivery=d, verb=Verb.ACK, tally="ridden") for _, d in rides]}
        call["parked"] = TASKS[:1] if unpark else ()
        if due:
            self.all_become_due()
        if member.reaped:
            self.refused(limit, call)
            return
        found = self.broker.fetch(self.queue, limit, **call)
        for _ in range(repeats):  # the reply was lost
            again = self.broker.fetch(self.queue, limit, **call)
            assert [(d.tag, glance(d.raw).id) for d in again] == [(d.tag, glance(d.raw).id) for d in found]
        self.broker.fetch(self.queue, 9, owner=name, seq=member.seq)  # a late copy of the call before
        member.seq += 1
        self.has_claimed([key for key, _ in rides], found, limit, unpark=unpark, due=due)

    def refused(self, limit, call):
        try:
            self.broker.fetch(self.queue, limit, **call)
        except OwnerLost:
            return
        raise AssertionError("a reaped owner may claim")

    def has_claimed(self, acked, found, limit, *, unpark, due):
        for key in acked:
            self.known[key].place = "gone"
            self.counts["ridden"] += 1
        if due:
            self.promoted()
        parked = {key for key in self.ids("parked") if unpark and self.known[key].task == TASKS[0]}
        ready = self.ids("ready")
        assert len(found) == min(limit, len(parked | ready)), "a fetch gives what there is, up to its limit"
        for delivery in found:
            key = glance(delivery.raw).id
            known = self.known[key]
            assert known.place in {"ready", "parked"}, f"{key} was {known.place}, and is claimed"
            assert delivery.attempts == known.attempts
            assert known.recovered or delivery.suspect == known.suspect
            known.suspect, known.started, known.recovered = delivery.suspect, False, False
            self.claimed(delivery)
        taken = [self.known[glance(d.raw).id].priority for d in found if glance(d.raw).id in ready]
        left = [known.priority for known in self.known.values() if known.place == "ready"]
        assert not taken or not left or max(taken) <= min(left), "what is urgent waits behind what is not"

    @precondition(lambda self: self.seen)
    @rule(pick=PICK)
    def mark_started(self, pick):
        key, delivery = self.claim(pick)
        held = self.holds(key, delivery)
        assert self.broker.mark_started(delivery) is held
        self.known[key].started |= held

    # Settlements: of claims that are held, and of such as were lost or settled long ago

    @precondition(lambda self: self.seen)
    @rule(picks=st.lists(st.tuples(PICK, st.sampled_from(list(Verb))), min_size=1, max_size=4), times=st.integers(1, 2))
    def settle(self, picks, times):
        taken = [(*self.claim(pick), verb) for pick, verb in picks]
        chosen = {(delivery.owner, delivery.tag): (key, delivery, verb) for key, delivery, verb in taken}.values()  # each claim once
        settlements, expected = [], []
        for key, delivery, verb in chosen:
            held = self.holds(key, delivery)
            settlements.append(self.settlement(key, delivery, verb, held=held))
            expected.append(held)
        assert self.broker.settle(settlements) == expected
        if times > 1:  # the reply was lost
            assert self.broker.settle(settlements) == [False] * len(settlements)

    def settlement(self, key, delivery, verb, *, held):
        known = self.known[key]
        fields = {"attempts": delivery.attempts, "suspect": delivery.suspect} if verb is Verb.GIVE_BACK else {}
        fields["tally"] = TALLIES[(len(self.seen) + verb) % len(TALLIES)]
        if verb is Verb.RETRY:
            fields["replacement"] = self.new(known.priority)
            if not held:  # it comes to nothing
                self.known[fields["replacement"].id].place = "gone"
        if verb is Verb.PARK:
            fields["reason"] = TASKS[len(key) % 2]
        if verb is Verb.DELAY:
            fields["due"] = self.driver.now() + FAR
        if held:
            places = {Verb.ACK: "gone", Verb.RETRY: "gone", Verb.GIVE_BACK: "ready", Verb.BURY: "dead", Verb.PARK: "parked"}
            known.place = places.get(verb, "delayed")
            known.task, known.started = fields.get("reason", ""), False
            self.counts[fields["tally"]] += bool(fields["tally"])
        return Settlement(delivery=delivery, verb=verb, **fields)

    # Recovery

    @precondition(lambda self: self.living())
    @rule(pick=PICK, limit=st.integers(1, 3), give_back=st.booleans())
    def recover(self, pick, limit, give_back):
        name = self.living()[pick % len(self.living())]
        done = self.broker.recover(self.queue, owner=name, limit=limit)
        assert len(done.deliveries) <= limit
        lapsed = {other for other, member in self.members.items() if member.lapsed and other != name}
        victims = {self.known[glance(d.raw).id].claim[0] for d in done.deliveries}
        assert len(victims) <= 1
        assert victims <= lapsed, "a claim was taken from an owner whose lease holds"
        for delivery in done.deliveries:
            self.has_recovered(delivery)
        self.has_reaped(name, victims, lapsed)
        if give_back:
            backs = [Settlement(delivery=d, verb=Verb.GIVE_BACK, attempts=d.attempts, suspect=d.suspect) for d in done.deliveries]
            assert self.broker.settle(backs) == [True] * len(backs)
            for delivery in done.deliveries:
                self.known[glance(delivery.raw).id].place = "ready"

    def has_recovered(self, delivery):
        known = self.known[glance(delivery.raw).id]
        known.attempts += known.started
        assert delivery.attempts == known.attempts
        assert known.recovered or delivery.suspect is not known.started
        known.suspect, known.recovered = delivery.suspect, True
        known.started = False
        self.claimed(delivery)

    def has_reaped(self, name, victims, lapsed):
        """Follow the broker, which says by its refusal which owners are gone: those with nothing left, and one in between."""
        for other in lapsed:
            left = any(k.place == "claimed" and k.claim[0] == other for k in self.known.values())
            if other in victims and left:
                self.members[other].reaped = True
            elif not left and not self.broker.renew(other, [self.queue], lease=LEASE):
                del self.members[other]
            elif not left:
                self.members[other].lapsed = False
        assert not lapsed or victims or len(lapsed) > sum(other in self.members and self.members[other].lapsed for other in lapsed)

    # Time

    def all_become_due(self):
        for known in self.known.values():
            if known.place == "delayed":
                known.place = "due"
        self.driver.make_due(self.broker, self.living())

    def promoted(self):
        for key in self.ids("due"):
            self.known[key].place = "ready"

    @rule()
    def promote(self):
        self.all_become_due()
        assert self.broker.promote(self.queue) is None
        self.promoted()

    # Operators

    @rule(back=st.booleans(), place=st.sampled_from(["dead", "parked"]), limit=st.integers(1, 5), twice=st.booleans())
    def letters(self, back, place, limit, twice):
        letters = getattr(self.broker, place)(self.queue, limit=limit)
        act = self.broker.requeue if back else self.broker.discard
        assert act(letters) == len(letters)
        if twice:
            assert act(letters) == 0
        for letter in letters:
            known = self.known[letter.id]
            assert known.place == place
            known.place, known.attempts, known.suspect = ("ready", 0, False) if back else ("gone", known.attempts, known.suspect)
            known.recovered = False

    @rule(anew=st.booleans())
    def close(self, anew):
        self.broker.close()
        if anew:
            self.broker = self.driver.make()

    # What holds after every step

    @invariant()
    def each_message_is_in_the_one_place_of_the_reference(self):
        depth = self.broker.depth([self.queue])[self.queue]
        found = {"ready": depth.ready, "delayed": depth.delayed, "claimed": depth.claimed, "parked": depth.parked, "dead": depth.dead}
        due = len(self.ids("due"))
        expected = {place: len(self.ids(place)) for place in found}
        assert found == {**expected, "delayed": expected["delayed"] + due}
        for place in ("dead", "parked"):
            assert {letter.id for letter in getattr(self.broker, place)(self.queue, limit=1000)} == self.ids(place)
        assert set(self.broker.parked_for(self.queue, TASKS)) == {self.known[key].task for key in self.ids("parked")}

    @invariant()
    def each_settlement_that_was_carried_out_is_counted_once(self):
        if self.driver.now() < self.begun + TALLIES_KEPT - 60:  # then the first are forgotten
            found = Counter()
            for each in self.broker.tallies(self.queue, since=0):
                found[each.tally] += each.count
            assert found == +self.counts

    def teardown(self):
        """Nothing is lost: everything that is not gone can be claimed."""
        try:
            if self.members:
                self.everything_comes_back()
        finally:
            self.broker.close()
            self.driver.close()

    def everything_comes_back(self):
        self.all_become_due()
        self.broker.requeue([*self.broker.dead(self.queue, limit=10_000), *self.broker.parked(self.queue, limit=10_000)])
        for name in list(self.living()):
            self.members[name].lapsed = True
            self.driver.lapse(self.broker, name, self.living())
        self.broker.join("last", [self.queue], lease=LEASE)
        found = []
        while (done := self.broker.recover(self.queue, owner="last", limit=100)).deliveries or done.more:
            found += [glance(d.raw).id for d in done.deliveries]
        self.broker.promote(self.queue, limit=10_000)
        found += [glance(d.raw).id for d in self.broker.fetch(self.queue, 1000, owner="last", seq=1)]
        assert sorted(found) == sorted(key for key, known in self.known.items() if known.place != "gone")
