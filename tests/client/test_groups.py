"""The results of many tasks: asked and waited for together, saved and restored."""

import asyncio
import json
import pickle
import threading
import time
from datetime import UTC, datetime

import pytest

from umbel import Celery, states, uuid
from umbel.backend import Record
from umbel.exceptions import DecodeError, ImproperlyConfigured, NotSupported, TimeoutError  # noqa: A004
from umbel.meta import build_meta, encode_meta
from umbel.result import AsyncResult, EagerResult, GroupResult, Progress, ResultSet, result_from_tuple


@pytest.fixture
def app():
    place = f"memory://{uuid()}"
    with Celery("results", broker=place, backend=place) as app:
        yield app


def store(app, task_id, state=states.SUCCESS, result=None, **more):
    meta = build_meta(task_id, state, result, now=datetime.now(UTC), **more)
    app.backend.store([Record(id=task_id, state=state, meta=encode_meta(meta))])


def group(app, *ids, id="g"):
    return app.GroupResult(id, [app.AsyncResult(each) for each in ids])


def test_values_come_in_the_order_of_the_members(app):
    for at, task_id in enumerate("cab"):
        store(app, task_id, result=at)
    found = group(app, "a", "b", "c")
    assert found.get() == found.join() == found.join_native() == [1, 2, 0]
    assert (found.ready(), found.successful(), found.failed(), found.waiting(), found.completed_count()) == (True, True, False, False, 3)


def test_a_group_that_runs_says_how_far_it_is(app):
    store(app, "a", result=1)
    store(app, "b", states.STARTED)
    found = group(app, "a", "b", "c", "d")
    assert found.progress == Progress(1, 4)
    assert found.progress.fraction == 0.25
    assert (found.ready(), found.waiting(), found.successful(), found.completed_count()) == (False, True, False, 1)


def test_the_first_failure_is_raised_before_the_others_end(app):
    store(app, "b", states.FAILURE, KeyError("b"))
    found = group(app, "a", "b")
    with pytest.raises(KeyError, match="b"):
        found.get(timeout=60)
    assert found.failed()
    store(app, "a", states.FAILURE, ValueError("a"))
    with pytest.raises(ValueError, match="a"):
        group(app, "a", "b").join()
    first, second = group(app, "a", "b").get(propagate=False)
    assert isinstance(first, ValueError)
    assert isinstance(second, KeyError)


def test_one_time_is_for_all_members_together(app):
    store(app, "a", result=1)
    for wait in ("get", "join", "join_native"):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out"):
            getattr(group(app, "a", "b", "c"), wait)(timeout=0.1)
        assert 0.08 < time.monotonic() - began < 1
    with pytest.raises(TimeoutError):
        group(app, "b").get(timeout=0)
    assert group(app, "a").get(timeout=0) == [1]


def test_members_are_told_as_they_end(app):
    told, found = [], group(app, "a", "b")
    store(app, "b", result=2)
    threading.Timer(0.05, store, (app, "a"), {"result": 1}).start()
    assert found.get(timeout=60, callback=lambda task_id, value: told.append((task_id, value))) is None
    assert told == [("b", 2), ("a", 1)]
    told.clear()
    assert found.join(callback=lambda task_id, value: told.append((task_id, value))) == []
    assert told == [("a", 1), ("b", 2)]


def test_documents_are_yielded_as_they_come(app):
    store(app, "b", states.FAILURE, KeyError("b"))
    store(app, "a", result=1)
    found = dict(group(app, "a", "b").iter_native(timeout=60))
    assert found["a"]["result"] == 1
    assert isinstance(found["b"]["result"], KeyError)


def test_each_new_state_is_told(app):
    said, found = [], group(app, "a")
    store(app, "a", states.STARTED, {"pid": 1})
    threading.Timer(0.05, store, (app, "a"), {"result": 1}).start()
    assert found.get(timeout=60, on_message=lambda meta: said.append(meta["status"])) == [1]
    assert said == ["STARTED", "SUCCESS"]
    with pytest.raises(ImproperlyConfigured, match="on_message"):
        found.join(on_message=print)


def test_a_member_may_be_a_group_or_eager_or_ignored(app):
    for task_id in "abc":
        store(app, task_id, result=task_id)
    ignored = app.AsyncResult("nobody")
    ignored.ignored = True
    found = app.GroupResult("g", [app.AsyncResult("a"), group(app, "b", "c", id="inner"), EagerResult("e", 5, "SUCCESS"), ignored])
    assert found.get(timeout=60) == ["a", ["b", "c"], 5, None]
    assert not found.supports_native_join


