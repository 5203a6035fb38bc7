"""The messages of Celery's producers with a chain or callbacks, and ours with `task_canvas_embed`: the same."""

import json
from pathlib import Path

import pytest

from umbel import Umbel, chain
from umbel.wire import message as wire

RECORDED = Path(__file__).parent / "fixtures" / "canvas_bodies.json"


@pytest.fixture
def app():
    with Umbel("capapp", broker="memory://embedded", backend="memory://embedded", set_as_current=False, task_canvas_embed=True) as app:
        for name in ("add", "mul", "onerr"):
            app.task(name=f"capapp.{name}", typing=False)(lambda *args: args)
        yield app


def without_ids(value):
    """Ids are random: what stays is which keys there are, and all other values."""
    if isinstance(value, dict):
        return {key: "id" if key in {"task_id", "reply_to"} else without_ids(each) for key, each in value.items()}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


def written(app, call):
    sent = []
    publish = app.broker.publish
    app.broker.publish = lambda items, **how: (sent.extend(items), publish(items, **how))[1]
    call()
    return [json.loads(wire.decode(item.raw).body) for item in sent]


def test_a_chain_is_written_as_celery_writes_it(app):
    add = app.tasks["capapp.add"]
    (body,) = written(app, lambda: chain(add.s(1, 1), add.s(2)).apply_async())
    recorded = json.loads(RECORDED.read_text())["chain"]
    assert without_ids(body) == without_ids(recorded)
    assert list(body[2]) == list(recorded[2])


def test_callbacks_and_errbacks_are_written_as_celery_writes_them(app):
    add, mul, onerr = (app.tasks[f"capapp.{name}"] for name in ("add", "mul", "onerr"))
    recorded = json.loads(RECORDED.read_text())["callbacks_errbacks"]
    (body,) = written(app, lambda: add.apply_async(tuple(recorded[0]), link=mul.s(10), link_error=onerr.s()))
    assert without_ids(body) == without_ids(recorded)
