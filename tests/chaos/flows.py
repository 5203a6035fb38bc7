"""The checker of workflows: what each came to, by the ledger, beside a plain evaluation of its plan.

Tasks may run again after a crash, as any task does. But of each body and each errback one message runs, and never its copy; a body runs
only if all before it succeeded, and its errback only if not; and in the end each task has the state and the value of the plain evaluation.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tests.canvas.plans import Namer, Oracle
from tests.chaos.checker import Run
from tests.chaos.world import APPS

from umbel.backend import ResultBackend
from umbel.broker import DeadLetter
from umbel.execution.followup import errback_id
from umbel.states import READY_STATES, SUCCESS
from umbel.wire import message as wire

sys.path.append(str(APPS))  # where its tasks are

from chaos_flows import plan_of

FLOW = "-flow"
ONCE = 500  # ids in one call
JSON = frozenset({"application/json"})


@dataclass(slots=True)
class Flows:
    """What became of the workflows of one world."""

    sent: int
    ended: int = 0
    wrong: list[str] = field(default_factory=list)


def is_flow(key: str) -> bool:
    """Answer whether a key of the ledger belongs to a workflow."""
    return FLOW in key


def named(letters: Iterable[DeadLetter]) -> set[str]:
    """Return what dead letters of workflows were to write into the ledger: a task whose process was killed too often has failed."""
    found = set()
    for letter in letters:
        message = wire.decode(letter.raw)
        args, _, _ = wire.payload(message, JSON)
        if args and isinstance(args[-1], str) and is_flow(args[-1]):
            found.add(args[-1])
    return found


def sent_flows(acks: Path) -> set[str]:
    """Return the keys of the workflows whose call has returned."""
    return {key for key in acks.read_text().split() if is_flow(key)}


def kept_ids(acks: Path) -> list[str]:
    """Return the ids of the other calls that have returned and keep a result."""
    return [key for key in acks.read_text().split() if not any(kind in key for kind in ("-links", "-bulk", FLOW))]


class Waiting:
    """Looks whether all has ended: each task and each errback of a workflow, and all else that keeps a result, has a final state."""

    def __init__(self, acks: Path, backend: ResultBackend) -> None:
        self._acks, self._backend = acks, backend
        self._left: list[str] | None = None

    def is_over(self) -> bool:
        """Ask for those that had not ended when it was asked before."""
        if self._left is None:
            self._left = [*kept_ids(self._acks), *(each for key in sorted(sent_flows(self._acks)) for each in ids_of(key))]
        while self._left:
            some = self._left[:ONCE]
            left = [key for key, data in zip(some, self._backend.get(some), strict=True) if state_of(data) not in READY_STATES]
            self._left[:ONCE] = left
            if left:
                return False
        return True


def ids_of(key: str) -> list[str]:
    """Return the ids of all tasks and errbacks of a workflow."""
    oracle = Oracle(Namer(f"{key}."))
    oracle.value_of(plan_of(key))
    return [*oracle.states, *(errback_id(name, 0, {}) for name in oracle.told)]


def state_of(data: bytes | None) -> str | None:
    """Return the state that a result document says."""
    return None if data is None else msgspec.json.decode(data)["status"]


def check_flows(runs: Iterable[Run], sent: AbstractSet[str], dead: AbstractSet[str], backend: ResultBackend) -> Flows:
    """Check all workflows; *sent* are the keys of those whose call has returned."""
    by_key: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if is_flow(run.key):
            name = run.key.removeprefix("told-")
            by_key[name.partition(".")[0]][run.key].append(run)
    flows = Flows(sent=len(sent))
    for key in sorted({*sent, *by_key}):
        oracle = Oracle(Namer(f"{key}."), fails=frozenset(dead))
        oracle.value_of(plan_of(key))
        wrong = _may(oracle, by_key[key])
        if key in sent:
            left = [*_must(oracle, by_key[key], dead), *_stored(oracle, backend)]
            flows.ended += not left
            wrong += left
        flows.wrong += [f"workflow {key}: {each}" for each in wrong]
    if overs := backend.overs(older=0):
        flows.wrong.append(f"{len(overs)} joins are over, and nobody sent what follows: {overs[:3]}")
    return flows


def _may(oracle: Oracle, runs: dict[str, list[Run]]) -> list[str]:
    """Return what may never be, also of a workflow whose call raised, so that a part of it may not have been sent."""
    may = {*oracle.ran, *(f"told-{name}" for name in oracle.told)}
    wrong = [f"{name} ran, and should not" for name in runs if name not in may]
    for name, those in runs.items():
        if len(messages := {run.detail for run in those}) > 1:
            wrong.append(f"{name} ran by {len(messages)} messages: {sorted(messages)}")
    return wrong


def _must(oracle: Oracle, runs: dict[str, list[Run]], dead: AbstractSet[str]) -> list[str]:
    """Return what was not done."""
    must = [*(name for name in oracle.ran if name not in dead), *(f"told-{name}" for name in oracle.told if name not in dead)]
    return [f"{name} has not run to its end" for name in must if not any(run.ended is not None for run in runs.get(name, ()))]


def _stored(oracle: Oracle, backend: ResultBackend) -> list[str]:
    """Return what results are others than those of the plain evaluation."""
    wrong = []
    for (name, state), data in zip(oracle.states.items(), backend.get(list(oracle.states)), strict=True):
        meta = {} if data is None else msgspec.json.decode(data)
        if meta.get("status") != state:
            left = "" if meta.get("status") in READY_STATES else "left "
            wrong.append(f"{name} is {left}{meta.get('status')}, not {state}")
        elif state == SUCCESS and meta["result"] != oracle.values[name]:
            wrong.append(f"{name} has the value {meta['result']}, not {oracle.values[name]}")
    return wrong
