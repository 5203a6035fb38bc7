"""The same canvases, run by Celery and its worker, and by umbel and its own: values, states and calls are the same.

Where they are not, that is a row of `docs/from-celery.md`, and `alike` says which.
"""

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from tests.canvas.generator import SIMPLE, canvases

pytestmark = [pytest.mark.redis, pytest.mark.timeout(600)]
SOME, FEW, MANY = 3, 30, 150

A = ("grow", True)
LIST = ("chain", (A, ("group", (A, A))))
# Members that end with a group, of which the generator makes few. Celery's worker needs a second for each such chord.
LISTS = [
    ("chord", (LIST, A), ("grow", False)),
    ("chord", (LIST,), ("grow", False)),
    ("chord", (LIST, LIST, A), ("grow", False)),
    ("chord", (("chain", (A, ("group", (LIST, A)))), A), ("grow", False)),
    ("chord", (("chord", (A, A), ("group", (A, A))), A), ("grow", False)),
    ("chord", (("chord", (LIST, A), ("group", (A, ("instead", False)))), A), ("grow", False)),
    ("chord", (("group", (LIST, A)), A), ("grow", False)),
    ("chord", (("chain", (A, ("group", (A, ("chain", (A, A)))))), A), ("group", (("grow", False), ("grow", False)))),
    ("chord", (("chain", (A, ("group", (A, ("fail", True))))), A), ("grow", False)),
    ("chain", (("group", (LIST, A)), ("grow", False))),
    ("chain", (A, ("group", (("chain", (("again", False), ("group", (A, A)))), A)), ("grow", False), ("grow", False))),
]


def plans_of(count):
    """The first plans that the generator makes, always the same, without those of which `docs/from-celery.md` says that they differ."""
    found = []

    @settings(max_examples=count * 12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(canvases(depth=3, kinds=SIMPLE))
    def collect(plan):
        if plan not in found and not any(anywhere(plan, differs) for differs in (is_empty, has_a_chord_in_a_list, has_chain_of_one_behind)):
            found.append(plan)

    collect()
    return found[:count]


def parts_of(plan):
    return (*plan[1], *plan[2:]) if plan[0] in {"chain", "group", "chord"} else ()


def anywhere(plan, question):
    return question(plan) or any(anywhere(each, question) for each in parts_of(plan))


def is_empty(plan):
    return plan[0] in {"chain", "group", "chord"} and not plan[1]


def ends_in_group(plan):
    return plan[0] == "group" or (plan[0] == "chain" and ends_in_group(plan[1][-1])) or (plan[0] == "chord" and ends_in_group(plan[2]))


def is_nested_group(plan):
    """Celery reverses the values of a group in a group."""
    return plan[0] in {"group", "chord"} and any(map(ends_in_group, plan[1]))


def has_a_group(plan):
    return ends_in_group(plan) or plan[0] == "chord"


def follows_a_group(plan):
    """Celery leaves results out of the parents where a group, also the header of a chord, follows a group, also one in a body."""
    if plan[0] == "chord":
        return anywhere(plan[2], lambda each: each[0] in {"group", "chord"})
    return plan[0] == "chain" and sum(anywhere(each, has_a_group) for each in plan[1]) > 1


def last_group(plan):
    return plan if plan[0] == "group" else last_group(plan[2] if plan[0] == "chord" else plan[1][-1])


def is_chord(plan):
    return plan[0] == "chord" or (plan[0] == "chain" and any(each[0] == "group" for each in plan[1][:-1]))


def has_a_chord_in_a_list(plan):
    """Celery never ends a chord on Redis if there is another in the group with which one of its members ends."""
    groups = [each for each in plan[1][:-1] if each[0] == "group"] if plan[0] == "chain" else [plan]
    members = [each for one in groups for each in one[1]] if is_chord(plan) else []
    return any(each[0] != "group" and ends_in_group(each) and anywhere(last_group(each), is_chord) for each in members)


def has_chain_of_one_behind(plan):
    """Celery does not tell the errbacks of a body that is a chain of one step."""
    return plan[0] == "chord" and plan[2][0] == "chain" and len(plan[2][1]) == 1


def flat(value):
    return value["members"] if isinstance(value, dict) and "members" in value and value.get("before") is None else [value]


def unordered(value):
    """Sort all lists, take a group of one for its member, and the members of a group in a group for members of that."""
    if isinstance(value, list):
        return sorted((each for one in map(unordered, value) for each in flat(one)), key=json.dumps)
    if not isinstance(value, dict):
        return value
    if len(value.get("members") or ()) == 1 and value.get("before") is None:
        return unordered(value["members"][0])
    return {key: unordered(each) for key, each in value.items()}


def without_parents(value):
    if isinstance(value, list):
        return [without_parents(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: without_parents(each) for key, each in value.items() if key != "before"}


def alike(plan, shape):
    """Leave out what differs for a reason that `docs/from-celery.md` has."""
    if anywhere(plan, follows_a_group):
        shape = without_parents(shape)
    if anywhere(plan, is_nested_group) or anywhere(plan, follows_a_group):
        shape = unordered(shape)
    return shape


def once_each(calls):
    """Count an errback of a whole canvas once: umbel tells it once of one failure, Celery for each place that it was put to."""
    return Counter({what: 1 if what.endswith(".whole") else count for what, count in calls.items()})


def run(fleet, library, plans, patience):
    path = fleet.folder / "plans.json"
    path.write_text(json.dumps(plans))
    how = {"imports": ["canvas_fleet"]}
    with fleet.worker(library, *(["-P", "solo"] if library == "umbel" else []), **how):
        script = fleet.begin(library, f"import canvas_fleet; canvas_fleet.run({str(path)!r}, {patience})", **how)
        out, err = script.communicate(timeout=120)
        assert script.returncode == 0, f"{err}\n{fleet.tails()}"
    shapes = [json.loads(line) for line in out.splitlines()]
    calls = [Counter() for _ in plans]
    for _, what in fleet.ledger():
        number = what.removeprefix("told ").split(".")[0]
        if number.isdecimal():
            calls[int(number)][what] += 1
    return list(zip(plans, shapes, calls, strict=True))


def differences(new_fleet, lists, count, patience):
    plans = [*lists, *plans_of(count)]
    assert len(plans) == len(lists) + count
    ours, theirs = (run(new_fleet(), library, plans, patience) for library in ("umbel", "celery"))
    found, compared = [], 0
    for number, ((plan, own, own_calls), (_, their, their_calls)) in enumerate(zip(ours, theirs, strict=True)):
        assert "unfinished" not in (own or {}), (plan, own)
        if "unfinished" in (their or {}):  # a group behind a failure, of which Celery does not always tell
            assert "FAILURE" in json.dumps(own), plan
            continue
        compared += 1
        if alike(plan, own) != alike(plan, their) or once_each(own_calls) != once_each(their_calls):
            found.append((number, plan, {"umbel": own, "celery": their}, own_calls - their_calls, their_calls - own_calls))
    assert compared > len(plans) * 0.8
    return found


def test_canvases_come_to_the_same_as_with_celery(new_fleet):
    assert differences(new_fleet, LISTS[:SOME], FEW, 3) == []


@pytest.mark.slow
def test_many_canvases_come_to_the_same_as_with_celery(new_fleet):
    assert differences(new_fleet, LISTS, MANY, 8) == []
