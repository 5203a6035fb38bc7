"""Eager canvases come to what a plain evaluation comes to."""

import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from tests.canvas.generator import canvases
from tests.canvas.plans import Failed, Oracle, built, tasks_of

from umbel import Umbel, chord
from umbel.contrib.testing.worker import start_worker
from umbel.exceptions import ChordError


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(plan=canvases())
def test_any_canvas_comes_to_what_a_plain_evaluation_comes_to(plan):
    called = []
    with Umbel("gen", broker="memory://gen", backend=f"memory://{uuid.uuid4().hex}", set_as_current=False) as app:
        app.conf.task_store_eager_result = True
        tasks = tasks_of(app, called)
        oracle = Oracle()
        expected = oracle.value_of(plan)
        found = built(plan, tasks).apply(throw=False)
        try:
            value = None if found is None else found.get()
        except Exception:
            value = Failed()
        states = {key: app.AsyncResult(key).state for key in oracle.states}
    ran = sorted(each for each in called if not each.startswith("told "))
    assert ran == sorted(oracle.ran)
    assert sorted(each.removeprefix("told ") for each in called if each.startswith("told ")) == sorted(oracle.told)
    assert states == oracle.states
    if found is not None:
        assert value == expected


def test_a_chord_whose_member_failed_raises_what_the_member_raised_as_it_does_behind_a_worker():
    with Umbel("raising", broker=f"memory://{uuid.uuid4().hex}", backend="memory://", set_as_current=False) as app:
        fails = app.task(name="fails", typing=False)(lambda *_: 1 / 0)
        total = app.task(name="total")(sum)
        canvas = chord([fails.s()], total.s()) | total.s()
        eager = canvas.apply()
        with start_worker(app, perform_ping_check=False):
            sent = canvas.apply_async()
            for result in (sent, eager):
                with pytest.raises(ZeroDivisionError):
                    result.get(timeout=20)
                with pytest.raises(ChordError):
                    result.get(timeout=20, follow_parents=False)
                assert isinstance(result.result, ChordError)
