"""The life of a message, from its claim to its settlement, as a model in which everything may go wrong at every moment.

**What is in it.** Two workers (nodes) with epochs; one or two messages; the broker's table of owners with leases, claims with
sequence numbers and fences, marks of starts, recovery in steps (`broker_side.py`: what the Lua scripts and the transactions
of SQLite do); what a node believes: its own deadline, its unanswered claim, what it holds and how far each task is (this file:
what worker/lease.py, worker/recovery.py, worker/fetcher.py, worker/dispatcher.py and execution/settle.py do). Results are stored
in the same step as the acknowledgement, or, with `apart`, in a store of their own.

**Time** goes in ticks. A lease is two ticks and is renewed after one. Only what is left of each lease is kept, so that time
need not end. **The network**: a request is sent, carried out, and answered in three steps, between which anything else may
happen, and ticks pass. It may get lost, its reply may get lost, and a request that was given up may still be carried out at
any later moment, also after its sender lost its lease or died.

**What may go wrong** is counted, and each bound is a parameter: `crashes` (of a node, at any moment; it starts again with a new
epoch), `stops` (warm ones), `losses` (of a request or a reply, or a late copy), `slowness` (a node that lives lets its
lease lapse), `outages` (the broker answers nobody for any length of time), `suspensions` (all machines stand still for longer than
a lease). The order of all other steps is free. Everything within the bounds is looked at: the search is exhaustive.

**What must hold** in every state is in `violated`, and in the `bad` marks of broker_side.py, each with the name that the
test prints. And from every state each message must be able to reach its end without another fault: nothing is stuck.

**What is not in it**: delays, priorities, parked messages, packets to children (to hand a task to the pool is its start), several
queues, and clocks that run at different speeds: tests/simulation and tests/chaos have these. Nor a store that goes back to an older
state, as a replica does that lagged (renew.lua): tests/redis_family has that.

**To read a counter-example**: each line is one step and the state after it. `n0` is the first node, `0:1` an owner (node and epoch),
`m0` a message; `left` is the broker's view of a lease, `deadline` the node's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.model.broker_side import BrokerSide
from tests.model.checker import Step
from tests.model.states import LEASE, Held, Name, Node, Owner, State, Wire, owner_of, put

ONE_PLACE = "a message is in exactly one place"
STORED = "acknowledged implies result stored"
ENDED = "what was acknowledged never starts again"
DEADLINE = "a node's own deadline is never later than the broker's"
ATTEMPTS = "only a start that was marked costs an attempt"


class Delivery:
    """A model for `checker.check`."""

    def __init__(
        self, variant: str = "", *, messages: int = 1, limit: int = 2, apart: bool = False, most: int = 2,
        begins_after_a_crash: bool = False,
        crashes: int = 0, stops: int = 0, losses: int = 0, slowness: int = 0, outages: int = 0, suspensions: int = 0,
    ) -> None:  # fmt: skip
        self.variant, self.apart, self.messages = variant, apart, messages
        self.begins_after_a_crash = begins_after_a_crash
        self.limit, self.most = limit, most
        self.broker = BrokerSide(variant, apart=apart, most=most, timely=not slowness)
        self.faults = {
            "crashes": crashes, "stops": stops, "losses": losses, "slowness": slowness, "outages": outages, "suspensions": suspensions,
        }  # fmt: skip

    def initial(self) -> State:
        return self.after_a_crash() if self.begins_after_a_crash else self.at_the_start()

    def at_the_start(self) -> State:
        everyone = range(self.messages)
        return State(
            ready=tuple(everyone), marks=tuple((0, False) for _ in everyone),
            nodes=(member := Node(joined=True, deadline=LEASE, unbroken=0), member), owners=(Owner((0, 1)), Owner((1, 1))),
            results=tuple(0 for _ in everyone), starts=tuple(0 for _ in everyone), **self.faults,
        )  # fmt: skip

    def after_a_crash(self) -> State:
        """The second node has claimed everything and is gone."""
        state = self.at_the_start()
        row = owner_of(state, (1, 1))
        assert row is not None
        state, _ = self.broker.fetch(state, row, 1, self.messages, ())
        return with_node(state, 1, Node(up=False))

    # What must hold

    def violated(self, state: State) -> str | None:
        if state.bad:
            return state.bad
        places = [*state.ready, *(c.message for c in state.claims), *state.acked, *state.dead]
        if sorted(places) != list(range(self.messages)):
            return ONE_PLACE
        if any(not state.results[m] for m in (*state.acked, *state.dead)):
            return STORED
        if any(attempts > starts for (attempts, _), starts in zip(state.marks, state.starts, strict=True)):
            return ATTEMPTS
        for i, node in enumerate(state.nodes):
            row = owner_of(state, (i, node.epoch))
            if node.deadline and (row is None or row.left < node.deadline):
                return DEADLINE
        return None

    def ended(self, state: State) -> bool:
        return len(state.acked) + len(state.dead) == self.messages

    # What may happen

    def steps(self, state: State) -> Iterator[Step]:
        for i, node in enumerate(state.nodes):
            if node.up:
                yield from self.of_node(state, i, node)
                yield from self.of_wire(state, i, node, "work")
                yield from self.of_wire(state, i, node, "lease")
                if state.crashes:
                    yield Step(f"n{i} crashes", crashed(state, i, node), fault=True)
            else:
                epoch = node.epoch + (self.variant != "a restarted node has its old name")
                yield Step(f"n{i} starts again", with_node(state, i, Node(epoch=epoch)))
        yield from self.of_time(state)
        if not state.out:
            for what in state.late:
                late = list(state.late)
                late.remove(what)
                after, _ = self.broker.carry_out(state._replace(late=tuple(late)), what, LEASE)
                yield Step(f"a late copy of {shown(what)} arrives", after, fault=True)

    # Time

    def of_time(self, state: State) -> Iterator[Step]:
        lapse = [i for i, node in enumerate(state.nodes) if lapses(state, i, node)]
        # Four renewals come to a lease and a request ends before the next renewal: who lives notices an outage before a lease lapses.
        noticed = all(not n.up or not n.joined or n.unbroken is None for n in state.nodes)
        if state.out:
            yield Step("the broker answers again", state._replace(out=False))
            if noticed:
                yield Step("a tick", ticked(state, 1))
        elif not lapse:
            yield Step("a tick", ticked(state, 1))
        elif state.slowness:
            yield Step("a tick, and a lease lapses", ticked(state._replace(slowness=state.slowness - 1), 1), fault=True)
        if state.outages and not state.out:
            yield Step("the broker is away", state._replace(out=True, outages=state.outages - 1), fault=True)
        if state.suspensions and not state.out:
            yield Step("all machines stand still", ticked(state._replace(suspensions=state.suspensions - 1), LEASE), fault=True)

    # The network

    def asked(self, state: State, i: int, node: Node, line: str, what: tuple[Any, ...]) -> Iterator[Step]:
        """A request is answered at once; or, as a fault, it is on its way for a while."""
        text = f"n{i}'s {shown(what)}"
        wire = Wire(what)
        sent = node._replace(**{line: wire})
        if state.out:
            failed = node._replace(lease=None, unbroken=None) if line == "lease" else self.failed(sent, line)
            yield Step(f"{text} fails", with_node(state, i, failed))
            return
        after, reply = self.broker.carry_out(state, what, 0)
        sent_and_done = node._replace(**{line: wire._replace(done=True, reply=reply)})
        yield Step(f"{text} is answered: {reply}", self.answered(after, i, sent_and_done, line))
        if state.losses:
            yield Step(f"{text} is sent", with_node(state._replace(losses=state.losses - 1), i, sent), fault=True)

    def of_wire(self, state: State, i: int, node: Node, line: str) -> Iterator[Step]:
        """What may become of a request that is on its way."""
        wire: Wire | None = getattr(node, line)
        if wire is None:
            return
        text = f"n{i}'s {shown(wire.what)}"
        failed = with_node(state, i, self.failed(node, line))
        if wire.done:
            yield Step(f"{text} is answered: {wire.reply}", self.answered(state, i, node, line))
            yield Step(f"the reply of {text} is lost", failed, fault=True)
            return
        if state.out:
            yield Step(f"{text} fails", failed)
        else:
            after, reply = self.broker.carry_out(state, wire.what, wire.age)
            yield Step(f"{text} is carried out", with_node(after, i, node._replace(**{line: wire._replace(done=True, reply=reply)})))
        yield Step(f"{text} is lost", failed, fault=True)
        yield Step(f"{text} is given up, and still on its way", later(failed, wire), fault=True)

    def failed(self, node: Node, line: str) -> Node:
        """What a node does when a request had no answer: it asks again, with the same numbers."""
        if line == "lease":
            # A join is tried again under another name.
            return node._replace(lease=None, unbroken=None, epoch=node.epoch + (not node.joined))
        assert node.work is not None
        if node.work.what[0] == "recover" and self.variant == "a recovery without an answer is forgotten":
            return node._replace(work=None, number=node.number + 1)
        if node.work.what[0] == "leave":  # it ends all the same
            return Node(up=False, epoch=node.epoch)
        return node._replace(work=None)

    # The node

    def of_node(self, state: State, i: int, node: Node) -> Iterator[Step]:
        name = (i, node.epoch)
        leaves = node.work is not None and node.work.what[0] == "leave"
        if node.lease is None and not leaves:
            if not node.joined:
                yield from self.asked(state, i, node, "lease", ("join", name, True))
            elif stale(state, name, node):
                yield from self.asked(state, i, node, "lease", ("renew", name, node.deadline == 0))
        if not node.joined:
            return
        yield from self.of_tasks(state, i, node)
        if node.work is None and node.deadline:
            yield from self.of_claims(state, i, node, name)
            for what in self.of_work(state, node, name):
                yield from self.asked(state, i, node, "work", what)
            if state.stops and not node.held and node.call is None and node.lease is None:
                stopping = state._replace(stops=state.stops - 1)
                yield from self.asked(stopping, i, node._replace(deadline=0), "work", ("leave", name))

    def of_tasks(self, state: State, i: int, node: Node) -> Iterator[Step]:
        for at, held in enumerate(node.held):
            alone = held.suspect or held.attempts > 0
            may = node.deadline > 0 or self.variant == "a start after the deadline"
            free = not any(other.status == "runs" for other in node.held)
            if held.verb == "ack" and may and free and held.status == ("marked" if alone else "waits"):
                after = with_node(state, i, with_status(node, at, "runs"))
                if held.message in state.acked:
                    after = after._replace(bad=ENDED)
                yield Step(f"n{i} starts m{held.message}", after)
            elif held.status == "runs":
                yield Step(f"n{i} ends m{held.message}", with_node(state, i, with_status(node, at, "ended")))

    def of_claims(self, state: State, i: int, node: Node, name: Name) -> Iterator[Step]:
        """What the fetcher asks for. A claim without an answer is repeated as it was; outcomes ride on a new one."""
        if node.call is not None:
            yield from self.asked(state, i, node, "work", node.call)
        elif state.ready and len(node.held) < self.messages:
            riding = self.outcomes(node)[1]
            room = min(self.limit, self.messages - len(node.held))
            call = ("fetch", name, node.seq + 1, room, tuple(settlement(h) for h in riding))
            node = node._replace(call=call, held=tuple(h._replace(status="rides") if h in riding else h for h in node.held))
            yield from self.asked(state, i, node, "work", call)

    def of_work(self, state: State, node: Node, name: Name) -> Iterator[tuple[Any, ...]]:
        """What the settler and the care of a node may ask for now."""
        to_store, to_settle = self.outcomes(node)
        for held in to_store:
            yield "store", name, held.message, held.fence
        if to_settle:
            yield "settle", name, tuple(settlement(h) for h in to_settle)
        for held in node.held:
            if held.status == "waits" and (held.suspect or held.attempts):
                yield "mark", name, held.tag
        hasty = self.variant == "recovery right after an outage" and node.unbroken is not None
        if (hasty or node.unbroken == LEASE) and any(o.name != name for o in state.owners):
            yield "recover", name, node.number

    def outcomes(self, node: Node) -> tuple[tuple[Held, ...], tuple[Held, ...]]:
        """What is to be stored, and what is to be settled now."""
        ended = tuple(h for h in node.held if h.status == "ended")
        stored = tuple(h for h in node.held if h.status == "stored")
        if not self.apart:
            return (), ended
        if self.variant == "acknowledged before it is stored":
            return stored, ended
        return tuple(h for h in ended if h.verb != "give back"), stored + tuple(h for h in ended if h.verb == "give back")

    # Replies

    def answered(self, state: State, i: int, node: Node, line: str) -> State:
        wire = getattr(node, line)
        kind, reply = wire.what[0], wire.reply
        node = node._replace(**{line: None})
        if kind in {"join", "renew"}:
            return self.lease_answered(state, i, node, wire)
        if reply is None:  # the owner is not in the table: renew now
            return with_node(state, i, node._replace(call=None if kind == "fetch" else node.call, deadline=0))
        change: Any = getattr(self, f"{kind}_answered")
        return with_node(state, i, change(node, wire))

    def lease_answered(self, state: State, i: int, node: Node, wire: Wire) -> State:
        if wire.reply is None:  # refused: forget everything and join under a new name
            after = state if node.work is None or node.work.done else later(state, node.work)
            return with_node(after, i, Node(epoch=node.epoch + 1, unbroken=node.unbroken, number=node.number))
        age = 0 if self.variant == "a renewal is counted from its reply" else wire.age
        broken = wire.what[2] and self.variant != "who stood still goes on at once"
        unbroken = wire.age if node.unbroken is None or broken else node.unbroken
        return with_node(state, i, node._replace(joined=True, deadline=LEASE - age, unbroken=unbroken))

    def fetch_answered(self, node: Node, wire: Wire) -> Node:
        kept = tuple(h for h in node.held if h.status != "rides")
        return node._replace(call=None, seq=wire.what[2], held=(*kept, *(Held(*each) for each in wire.reply)))

    def settle_answered(self, node: Node, wire: Wire) -> Node:
        if wire.reply == "checked":
            return node._replace(work=Wire(("write", *wire.what[1:])))
        return self.write_answered(node, wire)

    def write_answered(self, node: Node, wire: Wire) -> Node:
        tags = {each[0] for each in wire.what[2]}
        if self.variant == "acknowledged before it is stored":
            return node._replace(held=tuple(h._replace(status="stored") if h.tag in tags else h for h in node.held))
        return node._replace(held=tuple(h for h in node.held if h.tag not in tags))

    def store_answered(self, node: Node, wire: Wire) -> Node:
        stored = wire.what[2:4]  # all messages of one claim share its fence
        return node._replace(held=tuple(h._replace(status="stored") if (h.message, h.fence) == stored else h for h in node.held))

    def mark_answered(self, node: Node, wire: Wire) -> Node:
        if wire.reply:
            return node._replace(held=tuple(h._replace(status="marked") if h.tag == wire.what[2] else h for h in node.held))
        return node._replace(held=tuple(h for h in node.held if h.tag != wire.what[2]))

    def recover_answered(self, node: Node, wire: Wire) -> Node:
        taken = tuple(
            Held(*each, status="ended", verb="bury" if each[3] >= self.most else "give back") for each in wire.reply
        )  # fmt: skip
        return node._replace(number=node.number + bool(taken), held=(*node.held, *taken))

    def leave_answered(self, node: Node, wire: Wire) -> Node:
        return Node(epoch=node.epoch + 1)

    def show(self, state: State) -> str:
        return show(state)


def later(state: State, wire: Wire) -> State:
    """A request that nobody waits for any more is still on its way."""
    return state._replace(late=tuple(sorted((*state.late, wire.what), key=repr)))


def with_node(state: State, i: int, node: Node) -> State:
    """Replace one node."""
    return state._replace(nodes=put(state.nodes, i, node))


def with_status(node: Node, at: int, status: str) -> Node:
    """Say how far a task is."""
    return node._replace(held=put(node.held, at, node.held[at]._replace(status=status)))


def crashed(state: State, i: int, node: Node) -> State:
    """A node is gone; what it had sent may still arrive."""
    state = with_node(state._replace(crashes=state.crashes - 1), i, Node(up=False, epoch=node.epoch))
    for wire in (node.work, node.lease):
        if wire is not None and not wire.done:
            state = later(state, wire)
    return state


def settlement(held: Held) -> tuple[Any, ...]:
    """What settles a held message."""
    return held.tag, held.message, held.fence, held.verb, (held.attempts, held.suspect)


def stale(state: State, name: Name, node: Node) -> bool:
    """Is there anything that a renewal would change?"""
    row = owner_of(state, name)
    return row is None or row.left < LEASE or node.deadline < LEASE or node.unbroken is None


def lapses(state: State, i: int, node: Node) -> bool:
    """Would a tick leave this living node with a lapsed lease?"""
    row = owner_of(state, (i, node.epoch))
    return node.up and row is not None and row.left <= 1


def ticked(state: State, ticks: int) -> State:
    """Time passes for all."""
    nodes = []
    for node in state.nodes:
        unbroken = None if node.unbroken is None else min(LEASE, node.unbroken + ticks)
        work, lease = (w and w._replace(age=min(LEASE, w.age + ticks)) for w in (node.work, node.lease))
        nodes.append(node._replace(deadline=max(0, node.deadline - ticks), unbroken=unbroken, work=work, lease=lease))
    owners = tuple(o._replace(left=max(0, o.left - ticks)) for o in state.owners)
    return state._replace(nodes=tuple(nodes), owners=owners)


def shown(what: tuple[Any, ...]) -> str:
    """A request for people."""
    kind, (node, epoch), *rest = what
    return f"{kind} of {node}:{epoch} {rest}"


def show(state: State) -> str:
    """A state for people."""
    owners = ", ".join(f"{o.name[0]}:{o.name[1]} left {o.left}{' reaped' if o.reaped else ''}" for o in state.owners)
    claims = ", ".join(f"m{c.message} by {c.owner[0]}:{c.owner[1]} fence {c.fence}{' started' if c.started else ''}" for c in state.claims)
    nodes = "; ".join(
        f"n{i} " + ("down" if not n.up else f"deadline {n.deadline} unbroken {n.unbroken} " + ", ".join(
            f"m{h.message} {h.status} to {h.verb}" for h in n.held))
        for i, n in enumerate(state.nodes)
    )  # fmt: skip
    places = f"ready {list(state.ready)} acked {sorted(state.acked)} dead {sorted(state.dead)} results {list(state.results)}"
    return f"{places} | owners: {owners} | claims: {claims} | {nodes}{' | broker away' if state.out else ''}"
