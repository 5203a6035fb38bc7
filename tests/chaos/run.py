"""One chaos run of one seed; many of them, and their table, with `make chaos`.

python -m tests.chaos.run --seeds 20 --seconds 120 --driver redis,sqlite
"""

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tests.chaos.checker import Findings, check
from tests.chaos.flows import Flows, Waiting, check_flows, kept_ids, named, sent_flows
from tests.chaos.nemeses import NEMESES, Nemesis
from tests.chaos.world import POOLS, QUEUES, World
from tests.faults.conftest import goes_by

KINDS = ("quick", "bulk", "long", "very_long", "coro", "hog", "flaky", "delayed", "links", "flow", "bomb", "oom", "poison")
FINAL = {"SUCCESS", "FAILURE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one seed means. The same seed attacks in the same order; what the machine makes of it may differ."""

    seed: int
    driver: str
    seconds: float
    lease: float
    pools: tuple[str, ...]
    pace: float = 25.0
    kinds: tuple[str, ...] = KINDS
    nemeses: tuple[str, ...] = ()  # kinds; all that fit by default


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came out."""

    plan: Plan
    findings: Findings
    flows: Flows
    nemeses: tuple[str, ...]
    wrong: list[str]


def plan_of(
    seed: int, driver: str, *, seconds: float, lease: float | None = None, pools: Sequence[str] = (), kinds: Sequence[str] = ()
) -> Plan:
    """Draw from *seed* what is not given."""
    chance = random.Random(seed)
    drawn = tuple(chance.choice(POOLS) for _ in range(chance.choice((2, 3))))
    return Plan(
        seed=seed,
        driver=driver,
        seconds=seconds,
        lease=lease or chance.choice((2.0, 3.0, 5.0)),
        pools=tuple(pools) or drawn,
        kinds=tuple(kinds) or KINDS,
    )


def run(plan: Plan, folder: Path) -> Report:
    """Let the world of *plan* run, attack it, let it come to rest, and check."""
    with World(
        folder=folder, driver=plan.driver, seed=plan.seed, lease=plan.lease, pools=plan.pools, pace=plan.pace, kinds=plan.kinds
    ) as world:
        names = {plan.driver, plan.driver.partition("+")[0]}
        fits = [n for n in NEMESES if names & set(n.drivers) and set(n.pools) & set(plan.pools) and n.kind in (plan.nemeses or {n.kind})]
        _attack(world, [nemesis(world) for nemesis in fits], plan.seconds)
        wrong = world.wrong + _rest(world)
        (folder / "incidents").write_text("".join(f"{incident}\n" for incident in world.incidents))
        letters = [letter for queue in QUEUES for letter in world.broker.dead(queue, limit=100_000)]
        dead = {letter.id for letter in letters}
        waiting = sum((d.ready or 0) + (d.delayed or 0) + (d.claimed or 0) + (d.parked or 0) for d in world.depths())
        findings = check(world.ledger, world.acks, world.incidents, dead=dead, waiting=waiting, lease=plan.lease)
        wrong += _results(world, findings)
        flows = check_flows(findings.runs, sent_flows(world.acks), named(letters), world.backend)
    if findings.lost:
        wrong.append(f"lost {len(findings.lost)}: {findings.lost[:10]}")
    wrong += findings.unexplained + flows.wrong
    return Report(plan=plan, findings=findings, flows=flows, nemeses=tuple(i.kind for i in world.incidents), wrong=wrong)


def _attack(world: World, nemeses: Sequence[Nemesis], seconds: float) -> None:
    """Attack one after the other, each kind once in a shuffled round, with pauses."""
    end_at = time.monotonic() + seconds
    left: list[Nemesis] = []
    while time.monotonic() < end_at:
        if not left:
            left = world.chance.sample(list(nemeses), len(nemeses))
        left.pop().attack()
        world.mend()
        goes_by(world.chance.uniform(0.1, 1.5))


def _rest(world: World) -> list[str]:
    """Let all calls come to their end, stop the workers, and return what did not end as it should."""
    world.quiet_producers()
    wrong = []
    if not world.drain(Waiting(world.acks, world.backend).is_over):
        wrong.append(f"stuck: nothing happens any more, and there are still {world.depths()}")
    return wrong + world.stop_nodes()


def _results(world: World, findings: Findings) -> list[str]:
    """Each acknowledged call that keeps a result must have a final one."""
    ids = kept_ids(world.acks)
    wrong = []
    for at in range(0, len(ids), 500):
        batch = ids[at : at + 500]
        for key, meta in zip(batch, world.backend.get(batch), strict=True):
            state = None if meta is None else msgspec.json.decode(meta)["status"]
            if state not in FINAL:
                wrong.append(f"result of {key}: {state}")
    return [] if findings.waiting else wrong[:10]


def repeat_command(plan: Plan) -> str:
    """Return how to run *plan* again."""
    return (
        f"make chaos SEED={plan.seed} DRIVER={plan.driver} SECONDS={plan.seconds:g} LEASE={plan.lease:g} POOLS={','.join(plan.pools)}"
        + ("" if plan.kinds == KINDS else f" KINDS={','.join(plan.kinds)}")
    )


HEAD = (
    "seed",
    "driver",
    "pools",
    "lease",
    "attacks",
    "acked",
    "done",
    "dead",
    "lost",
    "repeats",
    "overlaps",
    "workflows",
    "ended",
    "node p50/p99/max s",
    "child max s",
    "wrong",
)


def row_of(report: Report) -> tuple[str, ...]:
    f = report.findings
    node = [s for kind, times in f.recoveries.items() if kind in {"kill-node", "kill-parent"} for s in times]
    child = f.recoveries.get("kill-child", [])
    return (
        str(report.plan.seed), report.plan.driver, ",".join(report.plan.pools), f"{report.plan.lease:g}", str(len(report.nemeses)),
        str(f.acknowledged), str(f.done), str(f.dead), str(len(f.lost)), str(f.repeats), str(f.overlaps),
        str(report.flows.sent), str(report.flows.ended), spread(node), f"{max(child):.2f}" if child else "-", str(len(report.wrong)),
    )  # fmt: skip


def spread(times: Sequence[float]) -> str:
    if not times:
        return "-"
    ordered = sorted(times)
    return f"{statistics.median(ordered):.1f}/{ordered[int(len(ordered) * 0.99)]:.1f}/{ordered[-1]:.1f}"


def show(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (HEAD, ["---"] * len(HEAD), *rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--seconds", type=float, default=120, help="how long each seed is attacked")
    parser.add_argument("--driver", default="redis,sqlite,postgresql", help="names with commas; the seeds take turns")
    parser.add_argument("--lease", type=float, help="seconds; drawn from the seed by default")
    parser.add_argument("--pools", default="", help="one per node, names with commas; drawn from the seed by default")
    parser.add_argument("--kinds", default="", help="of calls, names with commas; all by default")
    parser.add_argument("--keep", type=Path, help="a folder for ledgers and logs; those of a seed that fails are kept in any case")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started is ended in any case
    drivers = options.driver.split(",")
    seeds = [options.seed] if options.seed is not None else list(range(options.first, options.first + options.seeds))
    reports = []
    for seed in seeds:
        progress(len(reports), len(seeds), options.seconds)
        pools, kinds = ([name for name in names.split(",") if name] for names in (options.pools, options.kinds))
        plan = plan_of(seed, drivers[seed % len(drivers)], seconds=options.seconds, lease=options.lease, pools=pools, kinds=kinds)
        folder = Path(tempfile.mkdtemp(prefix=f"umbel-chaos-{seed}-", dir=options.keep))
        report = run(plan, folder)
        reports.append(report)
        if report.wrong:
            print(f"\nseed {seed} failed; its ledger and logs are in {folder}\n  " + "\n  ".join(report.wrong[:20]))
            print(f"again: {repeat_command(plan)}", flush=True)
        else:
            shutil.rmtree(folder)
    progress(len(seeds), len(seeds), options.seconds)
    print(show([row_of(report) for report in reports]))
    return 1 if any(report.wrong for report in reports) else 0


def progress(done: int, of: int, seconds: float) -> None:
    """Draw a bar, if somebody looks at it."""
    if sys.stderr.isatty():
        width = 40 * done // of
        left = (of - done) * (seconds + 15) / 60
        print(f"\r[{'#' * width}{'.' * (40 - width)}] {done}/{of} seeds, about {left:.0f} min left ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
