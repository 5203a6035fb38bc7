"""What a worker sends in a workflow has the priority of the task before it, if `task_inherit_parent_priority` says so."""

import json
import uuid

import pytest

from umbel import Umbel, chain, chord, group
from umbel.contrib.testing.worker import start_worker
from umbel.joining import allow_join_result


def priorities(inherits, *canvases, **settings):
    """Run canvases; return the priorities of the messages by the names of their tasks."""
    url, found = f"memory://{uuid.uuid4().hex}", {}
    conf = {"task_inherit_parent_priority": inherits, **settings}
    with Umbel("priorities", broker=url, backend=url, set_as_current=False, **conf) as app:
        tasks = {name: app.task(name=name, typing=False)(lambda *args: 1) for name in "abcdefg"}
        app.task(name="fails", typing=False)(lambda *args: 1 / 0)
        tasks["fails"] = app.tasks["fails"]
        publish = app.broker.publish

        def noted(items, **how):
            for item in items:
                found[json.loads(item.raw)["headers"]["task"]] = item.priority
            return publish(items, **how)

        app.broker.publish = noted
        with start_worker(app), allow_join_result():
            for canvas in canvases:
                result = canvas(tasks).apply_async()
                for each in getattr(result, "results", [result]):
                    each.get(timeout=60, propagate=False)
            assert app.send_task("celery.ping").get(timeout=60) == "pong"
    return found


def steps(t):
    return chain(
        t["a"].s().set(priority=7), t["b"].s(), chord([t["c"].s(), t["d"].s()], t["e"].s()), t["f"].s().set(priority=2), t["g"].s()
    )


@pytest.mark.parametrize("embeds", [False, True])
def test_each_step_and_body_has_the_priority_of_the_task_before_it_but_for_its_own(embeds):
    found = priorities(True, steps, task_canvas_embed=embeds)
    assert {name: found[name] for name in "abcdefg"} == {"a": 7, "b": 7, "c": 7, "d": 7, "e": 7, "f": 2, "g": 2}


def test_without_the_setting_each_has_its_own_or_that_of_its_queue():
    found = priorities(False, steps)
    assert {name: found[name] for name in "abcdefg"} == {"a": 7, "b": 0, "c": 0, "d": 0, "e": 0, "f": 2, "g": 0}


def test_callbacks_and_errbacks_have_it_too():
    def linked(t):
        first, failing = t["a"].s().set(priority=5), t["fails"].s().set(priority=6)
        first.link(t["b"].s())
        return group(first, failing.on_error(t["c"].s()))

    found = priorities(True, linked)
    assert (found["b"], found["c"]) == (5, 6)


def test_it_is_the_number_of_the_broker_that_is_handed_on():
    found = priorities(True, lambda t: chain(t["a"].s().set(priority=7), t["b"].s()), task_priority_direction="high-first")
    assert found["a"] == found["b"]
