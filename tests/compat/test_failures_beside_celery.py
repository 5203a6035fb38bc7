"""Canvases that fail, run by Celery and by umbel: states, texts of errors, and what errbacks are given.

Where they differ, that is a row of `docs/from-celery.md`: what Celery leaves unfinished, the cause of a ChordError, a traceback.
"""

import json
import re

import pytest
from tests.compat.test_workflows_beside_celery import alike, anywhere, plans_of

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]
COUNT, FEWEST = 60, 30
CAUSE = re.compile(r" from .*(?= (True|False)$)")


def failing():
    """Plans in which something fails."""
    return [plan for plan in plans_of(240) if anywhere(plan, lambda each: each[0] == "fail")][:COUNT]


def run(fleet, library, plans):
    path = fleet.folder / "plans.json"
    path.write_text(json.dumps(plans))
    how = {"imports": ["canvas_fleet"]}
    with fleet.worker(library, *(["-P", "solo"] if library == "umbel" else []), **how):
        script = fleet.begin(library, f"import canvas_fleet; canvas_fleet.run({str(path)!r}, 6, told_what=True)", **how)
        out, err = script.communicate(timeout=120)
        assert script.returncode == 0, f"{err}\n{fleet.tails()}"
    heard = [[] for _ in plans]
    for _, what in fleet.ledger():
        if what.startswith("hears"):
            heard[int(what.split()[1].split(".")[0])].append(what)
    return [json.loads(line) for line in out.splitlines()], [sorted(each) for each in heard]


def given(heard):
    """What errbacks were given, without the cause of a ChordError and without whether there was a traceback."""
    return [CAUSE.sub("", each).rsplit(" ", 1)[0] if each.startswith("hears_all") else each for each in heard]


def test_failures_say_the_same_as_with_celery(new_fleet):
    plans = failing()
    (ours, own_heard), (theirs, their_heard) = (run(new_fleet(), library, plans) for library in ("umbel", "celery"))
    different, compared = [], 0
    for plan, own, their, heard, heard_there in zip(plans, ours, theirs, own_heard, their_heard, strict=True):
        assert "unfinished" not in own, (plan, own)
        if "unfinished" not in their:
            compared += 1
            if alike(plan, own) != alike(plan, their) or given(heard) != given(heard_there):
                different.append((plan, {"umbel": (own, heard), "celery": (their, heard_there)}))
    assert different == []
    assert compared >= FEWEST
