"""What is known of a task by its id, and waiting for it."""

import asyncio
import pickle
import threading
from datetime import UTC, datetime

import pytest

from umbel import Celery, states, uuid
from umbel.backend import Record
from umbel.context import Context
from umbel.current import pop_frame, push_frame
from umbel.exceptions import TaskRevokedError, TimeoutError  # noqa: A004
from umbel.meta import build_meta, encode_meta
from umbel.result import AsyncResult, allow_join_result, result_from_tuple


@pytest.fixture
def app():
    place = f"memory://{uuid()}"
    with Celery("results", broker=place, backend=place) as app:
        yield app


def store(app, task_id, state, result=None, **more):
    meta = build_meta(task_id, state, result, now=datetime.now(UTC), **more)
    app.backend.store([Record(id=task_id, state=state, meta=encode_meta(meta))])


def test_an_unknown_id_is_pending(app):
    result = app.AsyncResult("nobody")
    assert (result.state, result.result, result.ready(), result.exists()) == ("PENDING", None, False, False)
    assert result.date_done is None


def test_a_value_is_read_back(app):
    store(app, "a", states.SUCCESS, {"answer": 42})
    result = app.AsyncResult("a")
    assert result.get() == {"answer": 42}
    assert (result.state, result.successful(), result.failed()) == ("SUCCESS", True, False)
    assert result.date_done.tzinfo is not None


def test_a_failure_is_raised_or_returned(app):
    store(app, "a", states.FAILURE, KeyError("x"), traceback="Traceback …")
    result = app.AsyncResult("a")
    with pytest.raises(KeyError, match="x"):
        result.get()
    assert isinstance(result.get(propagate=False), KeyError)
    assert (result.failed(), result.traceback) == (True, "Traceback …")


def test_a_revoked_task_raises(app):
    store(app, "a", states.REVOKED, TaskRevokedError("expired"))
    with pytest.raises(TaskRevokedError, match="expired"):
        app.AsyncResult("a").get()


def test_waiting_has_an_end(app):
    with pytest.raises(TimeoutError, match="timed out"):
        app.AsyncResult("a").get(timeout=0.05)
    with pytest.raises(TimeoutError):
        app.AsyncResult("a").get(timeout=0)


def test_who_waits_is_woken(app):
    seen = []
    threading.Timer(0.05, store, (app, "a", states.SUCCESS, 1)).start()
    assert app.AsyncResult("a").get(timeout=60, on_message=lambda meta: seen.append(meta["status"])) == 1
    assert seen == ["SUCCESS"]


def test_coroutines_wait_without_blocking(app):
    async def both():
        waits = asyncio.gather(app.AsyncResult("a").aget(5), app.AsyncResult("b").aget(5))
        await asyncio.sleep(0)
        store(app, "a", states.SUCCESS, 1)
        store(app, "b", states.SUCCESS, 2)
        return await waits

    assert asyncio.run(both()) == [1, 2]
    with pytest.raises(TimeoutError):
        asyncio.run(app.AsyncResult("c").aget(0.05))


def test_an_ignored_result_is_none_at_once(app):
    @app.task(ignore_result=True)
    def f(): ...

    result = f.delay()
    assert result.ignored
    assert result.get() is None
    assert f.apply_async(ignore_result=False).ignored is False


def test_waiting_inside_a_task_is_refused(app):
    @app.task
    def f(): ...

    store(app, "a", states.SUCCESS, 1)
    token = push_frame(f, Context(id="parent", called_directly=False))
    try:
        with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task"):
            app.AsyncResult("a").get()
        with allow_join_result():
            assert app.AsyncResult("a").get() == 1
        assert app.AsyncResult("a").get(disable_sync_subtasks=False) == 1
    finally:
        pop_frame(token)


def test_a_call_inside_a_task_is_its_child(app):
    @app.task
    def f(): ...

    request = Context(id="parent", root_id="root", called_directly=False)
    token = push_frame(f, request)
    try:
        child = f.delay()
    finally:
        pop_frame(token)
    assert request.children == [child]
    store(app, "parent", states.SUCCESS, None, request=request)
    assert app.AsyncResult("parent").children == [child]


def test_the_document_has_celery_s_fields_in_celery_s_order():
    request = Context(
        id="a", task="t", args=[1], kwargs={}, hostname="celery@h", retries=2, delivery_info={"routing_key": "q"}, group="g", parent_id="p"
    )
    meta = build_meta("a", states.SUCCESS, 1, request=request, now=datetime.now(UTC), extended=True, fence=7)
    assert list(meta) == [
        "status", "result", "traceback", "children", "date_done", "group_id", "parent_id",
        "name", "args", "kwargs", "worker", "retries", "queue", "task_id", "fence",
    ]  # fmt: skip
    assert build_meta("a", states.STARTED, {}, now=datetime.now(UTC))["date_done"] is None


def test_extended_fields_are_read_back(app):
    request = Context(task="t", args=[1], kwargs={"b": 2}, hostname="celery@h", retries=2, delivery_info={"routing_key": "q"})
    store(app, "a", states.SUCCESS, 1, request=request, extended=True)
    result = app.AsyncResult("a")
    assert (result.name, result.args, result.kwargs, result.worker, result.retries, result.queue) == (
        "t",
        [1],
        {"b": 2},
        "celery@h",
        2,
        "q",
    )


def test_forgetting_deletes(app):
    store(app, "a", states.SUCCESS, 1)
    result = app.AsyncResult("a")
    assert result.get() == 1
    result.forget()
    assert result.state == "PENDING"


def test_results_compare_by_id_and_travel(app):
    result = AsyncResult("a", app=app, parent=AsyncResult("p", app=app))
    assert result == AsyncResult("a", app=app) == "a"
    assert (str(result), repr(result), hash(result)) == ("a", "<AsyncResult: a>", hash("a"))
    assert result.as_tuple() == (("a", (("p", None), None)), None)
    assert result_from_tuple(result.as_tuple()).parent == "p"
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(ValueError, match="valid id"):
        AsyncResult(None)


def test_a_parent_that_failed_is_raised(app):
    store(app, "p", states.FAILURE, ValueError("parent"))
    store(app, "a", states.SUCCESS, 1)
    child = AsyncResult("a", app=app, parent=AsyncResult("p", app=app))
    with pytest.raises(ValueError, match="parent"):
        child.get()
    assert child.get(follow_parents=False) == 1


def test_what_is_not_there_says_so(app):
    with Celery("none", broker="memory://") as none, pytest.raises(NotImplementedError, match="No result backend"):
        none.AsyncResult("a").get()


@pytest.mark.parametrize("serializer", ["pickle", "msgpack", "yaml"])
def test_other_serializers_of_results(app, serializer):
    app.conf.update(result_serializer=serializer, result_accept_content=[serializer], result_compression="zlib")
    meta = build_meta("a", states.SUCCESS, {"x": [1, 2]})
    app.backend.store([Record(id="a", state="SUCCESS", meta=encode_meta(meta, serializer=serializer, compression="zlib"))])
    assert app.AsyncResult("a").get() == {"x": [1, 2]}


def test_a_task_tells_how_far_it_is(app):
    @app.task(bind=True)
    def f(self): ...

    token = push_frame(f, Context(id="a", called_directly=False))
    try:
        f.update_state(state="PROGRESS", meta={"done": 3})
    finally:
        pop_frame(token)
    assert (app.AsyncResult("a").state, app.AsyncResult("a").info) == ("PROGRESS", {"done": 3})
