"""Workers of Celery and of umbel on the same queue at once: whichever of them runs which step, a canvas comes to the same.

What is compared with is what umbel's workers alone make of it. What the canvases of `tests.canvas.generator` that are tried here come to
with Celery alone, `test_workflows_beside_celery.py` compares. Where a step failed, a worker of Celery may leave a part of the rest
unfinished, and errbacks untold, as it does alone; but nobody is told who is not to be, and nearly all come to the same.
"""

import json
from collections import Counter
from contextlib import ExitStack

import pytest
from tests.compat.test_workflows_beside_celery import alike, once_each, plans_of, run
from tests.rabbitmq import delete_queues

pytestmark = [pytest.mark.redis, pytest.mark.timeout(600)]
FEW, MANY = 8, 110
PRODUCERS = [("celery", {}), ("umbel", {"task_canvas_embed": True})]


def run_mixed(fleet, producer, plans, patience, workers=("celery", "celery", "umbel")):
    """What the plans come to, who was called, and how much was done by whose worker."""
    path = fleet.folder / "plans.json"
    path.write_text(json.dumps(plans))
    how = {"imports": ["canvas_fleet"]}
    with ExitStack() as stack:
        for number, library in enumerate(workers):
            options = ["-n", f"{number}@here", *(["-P", "solo"] if library == "umbel" else [])]
            stack.enter_context(fleet.worker(library, *options, **how)).waits_to_print("ready.")
        script = fleet.begin(producer, f"import canvas_fleet; canvas_fleet.run({str(path)!r}, {patience})", **how)
        out, err = script.communicate(timeout=240)
        assert script.returncode == 0, f"{err}\n{fleet.tails()}"
    shapes = [json.loads(line) for line in out.splitlines()]
    calls, who = [Counter() for _ in plans], Counter()
    for library, what in fleet.ledger():
        who[library] += 1
        number = what.removeprefix("told ").split(".")[0]
        if number.isdecimal():
            calls[int(number)][what] += 1
    return list(zip(shapes, calls, strict=True)), who


def differences(expected, found):
    """Return what is not as it is with umbel's workers alone. *found* of canvases with a failure: what nobody was to be told."""
    different, tried, same = [], 0, 0
    for number, ((plan, own, own_calls), (got, calls)) in enumerate(zip(expected, found, strict=True)):
        told, to_tell = once_each(calls), once_each(own_calls)
        equal = alike(plan, own) == alike(plan, got) and to_tell == told
        if "FAILURE" in json.dumps(own):
            tried, same = tried + 1, same + equal
            equal = not told - to_tell
        if not equal:
            different.append((number, plan, {"alone": own, "mixed": got}, to_tell - told, told - to_tell))
    assert tried - same <= max(2, tried * 0.3), f"of {tried} canvases with a failure only {same} came to the same"
    return different


def test_any_worker_runs_any_step_of_a_few_canvases_of_celery(new_fleet):
    plans = plans_of(FEW)
    found, _ = run_mixed(new_fleet(), "celery", plans, 3, ["celery", "umbel"])
    assert differences(run(new_fleet(), "umbel", plans, 3), found) == []


@pytest.fixture(scope="module")
def alone(new_fleet):
    return run(new_fleet(), "umbel", plans_of(MANY), 8)


@pytest.mark.slow
@pytest.mark.parametrize(("producer", "conf"), PRODUCERS, ids=["celery", "umbel"])
def test_any_worker_runs_any_step_of_many_canvases(new_fleet, alone, producer, conf):
    found, who = run_mixed(new_fleet(**conf), producer, plans_of(MANY), 8)
    assert differences(alone, found) == []
    assert min(who["celery"], who["umbel"]) > 40, f"one worker did it all: {who}"


@pytest.mark.slow
@pytest.mark.amqp
@pytest.mark.parametrize(("producer", "conf"), PRODUCERS, ids=["celery", "umbel"])
def test_any_worker_runs_any_step_of_many_canvases_on_rabbitmq(new_fleet, alone, amqp_url, producer, conf):
    delete_queues(amqp_url, "celery")
    fleet = new_fleet(task_default_queue_type="quorum", worker_prefetch_multiplier=1, **conf)
    fleet.results, fleet.url = fleet.url, amqp_url
    found, who = run_mixed(fleet, producer, plans_of(MANY), 8)
    delete_queues(amqp_url, "celery")
    assert differences(alone, found) == []
    assert min(who["celery"], who["umbel"]) > 40, f"one worker did it all: {who}"
