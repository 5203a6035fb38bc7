"""The suite that defines a broker, of its parts, and the invariant that holds them together."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from umbel.broker import Broker, Delivery, Verb
from umbel.testing.conformance.base import UNKNOWN, item, settlement
from umbel.testing.conformance.claiming import ClaimingPromises
from umbel.testing.conformance.counting import CountingPromises
from umbel.testing.conformance.delaying import DelayingPromises
from umbel.testing.conformance.letters import LetterPromises
from umbel.testing.conformance.publishing import PublishingPromises
from umbel.testing.conformance.recovering import RecoveringPromises
from umbel.testing.conformance.remembering import RememberingPromises
from umbel.testing.conformance.revoking import RevokingPromises
from umbel.testing.conformance.settling import SettlingPromises

__all__ = ["BrokerConformance"]


class BrokerConformance(
    PublishingPromises, DelayingPromises, ClaimingPromises, SettlingPromises, CountingPromises, LetterPromises, RecoveringPromises,
    RememberingPromises, RevokingPromises,
):  # fmt: skip
    """Inherit it, and give `make_broker`; `partner` if the store holds results too; `pass_time` and `now` for a fake clock."""

    @pytest.mark.parametrize("seed", range(5))
    def test_every_message_is_in_exactly_one_place(self, broker: Broker, queue: str, seed: int) -> None:
        """A random walk beside a count: what was published and not acknowledged or purged is what the places hold."""
        chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
        alive = published = seq = 0
        held: list[Delivery] = []
        settled: list[Delivery] = []
        broker.join("w", [queue], lease=60)
        for _ in range(60):
            match chance.choice(("publish", "delay", "fetch", "settle", "settle", "late", "requeue", "parked")):
                case "publish" | "delay" as how:
                    due = self.now() + 60 if how == "delay" else None
                    count = chance.randint(1, 5)
                    broker.publish([item(queue, f"m{published + n}", priority=chance.choice((0, 3, 9)), due=due) for n in range(count)])
                    published, alive = published + count, alive + count
                case "fetch":
                    seq += 1
                    held += broker.fetch(queue, chance.randint(0, 4), owner="w", seq=seq)
                case "settle" if held:
                    settled.append(held.pop(chance.randrange(len(held))))
                    verb = chance.choice(list(Verb))
                    what = settlement(settled[-1], verb, reason="t")
                    if verb is Verb.RETRY:
                        what = replace(what, replacement=item(queue, f"m{published}"))
                    assert broker.settle([what]) == [True]
                    alive -= verb is Verb.ACK
                case "late" if settled:
                    assert broker.settle([settlement(chance.choice(settled))]) == [False]
                case "requeue":
                    broker.requeue(broker.dead(queue, limit=2))
                case "parked":
                    seq += 1
                    held += broker.fetch(queue, chance.randint(0, 4), owner="w", seq=seq, parked=["t"])
            self.look(broker, queue, alive=alive, held=len(held))
        broker.leave("w", [queue])
        self.look(broker, queue, alive=alive, held=0)

    def look(self, broker: Broker, queue: str, *, alive: int, held: int) -> None:
        """Compare the counts of the places with what there must be; where the engine cannot tell a count, with what there may be."""
        places = self.total(broker, queue)
        known = [count for count in places if count is not UNKNOWN]
        assert sum(known) == alive if len(known) == len(places) else sum(known) <= alive, places
        assert places[2] == held
