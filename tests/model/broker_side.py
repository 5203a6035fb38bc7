"""The broker's steps, as the Lua scripts (and the transactions of SQLite) carry them out: each is atomic."""

from __future__ import annotations

from typing import Any

from tests.model.states import LEASE, Claim, Name, Owner, State, owner_of, put, with_claims, with_owner

LOST_CLAIM = "no settlement of a lost claim has an effect"
BACKWARDS = "a final result is never overwritten by an older claim"
FALSE_RECOVERY = "no claim is taken from a node that lives and is in time"


class BrokerSide:
    """The variants are the ways to do it wrong; see test_delivery.py."""

    def __init__(self, variant: str = "", *, apart: bool = False, most: int = 2, timely: bool = False) -> None:
        self.variant = variant
        self.apart = apart  # are results in a store of their own?
        self.most = most  # deliveries (task_max_deliveries)
        self.timely = timely  # no node is slower than its lease in this model

    def carry_out(self, state: State, what: tuple[Any, ...], age: int) -> tuple[State, Any]:
        """Carry out one request that was sent *age* ticks ago; return the state after it, and the reply."""
        kind, owner, *args = what
        if kind == "join":
            return self.join(state, owner)
        if kind == "store":
            return self.store(state, *args), True
        if kind == "write":  # the second half of a settlement that is not atomic
            return self.settle_all(state, owner, args[0]), True
        row = owner_of(state, owner)
        if row is None:
            return state, None
        if kind == "renew":
            return with_owner(state, row._replace(left=LEASE)), True
        step: Any = {"fetch": self.fetch, "settle": self.settle, "mark": self.mark, "recover": self.recover, "leave": self.leave}[kind]
        return step(state, row, *args, age) if kind == "recover" else step(state, row, *args)  # type: ignore[no-any-return]

    @staticmethod
    def join(state: State, name: Name) -> tuple[State, Any]:
        row = next((o for o in state.owners if o.name == name), Owner(name))
        return (state, None) if row.reaped else (with_owner(state, row._replace(left=LEASE)), True)

    # fetch.lua

    def fetch(self, state: State, row: Owner, seq: int, limit: int, rides: tuple[Any, ...]) -> tuple[State, Any]:
        last = row.last[0]
        if self.variant == "claims without numbers":
            last = 0
        if seq == last:
            return state, self.deliveries(state, row.name, row.last[1])
        if seq < last and self.variant != "a late copy of a claim is carried out":
            return state, ()
        state = self.settle_all(state, row.name, rides)
        taken, fence = state.ready[:limit], state.fence + bool(state.ready)
        number = seq if self.variant != "claims without numbers" else fence
        new = tuple(Claim(row.name, ("f", number, i), m, fence) for i, m in enumerate(taken))
        state = with_owner(state._replace(ready=state.ready[limit:], fence=fence), row._replace(last=(seq, tuple(c.tag for c in new))))
        if self.variant == "a claim in two steps":  # the claim is to be written with the next request
            return state, tuple((c.tag, c.message, fence, *state.marks[c.message]) for c in new)
        same = tuple(c for c in state.claims for n in new if (c.owner, c.tag) == (n.owner, n.tag))  # HSET writes over
        state = with_claims(state, without=same, new=new)
        return state, self.deliveries(state, row.name, row_tags(new))

    @staticmethod
    def deliveries(state: State, name: Name, tags: tuple[Any, ...]) -> tuple[Any, ...]:
        found = {c.tag: c for c in state.claims if c.owner == name}
        return tuple((tag, found[tag].message, found[tag].fence, *state.marks[found[tag].message]) for tag in tags if tag in found)

    # settle.lua

    def settle(self, state: State, row: Owner, settlements: tuple[Any, ...]) -> tuple[State, Any]:
        if self.variant == "the lease is checked in another slot":
            return state, "checked"
        return self.settle_all(state, row.name, settlements), True

    def settle_all(self, state: State, owner: Name, settlements: tuple[Any, ...]) -> State:
        for settlement in settlements:
            state = self.settle_one(state, owner, *settlement)
        return state

    def settle_one(self, state: State, owner: Name, tag: Any, message: int, fence: int, verb: str, marks: Any) -> State:
        mine = next((c for c in state.claims if (c.owner, c.tag) == (owner, tag)), None)
        claim = mine
        if self.variant in {"no fence", "the lease is checked in another slot"}:
            claim = next((c for c in state.claims if c.message == message), None)
        if claim is None:
            return state
        if mine is None or owner_of(state, owner) is None:
            state = state._replace(bad=state.bad or LOST_CLAIM)
        state = with_claims(state, without=(claim,))
        if verb == "give back":
            return state._replace(ready=(message, *state.ready), marks=put(state.marks, message, marks))
        if not self.apart:
            state = self.store(state, message, fence)
        if verb == "bury":
            return state._replace(dead=state.dead | {message})
        return state._replace(acked=state.acked | {message})

    # store.lua

    def store(self, state: State, message: int, fence: int) -> State:
        """Store FAILURE, which a newer claim may write over: the harder case."""
        stored = state.results[message]
        if fence < stored:
            if self.variant != "an older result is stored":
                return state
            state = state._replace(bad=state.bad or BACKWARDS)
        return state._replace(results=put(state.results, message, fence))

    # mark_started.lua

    @staticmethod
    def mark(state: State, row: Owner, tag: Any) -> tuple[State, Any]:
        claim = next((c for c in state.claims if (c.owner, c.tag) == (row.name, tag)), None)
        if claim is None:
            return state, False
        state = state._replace(starts=put(state.starts, claim.message, min(3, state.starts[claim.message] + (not claim.started))))
        return with_claims(state, without=(claim,), new=(claim._replace(started=True),)), True

    # recover.lua, one claim at a time

    def recover(self, state: State, row: Owner, number: int, age: int) -> tuple[State, Any]:
        if number <= row.took[0]:
            return state, self.recovered(state, row.name, row.took[1] if number == row.took[0] else ())
        if age > 0 and self.variant != "an order to recover is carried out late":
            return state, ()
        lapsed = [o for o in state.owners if o.name != row.name and (o.reaped or not o.left)]
        if not lapsed:
            return state, ()
        lost = max(lapsed, key=lambda o: o.reaped)
        node = state.nodes[lost.name[0]]
        if self.timely and node.up and node.joined and node.epoch == lost.name[1]:
            state = state._replace(bad=state.bad or FALSE_RECOVERY)
        theirs = [c for c in state.claims if c.owner == lost.name]
        state = with_owner(state, lost._replace(reaped=True))
        if len(theirs) <= 1:
            state = state._replace(owners=tuple(o for o in state.owners if o.name != lost.name))
        if not theirs:
            return state, ()
        claim, fence = theirs[-1], state.fence + 1
        mine = claim._replace(owner=row.name, tag=("r", number, claim.message), fence=fence)
        state = with_claims(state._replace(fence=fence), without=(claim,), new=(mine,))
        state = with_owner(state, row._replace(took=(number, (mine.tag,))))
        return state, self.recovered(state, row.name, (mine.tag,))

    def recovered(self, state: State, name: Name, tags: tuple[Any, ...]) -> tuple[Any, ...]:
        claims = [c for c in state.claims if c.owner == name and c.tag in tags]
        guess = self.variant == "a death of which nothing is known is counted"
        return tuple((c.tag, c.message, c.fence, state.marks[c.message][0] + (c.started or guess), not c.started) for c in claims)

    # leave.lua; of large messages it takes several calls: who ends between two is a node that dies with what is left

    @staticmethod
    def leave(state: State, row: Owner) -> tuple[State, Any]:
        theirs = tuple(c for c in state.claims if c.owner == row.name)
        state = with_claims(state, without=theirs)
        ready = (*(c.message for c in theirs), *state.ready)
        return state._replace(ready=ready, owners=tuple(o for o in state.owners if o != row)), True


def row_tags(claims: tuple[Claim, ...]) -> tuple[Any, ...]:
    """The tags of claims."""
    return tuple(c.tag for c in claims)
