"""The checker: it reads the ledger and the acknowledged ids, and asks a plain client only for what is not done."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.chaos.nemeses import GENTLE, SILENCING
from tests.chaos.world import Incident

DYING = 2.0  # seconds from the begin of a task that kills its process to the end of that process
LATE = 3.0  # seconds after an incident, beside the lease, in which a repeat is its consequence


@dataclass(slots=True)
class Run:
    """One run of a task, as the ledger tells it."""

    key: str
    name: str
    pid: int
    node: str
    detail: str
    began: float
    last: float
    ended: float | None = None


@dataclass(slots=True, kw_only=True)
class Findings:
    """What happened to the tasks of one world."""

    acknowledged: int
    done: int
    dead: int
    waiting: int
    lost: list[str] = field(default_factory=list)
    repeats: int = 0
    overlaps: int = 0
    unexplained: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=dict)  # kind of incident -> seconds
    runs: list[Run] = field(default_factory=list)


def read_ledger(path: Path) -> tuple[list[Run], set[str]]:
    """Return all runs, in the order in which they began, and the ids that tasks called themselves."""
    runs: dict[str, Run] = {}
    sent: set[str] = set()
    for line in path.read_text().splitlines():
        if not line.endswith(" ."):
            continue  # its writer was killed in the middle of it
        at, what, key, name, pid, node, detail, _ = line.split(" ")
        if what == "begin":
            # Names are of a process id and a number; a process id may be used again.
            runs[name if name not in runs else f"{name}@{at}"] = Run(key, name, int(pid), node, detail, float(at), float(at))
            continue
        if what == "sent":
            sent.add(detail)
        run = runs.get(name)
        if run is None:
            continue  # its begin was cut
        assert run.key == key, f"the process id {pid} was used again"
        run.last = float(at)
        if what == "end":
            run.ended = float(at)
    return sorted(runs.values(), key=lambda run: run.began), sent


def check(ledger: Path, acks: Path, incidents: Sequence[Incident], *, dead: AbstractSet[str], waiting: int, lease: float) -> Findings:
    """Compare what was promised with what was done."""
    runs, sent = read_ledger(ledger)
    acknowledged = {key for key in acks.read_text().split() if not key.endswith("-flow")} | sent
    incidents = [*incidents, *suicides(runs)]
    by_key: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_key[run.key].append(run)
    done = {key for key, those in by_key.items() if any(run.ended is not None for run in those)}
    findings = Findings(acknowledged=len(acknowledged), done=len(done), dead=len(dead), waiting=waiting, runs=runs)
    missing = acknowledged - done - dead
    if len(missing) > waiting:
        findings.lost = sorted(missing)
    for those in by_key.values():
        _compare(those, incidents, lease, findings)
    findings.recoveries = recoveries(by_key, incidents)
    return findings


def suicides(runs: Iterable[Run]) -> list[Incident]:
    """Return the deaths that tasks died by their own hand: others that ran in the same process died with them."""
    own = (run for run in runs if run.ended is None and run.key.endswith(("-oom", "-poison")))
    return [Incident("suicide", run.node, run.began, run.began + DYING, (run.pid,)) for run in own]


def _compare(runs: list[Run], incidents: Sequence[Incident], lease: float, findings: Findings) -> None:
    """Look at each pair of neighbouring runs of one task; runs of different tries are asked for."""
    for first, second in pairwise(runs):
        if first.last > second.began:
            findings.overlaps += 1
            if not _may_overlap(first, second, incidents):
                findings.unexplained.append(f"overlap: {tell(first)} still ran when {tell(second)} began")
        if first.detail != second.detail:
            continue
        findings.repeats += 1
        if first.ended is not None and not _may_repeat(first, second, incidents, lease):
            findings.unexplained.append(f"repeat: {tell(first)} had ended when {tell(second)} began")


def _may_overlap(first: Run, second: Run, incidents: Iterable[Incident]) -> bool:
    """Answer whether its node was silent for so long that it was taken for dead."""
    return any(i.kind in SILENCING and i.began < second.began and i.ended > first.began - LATE for i in at_node(incidents, first.node))


def _may_repeat(first: Run, second: Run, incidents: Iterable[Incident], lease: float) -> bool:
    """Answer whether something may have come between its end and its acknowledgement."""
    assert first.ended is not None
    latest = min(second.began, first.ended + lease + LATE)
    harm = (i for i in at_node(incidents, first.node) if i.kind not in GENTLE)
    # Or the second was older: its node was stopped just before the task began there, and went on with it before it knew better.
    silence = (i for i in at_node(incidents, second.node) if i.kind in SILENCING)
    return any(i.began < latest and i.ended > first.began - lease for i in (*harm, *silence))


def at_node(incidents: Iterable[Incident], node: str) -> Iterable[Incident]:
    """Return what happened to *node*, or to all."""
    return (i for i in incidents if i.node in {"", node})


def recoveries(by_key: dict[str, list[Run]], incidents: Iterable[Incident]) -> dict[str, list[float]]:
    """Return, by kind of incident, the seconds from a kill to the next run of each task that was killed with it."""
    found: dict[str, list[float]] = defaultdict(list)
    killings = [i for i in incidents if i.killed]
    for those in by_key.values():
        for first, second in pairwise(those):
            if first.ended is not None:
                continue
            for i in killings:
                if first.pid in i.killed and first.began < i.ended and first.last <= i.ended and second.began > i.began:
                    found[i.kind].append(second.began - i.began)
                    break
    return dict(found)


def tell(run: Run) -> str:
    """Return a run in words."""
    ended = f"{run.ended:.3f}" if run.ended is not None else "-"
    return f"{run.key} on {run.node} pid {run.pid} ({run.began:.3f}..{run.last:.3f}, ended {ended})"
