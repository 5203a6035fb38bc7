# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""Promises about what is put away: dead letters and parked messages, read in pages, and each taken out once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from umbel.broker import Broker, DeadLetter, Delivery, Evidence, Verb
from umbel.testing.conformance.base import LEASE, BrokerSuite, ids_of, item, settlement
from umbel.wire.marks import marks

__all__ = ["LetterPromises"]

Read = Callable[..., list[DeadLetter]]


class LetterPromises(BrokerSuite):
    """What `dead`, `parked`, `requeue`, `discard`, `parked_for` and `fetch` of the parked promise."""

    def put_away(self, broker: Broker, queue: str, verb: Verb, *ids: str, reasons: Sequence[str] = ("why",)) -> list[Delivery]:
        broker.publish([item(queue, task_id) for task_id in ids])
        broker.join("undertaker", [queue], lease=60)
        held = broker.fetch(queue, len(ids), owner="undertaker", seq=1)
        some = [settlement(d, verb, reason=reasons[n % len(reasons)]) for n, d in enumerate(held)]
        assert broker.settle(some) == [True] * len(ids)
        broker.leave("undertaker", [queue])
        return held

    @staticmethod
    def pages(read: Read, queue: str, limit: int) -> list[list[str]]:
        """Return the ids of all pages."""
        found: list[list[str]] = []
        after = ""
        while page := read(queue, limit=limit, after=after):
            found.append([letter.id for letter in page])
            after = page[-1].key
        return found

    def test_a_dead_letter_keeps_its_message_and_all_that_is_known_of_its_death(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a")])
        broker.join("w", [queue], lease=60)
        (held,) = broker.fetch(queue, 1, owner="w", seq=1)
        known = Evidence(
            kind="crashed",
            node="celery@x",
            attempts=3,
            signal="SIGKILL",
            peak_memory=1 << 34,
            traceback='File "t.py", line 1\n\U0001f331',
        )
        assert broker.settle([replace(settlement(held, Verb.BURY, reason="killed: é\n"), evidence=known)]) == [True]
        (letter,) = broker.dead(queue)
        assert (letter.queue, letter.place, letter.id, letter.reason) == (queue, "dead", "a", "killed: é\n")
        assert self.arrives(broker, letter.raw, item(queue, "a").raw)
        assert letter.evidence == known
        assert abs(letter.at - self.now()) < 5
        assert self.total(broker, queue) == (0, 0, 0, 0, 1)

    def test_a_reason_may_hold_any_text(self, broker: Broker, queue: str) -> None:
        """A sender chooses the name of a task, and an exception its text."""
        self.put_away(broker, queue, Verb.BURY, "a", reasons=["nul \0 and half of a pair \ud83c"])
        (letter,) = broker.dead(queue)
        assert letter.reason.startswith("nul ")
        assert broker.requeue([letter]) == 1

    def test_dead_letters_come_newest_first_and_parked_messages_oldest_first(self, broker: Broker, queue: str) -> None:
        for n, verb in enumerate((Verb.BURY, Verb.PARK)):
            for task_id in "abc":
                self.put_away(broker, queue, verb, f"{n}{task_id}")
                self.pass_time(0.005)
        assert [letter.id for letter in broker.dead(queue)] == ["0c", "0b", "0a"]
        assert [letter.id for letter in broker.parked(queue)] == ["1a", "1b", "1c"]

    @pytest.mark.parametrize("verb", [Verb.BURY, Verb.PARK])
    def test_pages_show_each_letter_once_though_many_were_put_away_in_one_moment(self, broker: Broker, queue: str, verb: Verb) -> None:
        ids = [f"m{n}" for n in range(25)]
        self.put_away(broker, queue, verb, *ids)
        pages = self.pages(broker.dead if verb is Verb.BURY else broker.parked, queue, 4)
        assert max(map(len, pages)) <= 4
        assert sorted(task_id for page in pages for task_id in page) == sorted(ids)

    @pytest.mark.parametrize("verb", [Verb.BURY, Verb.PARK])
    def test_a_page_goes_on_behind_a_letter_that_was_taken_away(self, broker: Broker, queue: str, verb: Verb) -> None:
        ids = [f"m{n}" for n in range(9)]
        self.put_away(broker, queue, verb, *ids)
        read = broker.dead if verb is Verb.BURY else broker.parked
        first = read(queue, limit=3)
        assert broker.discard(first) == 3
        rest = read(queue, limit=9, after=first[-1].key)
        assert sorted(letter.id for letter in [*first, *rest]) == sorted(ids)

    def test_letters_are_found_by_their_task_id(self, broker: Broker, queue: str) -> None:
        for _ in range(2):
            for verb in (Verb.BURY, Verb.PARK):
                self.put_away(broker, queue, verb, "a", "ab", "b")
        for read in (broker.dead, broker.parked):
            assert [letter.id for letter in read(queue, id="a")] == ["a", "a"]
            (first,) = read(queue, id="a", limit=1)
            (second,) = read(queue, id="a", limit=1, after=first.key)
            assert second.key != first.key
            assert read(queue, id="a", after=second.key) == []
            assert read(queue, id="c") == []

    def test_a_requeued_letter_goes_to_the_tail_and_has_not_died_before(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a", priority=3)])
        broker.join("w", [queue], lease=60)
        (held,) = broker.fetch(queue, 1, owner="w", seq=1)
        assert broker.settle([replace(settlement(held, Verb.GIVE_BACK), attempts=2, suspect=True)]) == [True]
        (held,) = broker.fetch(queue, 1, owner="w", seq=2)
        assert broker.settle([settlement(held, Verb.BURY, reason="died")]) == [True]
        broker.publish([item(queue, "b", priority=3), item(queue, "c", priority=9)])
        assert broker.requeue(broker.dead(queue)) == 1
        again = broker.fetch(queue, 5, owner="w", seq=3)
        if broker.features.gives_back_to_head:
            assert ids_of(again) == (["b", "a", "c"] if broker.features.priorities else ["b", "c", "a"])
        else:  # what was fetched ahead and lay here for too long may have gone back behind it
            assert sorted(ids_of(again)) == ["a", "b", "c"]
        back = again[ids_of(again).index("a")]
        assert (back.attempts, back.suspect) == (0, False)
        assert marks(back.raw) == (0, False)
        assert self.total(broker, queue) == (0, 0, 3, 0, 0)

    def test_a_letter_is_taken_out_once(self, broker: Broker, queue: str) -> None:
        self.put_away(broker, queue, Verb.BURY, "a", "b", "c")
        one, two, three = broker.dead(queue)
        assert broker.requeue([one, two, one]) == 2
        assert broker.requeue([two, three]) == 1
        assert broker.discard([one, two, three]) == 0
        assert self.total(broker, queue) == (3, 0, 0, 0, 0)

    def test_many_who_requeue_at_once_put_each_letter_back_once(self, broker: Broker, queue: str) -> None:
        self.put_away(broker, queue, Verb.BURY, *(f"m{n}" for n in range(300)))
        letters = broker.dead(queue, limit=100)
        while more := broker.dead(queue, limit=100, after=letters[-1].key):
            letters += more
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda _: broker.requeue(letters), range(4))) == 300
        assert self.total(broker, queue) == (300, 0, 0, 0, 0)

    def test_an_old_letter_does_not_stand_for_a_newer_one_of_its_task(self, broker: Broker, queue: str) -> None:
        self.put_away(broker, queue, Verb.BURY, "a")
        (old,) = broker.dead(queue)
        assert broker.requeue([old]) == 1
        self.put_away(broker, queue, Verb.BURY)
        broker.join("w", [queue], lease=60)
        (held,) = broker.fetch(queue, 1, owner="w", seq=1)
        self.pass_time(0.005)
        assert broker.settle([settlement(held, Verb.BURY, reason="again")]) == [True]
        assert broker.requeue([old]) == 0
        assert broker.discard([old]) == 0
        assert self.total(broker, queue) == (0, 0, 0, 0, 1)

    def test_letters_of_several_queues_and_places_are_taken_in_one_call(self, broker: Broker, queue: str) -> None:
        other = queue + "-other"
        self.put_away(broker, queue, Verb.BURY, "a")
        self.put_away(broker, other, Verb.BURY, "b")
        self.put_away(broker, other, Verb.PARK, "c")
        assert broker.requeue([*broker.dead(queue), *broker.dead(other), *broker.parked(other)]) == 3
        assert self.total(broker, queue) == (1, 0, 0, 0, 0)
        assert self.total(broker, other) == (2, 0, 0, 0, 0)

    def test_a_discarded_letter_is_gone(self, broker: Broker, queue: str) -> None:
        self.put_away(broker, queue, Verb.PARK, "a", "b")
        assert broker.discard(broker.parked(queue, id="a")) == 1
        assert [letter.id for letter in broker.parked(queue)] == ["b"]
        assert self.total(broker, queue) == (0, 0, 0, 1, 0)

    def test_who_knows_a_task_is_told_that_messages_of_it_are_parked(self, broker: Broker, queue: str) -> None:
        assert broker.parked_for(queue, ["x.one"]) == []
        self.put_away(broker, queue, Verb.PARK, "a", "b", "c", reasons=["x.one", "x.two"])
        assert broker.parked_for(queue, ["x", "x.one", "x.on", "x.three"]) == ["x.one"]
        assert broker.parked_for(queue, []) == []
        broker.discard(broker.parked(queue))
        assert broker.parked_for(queue, ["x.one", "x.two"]) == []

    def test_parked_messages_are_claimed_by_who_names_their_task(self, broker: Broker, queue: str) -> None:
        """And by nobody else: put back to ready, they might go round and round between workers that do not know them."""
        self.put_away(broker, queue, Verb.PARK, "a", "b", "c", reasons=["x.one", "x.two"])
        broker.publish([item(queue, "d"), item(queue, "e")])
        broker.join("w", [queue], lease=60)
        assert ids_of(broker.fetch(queue, 1, owner="w", seq=1)) == ["d"]
        held = broker.fetch(queue, 5, owner="w", seq=2, parked=["x.one", "x.three"])
        assert ids_of(sorted(held, key=glance_id)) == ["a", "c", "e"]
        assert [letter.id for letter in broker.parked(queue)] == ["b"]
        assert self.total(broker, queue) == (0, 0, 4, 1, 0)
        assert broker.settle([settlement(d) for d in held]) == [True] * 3
        assert self.total(broker, queue) == (0, 0, 1, 1, 0)

    def test_parked_messages_are_claimed_within_the_limit_the_oldest_first(self, broker: Broker, queue: str) -> None:
        for task_id in "abc":
            self.put_away(broker, queue, Verb.PARK, task_id, reasons=["x"])
            self.pass_time(0.005)
        broker.publish([item(queue, "d")])
        broker.join("w", [queue], lease=60)
        assert ids_of(broker.fetch(queue, 2, owner="w", seq=1, parked=["x"])) == ["a", "b"]
        assert sorted(ids_of(broker.fetch(queue, 2, owner="w", seq=2, parked=["x"]))) == ["c", "d"]

    def test_a_claim_of_parked_messages_is_repeated_by_its_number(self, broker: Broker, queue: str) -> None:
        self.put_away(broker, queue, Verb.PARK, "a", "b", "c", reasons=["x"])
        broker.join("w", [queue], lease=60)
        first = broker.fetch(queue, 2, owner="w", seq=1, parked=["x"])
        again = broker.fetch(queue, 2, owner="w", seq=1, parked=["x"])
        assert [d.tag for d in again] == [d.tag for d in first]
        assert self.total(broker, queue) == (0, 0, 2, 1, 0)

    def test_what_was_parked_and_claimed_by_one_that_dies_comes_back(self, broker: Broker, queue: str) -> None:
        self.needs_leases(broker)
        self.put_away(broker, queue, Verb.PARK, "a", reasons=["x"])
        broker.join("lost", [queue], lease=LEASE)
        assert len(broker.fetch(queue, 1, owner="lost", seq=1, parked=["x"])) == 1
        self.pass_time(LEASE * 1.2)
        broker.join("heir", [queue], lease=60)
        assert ids_of(broker.recover(queue, owner="heir", limit=5).deliveries) == ["a"]


def glance_id(delivery: Delivery) -> str:
    """Return the task id."""
    return ids_of([delivery])[0]
