"""Calls with a key: the first is sent."""

import asyncio
import json

import pytest

from umbel import Celery, chain, chord, group, uuid
from umbel.exceptions import NotSupported


@pytest.fixture(params=["umbel", "embedded"])
def app(request):
    place = f"memory://{uuid()}"
    with Celery("once", broker=place, backend=place, set_as_current=False) as app:
        if request.param == "embedded":
            app.conf.task_canvas_embed = True
        yield app


@pytest.fixture
def add(app):
    @app.task(name="add")
    def add(x, y=0):
        return x + y

    return add


def ready(app):
    return app.broker.depth(["celery"])["celery"].ready


def test_the_same_key_within_its_time_sends_once_however_it_is_called(app, add):
    add.apply_async((1,), once_key="report@2026-03-29", once_for=60)
    add.apply_async((2,), once_key="report@2026-03-29", once_for=60)
    add.s(3).apply_async(once_key="report@2026-03-29", once_for=60)
    add.s(4).set(once_key="report@2026-03-29", once_for=60).delay()
    app.send_task("add", (5,), once_key="report@2026-03-29", once_for=60)
    add.delay_many([((6,), {})], once_key="report@2026-03-29", once_for=60)
    asyncio.run(add.aapply_async((7,), once_key="report@2026-03-29", once_for=60))
    assert ready(app) == 1
    add.apply_async((1,), once_key="report@2026-03-30", once_for=60, countdown=60)
    add.apply_async((1,), once_key="report@2026-03-30", once_for=60)
    assert ready(app) == 1
    assert app.broker.depth(["celery"])["celery"].delayed == 1


def test_a_key_is_no_part_of_the_message(app, add):
    add.apply_async((1,), task_id="one", once_key="report", once_for=60)
    add.apply_async((1,), task_id="one")
    app.broker.join("w", ["celery"], lease=60)
    first, second = (json.loads(each.raw) for each in app.broker.fetch("celery", 2, owner="w", seq=1))
    assert first["headers"].keys() == second["headers"].keys()
    assert b"report" not in json.dumps(first).encode()


@pytest.mark.parametrize("options", [{"once_key": "a"}, {"once_key": "a", "once_for": 0}, {"once_key": "a", "once_for": float("inf")}])
def test_for_how_long_a_key_is_remembered_must_be_said(app, add, options):
    with pytest.raises(ValueError, match="Say for how many seconds"):
        add.apply_async((1,), **options)
    assert ready(app) == 0


@pytest.mark.parametrize("key", ["", 7, "x" * 5000, "a\0b", None])
def test_a_key_is_a_text(app, add, key):
    with pytest.raises(ValueError, match="once_key is"):
        add.apply_async((1,), once_key=key, once_for=60)
    assert ready(app) == 0


def test_a_part_of_a_workflow_has_no_key(app, add):
    keyed, plain = add.s(1).set(once_key="a", once_for=60), add.s(2)
    canvases = (chain(keyed, plain), chain(plain, keyed), group(keyed, plain), chord([plain, plain], keyed), chord([keyed], plain))
    for canvas in canvases:
        with pytest.raises(ValueError, match="Only a single task can be left out"):
            canvas.delay()
    with pytest.raises(ValueError, match="Only a single task can be left out"):
        add.apply_async((1,), link=plain, once_key="a", once_for=60)
    with pytest.raises(ValueError, match="Only a single task can be left out"):
        add.apply_async((1,), link=keyed)
    assert ready(app) == 0


@pytest.mark.parametrize("state", [None, "memory://"])
def test_a_key_is_refused_by_a_broker_that_remembers_none(state):
    pytest.importorskip("pika")
    with Celery("once", broker="amqp://127.0.0.1:1//", set_as_current=False) as app:
        app.conf.umbel_state_url = state
        with pytest.raises(NotSupported, match="redis://"):
            app.send_task("add", once_key="a", once_for=60)


def test_an_eager_call_runs_each_time(app, add):
    app.conf.task_always_eager = True
    assert [add.apply_async((n,), once_key="a", once_for=60).get() for n in (1, 2)] == [1, 2]
