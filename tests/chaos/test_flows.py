"""The checker of workflows sees what must not be."""

import contextlib
import uuid
from dataclasses import replace

import pytest
from tests.canvas.plans import Namer, Oracle, names_in
from tests.chaos.checker import Run
from tests.chaos.flows import check_flows, plan_of

from umbel.backend import Record
from umbel.drivers import open_backend
from umbel.meta import build_meta, encode_meta
from umbel.states import FAILURE, SUCCESS

KEY = next(key for key in (f"p1-{number}-flow" for number in range(1000)) if (plan := plan_of(key))[0] == "chord" and "fail" in str(plan))


@pytest.fixture
def backend():
    with contextlib.closing(open_backend(f"memory://{uuid.uuid4().hex}")) as backend:
        yield backend


@pytest.fixture
def oracle():
    found = Oracle(Namer(f"{KEY}."))
    found.value_of(plan_of(KEY))
    return found


@pytest.fixture
def runs(oracle, backend):
    """What a run of the workflow leaves behind that goes as it should."""
    for name, state in oracle.states.items():
        document = build_meta(name, state, oracle.values[name] if state == SUCCESS else ValueError("no"))
        backend.store([Record(id=name, state=state, meta=encode_meta(document))])
    names = [*oracle.ran, *(f"told-{name}" for name in oracle.told)]
    return [Run(name, str(number), 1, "n1", "id/copy", number, number, number + 0.5) for number, name in enumerate(names)]


def check(runs, backend, dead=()):
    return check_flows(runs, {KEY}, set(dead), backend)


def test_a_workflow_that_went_as_it_should_has_ended(runs, backend):
    flows = check(runs, backend)
    assert (flows.sent, flows.ended, flows.wrong) == (1, 1, [])


def test_a_task_may_run_again_but_not_by_another_message(runs, backend):
    assert check([*runs, replace(runs[0], name="again")], backend).wrong == []
    (wrong,) = check([*runs, replace(runs[0], name="again", detail="id/other")], backend).wrong
    assert "ran by 2 messages" in wrong


def test_a_body_of_what_failed_must_not_run(oracle, runs, backend):
    body = f"{KEY}.t{names_in(plan_of(KEY))}"
    assert oracle.states[body] == FAILURE
    (wrong,) = check([*runs, replace(runs[0], key=body)], backend).wrong
    assert wrong == f"workflow {KEY}: {body} ran, and should not"


def test_an_errback_that_was_never_told_and_a_run_without_an_end_are_seen(runs, backend):
    flows = check([*runs[:-2], replace(runs[-2], ended=None)], backend)
    assert [each.endswith("has not run to its end") for each in flows.wrong] == [True, True]
    assert flows.ended == 0


def test_a_task_without_an_end_and_another_value_are_seen(oracle, runs, backend):
    backend.forget([oracle.ran[0]])
    flows = check(runs, backend)
    assert [f"{oracle.ran[0]} is left None" in each for each in flows.wrong] == [True]
