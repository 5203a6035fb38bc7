"""Celery's form: what follows travels in the message."""

import json

import pytest

from umbel import Umbel, chain, chord, group, uuid
from umbel.canvas.embed import after_success, ids_in
from umbel.contrib.testing.worker import start_worker
from umbel.wire import message as wire


@pytest.fixture
def app(request):
    with Umbel("canvas", broker=f"memory://{request.node.name}", backend="disabled://", set_as_current=False) as app:
        app.task(name="t", typing=False)(lambda *args: args)
        yield app


@pytest.fixture
def sent(app, monkeypatch):
    items = []
    publish = app.broker.publish
    monkeypatch.setattr(app.broker, "publish", lambda some, **how: (items.extend(some), publish(some, **how))[1])
    return lambda: [json.loads(wire.decode(item.raw).body) for item in items]


def test_a_chain_travels_in_reverse_where_no_backend_keeps_it(app, sent):
    t = app.tasks["t"]
    result = chain(t.s(1), t.s(2), t.s(3)).apply_async()
    ((args, _, embed),) = sent()
    assert args == [1]
    assert [step["args"] for step in embed["chain"]] == [[3], [2]]
    assert [step["options"]["task_id"] for step in embed["chain"]] == [result.id, result.parent.id]
    assert embed["callbacks"] is None
    assert list(ids_in(embed["chain"])) == [result.id, result.parent.id]


def test_callbacks_travel_with_the_task(app, sent):
    t = app.tasks["t"]
    t.apply_async((1,), link=t.s(2), link_error=t.s(3))
    ((_, _, embed),) = sent()
    assert [each["args"] for each in embed["callbacks"]] == [[2]]
    assert [each["args"] for each in embed["errbacks"]] == [[3]]


def test_a_chord_without_a_backend_says_what_it_needs(app):
    t = app.tasks["t"]
    with pytest.raises(NotImplementedError, match=r"keeps no workflows\. Set result_backend to one that does"):
        chord([t.s(1)])(t.s())


def test_the_next_step_of_an_embedded_chain_takes_the_rest_with_it(app, sent):
    t = app.tasks["t"]
    chain(t.s(1), t.s(2), t.s(3), t.s(4)).apply_async()
    ((_, _, embed),) = sent()
    (draft,) = after_success(app, embed, "value", {"parent_id": "first", "root_id": "root"}).drafts
    message = wire.decode(draft.item.raw)
    args, _, rest = json.loads(message.body)
    assert args == ["value", 2]
    assert [step["args"] for step in rest["chain"]] == [[4], [3]]
    assert (message.headers["parent_id"], message.headers["root_id"]) == ("first", "root")


def test_callbacks_of_an_embedded_message_have_the_same_ids_in_a_second_run(app):
    embed = {"callbacks": [{"task": "t", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}]}
    first, second = (after_success(app, embed, 1, {"parent_id": "a", "root_id": "a"}).drafts[0].item.id for _ in range(2))
    assert first == second


def test_a_group_of_chains_sends_each_with_its_rest(app, sent):
    t = app.tasks["t"]
    group(t.s(1) | t.s(2), t.s(3)).apply_async()
    assert [embed["chain"] and len(embed["chain"]) for _, _, embed in sent()] == [1, None]


def test_a_task_that_is_replaced_takes_the_rest_of_its_embedded_chain_along():
    with Umbel("embedding", broker=f"memory://{uuid()}", backend="memory://", task_canvas_embed=True, set_as_current=False) as app:
        add = app.task(name="add")(lambda x, y: x + y)

        @app.task(name="instead", bind=True)
        def instead(self, sig):
            raise self.replace(app.signature(sig))

        with start_worker(app, perform_ping_check=False):
            for sig, value in (
                (add.s(1, 2), 13), (add.s(1, 2) | add.s(3), 16), (instead.s(add.s(1, 2)), 13),
                (group(add.s(1, 2), add.s(3, 4)) | add.s([5]), [3, 7, 5, 10]),
            ):  # fmt: skip
                last = add.s([10]) if isinstance(value, list) else add.s(10)
                assert (instead.s(sig) | last).apply_async().get(timeout=60) == value
