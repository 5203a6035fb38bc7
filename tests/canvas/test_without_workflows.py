"""Where the result backend keeps no workflows, `rpc://` or none: what travels in messages works, all else is refused at the call."""

import json
import os
import sys
import uuid
from pathlib import Path

import pytest
from tests.canvas.plans import CallsInFile
from tests.processes import Running, wait_for
from tests.rabbitmq import delete_queues

from umbel import Umbel, chain, chord, group

APPS = Path(__file__).parent / "apps"
PATIENCE = 10
REFUSED = r"waits for several tasks .* keeps no workflows\. Set result_backend"


def tasks_of(app):
    add, total, fails, mark, note, instead = (
        app.signature(f"rpc_app.{name}") for name in ("add", "total", "fails", "mark", "note", "instead")
    )
    return add, total, fails, mark, note, instead


@pytest.fixture(scope="module")
def rpc(amqp_url, tmp_path_factory):
    """A worker in a process of its own, an app that sends to it, and what its tasks wrote."""
    folder, queue = tmp_path_factory.mktemp("rpc"), f"rpc-{uuid.uuid4().hex[:8]}"
    conf = {"broker": amqp_url, "backend": "rpc://", "task_default_queue": queue}
    env = {**os.environ, "CANVAS_SETTINGS": json.dumps(conf), "CANVAS_CALLS": str(folder / "calls"), "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "umbel", "-A", "rpc_app:app", "worker", "-l", "INFO", "-P", "threads", "-c", "2"]
    (folder / "calls").touch()
    try:
        with Running(command, cwd=APPS, env=env, log=folder / "log") as worker, Umbel("sender", **conf, set_as_current=False) as app:
            worker.waits_to_print(" ready.", 30)
            yield app, CallsInFile(folder / "calls")
    finally:
        delete_queues(amqp_url, queue)


def canvases(app):
    add, _, _, _, _, instead = tasks_of(app)

    def plus(*numbers):
        return add.clone(numbers)

    def of(sig):
        return instead.clone((sig,))

    return {
        "chain": (plus(1, 2) | plus(3) | plus(4), 10),
        "group": (group(plus(1, 2), plus(3, 4)), [3, 7]),
        "group of chains": (group(plus(1, 2) | plus(1), plus(3, 4) | plus(2)), [4, 9]),
        "group behind a task": (plus(1, 2) | group(plus(1), plus(2) | plus(1)), [4, 6]),
        "chunks": (app.signature("celery.starmap", kwargs={"task": plus(), "it": [(1, 2), (3, 4)]}), [3, 7]),
        "replaced by a task": (of(plus(1, 2)), 3),
        "replaced by a chain": (of(plus(1, 2) | plus(3)), 6),
        "replaced in a chain": (of(plus(1, 2)) | plus(10) | plus(1), 14),
        "replaced by a chain in a chain": (of(plus(1, 2) | plus(3)) | plus(10), 16),
        "replaced twice": (of(of(plus(1, 2)) | plus(1)) | plus(10), 14),
        "replaced in a group": (group(of(plus(1, 2) | plus(1)), plus(1, 1)), [4, 2]),
    }


@pytest.mark.amqp
@pytest.mark.parametrize("name", canvases(Umbel("names", set_as_current=False)))
def test_what_waits_for_nobody_comes_to_its_value(rpc, name):
    canvas, value = canvases(rpc[0])[name]
    assert canvas.apply_async().get(timeout=PATIENCE) == value


@pytest.mark.amqp
def test_callbacks_that_are_canvases_run_also_after_a_replacement(rpc):
    app, called = rpc
    add, _, _, mark, _, instead = tasks_of(app)
    for name, sig in (("plain", add.clone((1, 2))), ("replaced", instead.clone((add.clone((1, 2)),)))):
        links = [add.clone((5,)) | mark.clone((f"{name} chain",)), group(mark.clone((f"{name} group",)), mark.clone((f"{name} other",)))]
        assert sig.apply_async(link=links).get(timeout=PATIENCE) == 3
        wanted = {f"{name} chain 8", f"{name} group 3", f"{name} other 3"}
        wait_for(lambda: wanted <= set(called), PATIENCE, lambda: list(called))  # noqa: B023 - called here
    assert len([each for each in called if each.endswith((" 8", " 3"))]) == 6


@pytest.mark.amqp
def test_a_failure_ends_all_steps_behind_it_at_once_and_is_told_once(rpc):
    app, called = rpc
    add, _, fails, _, note, instead = tasks_of(app)
    replaced = instead.clone((add.clone((1, 2)) | fails,)) | add.clone((1,))
    for count, canvas in enumerate((add.clone((1, 2)) | fails | add.clone((1,)) | add.clone((2,)), replaced), start=1):
        result = canvas.on_error(note).apply_async()
        with pytest.raises(ValueError, match="no"):
            result.get(timeout=PATIENCE, follow_parents=False)
        wait_for(lambda: len(told_of(called)) == count, PATIENCE, lambda: list(called))  # noqa: B023 - called here
    assert add.clone((1, 2)).apply_async().get(timeout=PATIENCE) == 3
    assert len(set(told_of(called))) == 2


def told_of(called):
    return [each for each in called if each.startswith("told of")]


@pytest.mark.amqp
def test_a_task_cannot_be_replaced_by_what_waits_for_several_and_says_so(rpc):
    add, total, _, _, _, instead = tasks_of(rpc[0])
    for sig in (chord([add.clone((1, 1))], total), group(add.clone((1, 1)), add.clone((2, 2)))):
        with pytest.raises(NotImplementedError, match=REFUSED):
            instead.clone((sig,)).apply_async().get(timeout=PATIENCE)


@pytest.fixture(params=["rpc://", "disabled://"])
def app(request, monkeypatch):
    """An app that must send nothing."""
    broker = "amqp://guest@127.0.0.1:1//" if request.param == "rpc://" else f"memory://{uuid.uuid4()}"
    with Umbel("refusing", broker=broker, backend=request.param, set_as_current=False) as app:
        app.task(name="t", typing=False)(lambda *args: args)
        monkeypatch.setattr(app.broker, "publish", lambda items, **_: pytest.fail(f"{items} were sent"))
        yield app


def joining(t):
    """Name canvases in which something waits for several tasks."""
    pair = [t.s(1), t.s(2)]
    return {
        "chord": chord(pair, t.s()),
        "group and then": group(pair) | t.s(),
        "group in a chain": t.s(1) | group(pair) | t.s(),
        "chord behind a task": chain(t.s(1), chord(pair, t.s())),
        "chord in a group": group(t.s(1), chord(pair, t.s())),
        "chord in a chord": chord([chord(pair, t.s())], t.s()),
        "linked chord": t.s(1).set(link=chord(pair, t.s())),
        "linked late": t.s(1) | t.s(2).set(link=t.s(3) | group(pair) | t.s()),
    }


@pytest.mark.parametrize("name", joining(Umbel("names", set_as_current=False).task(name="t", typing=False)(lambda *args: args)))
def test_what_waits_for_several_tasks_is_refused_at_the_call_wherever_it_stands(app, name):
    with pytest.raises(NotImplementedError, match=REFUSED):
        joining(app.tasks["t"])[name].apply_async()


def test_a_group_is_not_saved_without_a_store_and_says_so(app):
    from umbel.result import AsyncResult, GroupResult

    members = GroupResult("g", [AsyncResult("m", app=app)], app=app)
    for call in (members.save, members.delete, lambda: GroupResult.restore("g", app=app)):
        with pytest.raises(NotImplementedError, match="groups that are saved need a backend that does"):
            call()