def test_coroutines_wait_for_many(app):
    found = group(app, "a", "b", "c")

    async def main():
        threading.Timer(0.05, store, (app, "c"), {"result": 3}).start()
        threading.Timer(0.15, store, (app, "a"), {"result": 1}).start()
        threading.Timer(0.25, store, (app, "b"), {"result": 2}).start()
        order = [each.id async for each in found]
        return order, await found.aget(timeout=60), await found.aready(), await found.acompleted_count()

    assert asyncio.run(main()) == (["c", "a", "b"], [1, 2, 3], True, 3)

    async def in_vain():
        with pytest.raises(TimeoutError):
            await group(app, "a", "nobody").aget(timeout=0.05)
        return await group(app, "a").aget(timeout=0)

    assert asyncio.run(in_vain()) == [1]


def test_members_are_added_and_removed(app):
    a, b = app.AsyncResult("a"), app.AsyncResult("b")
    found = app.ResultSet([a])
    found.add(b)
    found.add(b)
    found.update([a, b, app.AsyncResult("c")])
    assert [each.id for each in found] == ["a", "b", "c"]
    assert (len(found), found[1]) == (3, b)
    found.remove("b")
    found.discard(b)
    with pytest.raises(KeyError):
        found.remove(b)
    assert found == ResultSet([a, app.AsyncResult("c")])
    assert repr(found) == "<ResultSet: [a, c]>"
    found.clear()
    assert len(found) == 0
    assert found.get() == []


def test_a_group_is_its_id_and_its_members(app):
    found = group(app, "a", "b")
    assert repr(found) == "<GroupResult: g [a, b]>"
    assert (found == "g", found == group(app, "a", "b"), found == group(app, "a")) == (True, True, False)
    assert (str(found), found.children == found.results) == ("g", True)
    assert [bool(GroupResult(name, members)) for name, members in ((None, []), ("g", []), (None, [1]))] == [False, True, True]
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_group_travels_as_a_tuple(app):
    found = app.GroupResult("g", [app.AsyncResult("a"), group(app, "b", id="inner")], parent=app.AsyncResult("before"))
    form = found.as_tuple()
    assert form == (("g", (("before", None), None)), [(("a", None), None), (("inner", None), [(("b", None), None)])])
    again = result_from_tuple(json.loads(json.dumps(form)), app)
    assert again == found
    assert isinstance(again.results[1], GroupResult)
    assert again.parent == AsyncResult("before")


def test_a_group_that_was_saved_is_restored_by_its_id(app):
    found = group(app, "a", "b")
    assert GroupResult.restore("g", app=app) is None
    found.save()
    assert json.loads(app.backend.saved_group("g")) == {"result": [["g", None], [[["a", None], None], [["b", None], None]]]}
    again = GroupResult.restore("g", app=app)
    assert again == found
    assert again.app is app
    found.delete()
    assert GroupResult.restore("g", app=app) is None
    app.backend.save_group("g", b'{"what": 1}', expires=60)
    with pytest.raises(DecodeError, match="group g"):
        GroupResult.restore("g", app=app)


def test_forgetting_and_revoking_a_group_is_for_all_members(app):
    store(app, "a", result=1)
    found = group(app, "a", "b")
    found.revoke()
    assert {each.id for each in app.broker.revoked_since(0).entries} == {"a", "b"}
    found.forget()
    assert not app.AsyncResult("a").exists()
    with pytest.raises(NotSupported, match="monitoring_id"):
        found.revoke_by_stamped_headers({"monitoring_id": "1"})


def test_what_follows_is_called_at_the_end(app):
    told, over = [], threading.Event()
    found = group(app, "a", "b")
    assert found.then(lambda each: (told.append(each.get()), over.set())) is found
    store(app, "a", result=1)
    store(app, "b", result=2)
    assert over.wait(5)
    assert told == [[1, 2]]
    found.then(lambda each: told.append(each.id))
    assert told[1:] == ["g"]
    app.AsyncResult("a").then(lambda each: told.append(each.get()))
    store(app, "c", states.FAILURE, KeyError("c"))
    over.clear()
    app.AsyncResult("c").then(print, on_error=lambda each: (told.append(each.state), over.set()))
    assert over.wait(5)
    assert told[-1] == "FAILURE"
