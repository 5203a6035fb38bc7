"""A workflow that cannot go on fails by itself: its worker lives, and no other workflow waits for it."""

import json
import logging
import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs
from tests.processes import wait_for

from umbel import Umbel, chain, chord, group
from umbel.backend import Arrival
from umbel.canvas.records import decode_node
from umbel.contrib.testing.worker import start_worker
from umbel.exceptions import BrokerUnavailable, ChordError, ContentDisallowed, DecodeError, Reject
from umbel.execution.follower import Halted
from umbel.execution.followup import Ending
from umbel.flow import Part
from umbel.joining import allow_join_result
from umbel.meta import build_meta, encode_meta
from umbel.worker.releases import follower_of

OTHERS = 60
JSON = frozenset({"application/json"})


def settings(request):
    name = re.sub(r"\W", "-", request.node.name)
    return {"broker": f"memory://{name}", "backend": f"memory://{name}", "set_as_current": False}


def registered(app):
    add = app.task(name="add", serializer="json")(lambda x, y=0: x + y)
    total = app.task(name="total")(sum)
    fails = app.task(name="fails", serializer="json", typing=False)(lambda *args: 1 / 0)
    return add, total, fails


@pytest.fixture
def app(request):
    with Umbel("whole", **settings(request)) as app:
        registered(app)
        yield app


@pytest.fixture
def pickling(request, app):
    """The app of a producer that writes workflows in a form that the workers of `app` do not accept."""
    with Umbel("pickling", task_serializer="pickle", accept_content=["pickle", "json"], **settings(request)) as other:
        yield other


@pytest.fixture
def worker(app, caplog):
    """Start a worker when all is sent: what it finds is one batch."""

    def run(*results, until=lambda: True):
        with caplog.at_level(logging.WARNING, logger="celery.worker"), start_worker(app), allow_join_result():
            for each in results:
                each.get(timeout=60, propagate=False)
            assert app.tasks["add"].delay(1, 1).get(timeout=60) == 2
            wait_for(until, 20)

    return run


def errors(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR and each.name == "celery.worker"]


def kept_as(app, monkeypatch, change):
    """Let *change* make other bytes of each node and join that is written."""
    begin = app.backend.begin_flow

    def begin_flow(flow, nodes, joins, **how):
        begin(
            flow,
            {number: change(data) for number, data in nodes.items()},
            {number: (size, change(data)) for number, (size, data) in joins.items()},
            **how,
        )

    monkeypatch.setattr(app.backend, "begin_flow", begin_flow)


def test_a_step_in_a_form_that_is_not_accepted_fails_with_all_behind_it_and_is_logged_once(app, pickling, worker, caplog):
    add, *_ = registered(pickling)
    last = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
    worker(app.AsyncResult(last.id))
    states = [app.AsyncResult(each).state for each in (last.parent.parent.id, last.parent.id, last.id)]
    assert states == ["SUCCESS", "FAILURE", "FAILURE"]
    with pytest.raises(ContentDisallowed):
        app.AsyncResult(last.id).get()
    assert len(errors(caplog)) == 1
    assert f"[{last.parent.id}] cannot be sent" in errors(caplog)[0]


def test_a_member_in_a_form_that_is_not_accepted_fails_the_body_of_its_chord(app, pickling, worker):
    add, total, _ = registered(pickling)
    body = chord([add.s(1, 1), chain(add.s(1, 1), add.s(2))], total.s()).apply_async()
    worker(app.AsyncResult(body.id))
    with pytest.raises(ChordError, match="ContentDisallowed"):
        app.AsyncResult(body.id).get()


def test_a_body_in_a_form_that_is_not_accepted_fails(app, pickling, worker):
    add, total, _ = registered(pickling)
    body = chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()
    worker(app.AsyncResult(body.id))
    with pytest.raises(ContentDisallowed):
        app.AsyncResult(body.id).get()


def test_a_failure_goes_on_through_steps_that_cannot_be_read(app, pickling, worker):
    add, _, fails = registered(pickling)
    last = chain(fails.s(), add.s(2), add.s(3)).apply_async()
    worker(app.AsyncResult(last.id))
    with pytest.raises(ZeroDivisionError):
        app.AsyncResult(last.id).get()


def test_a_step_whose_arguments_are_rubbish_fails(app, worker, monkeypatch):
    add = app.tasks["add"]
    kept_as(app, monkeypatch, lambda data: data.replace(b"[77]", b'[{"__type__": "of nobody", "__value__": 1}]'))
    last = chain(add.s(1, 1), add.s(77), add.s(3)).apply_async()
    worker(last)
    with pytest.raises(DecodeError, match="of nobody"):
        last.get()


@pytest.mark.parametrize("sig", ["a step", {"task": "add", "options": {"queue": 5, "countdown": "soon"}}, {"options": {}}], ids=str)
def test_a_step_that_cannot_be_made_a_message_fails(app, worker, monkeypatch, sig):
    add = app.tasks["add"]

    def change(data):
        fields = json.loads(data)
        if fields.get("signature", {}).get("args") == [77]:
            fields["signature"] = sig
        return json.dumps(fields).encode()

    kept_as(app, monkeypatch, change)
    last = chain(add.s(1, 1), add.s(77), add.s(3)).apply_async()
    worker(last)
    assert (last.parent.state, last.state) == ("FAILURE", "FAILURE")


@pytest.mark.parametrize("rubbish", [b"", b"\x00\x00\x00", b"{", b"[]", b'{"id": 5}', b'{"id": "a", "steps": "x"}', b"\xff\x80abc"])
def test_a_record_of_rubbish_holds_up_no_other_workflow(app, worker, monkeypatch, caplog, rubbish):
    add, total = app.tasks["add"], app.tasks["total"]
    others = [chain(add.s(n, 1), add.s(1)).apply_async() for n in range(OTHERS // 2)]
    with monkeypatch.context() as patched:
        kept_as(app, patched, lambda data: rubbish)
        first = chain(add.s(1, 1), add.s(2)).apply_async().parent
        members = chord([add.s(1, 1), chain(add.s(2, 2), add.s(0))], total.s()).apply_async().parent
    others += [chord([add.s(n, 1), add.s(1)], total.s()).apply_async() for n in range(OTHERS // 2)]
    worker(first, members[0], *others)
    assert [each.get() for each in others] == [n + 2 for n in range(OTHERS // 2)] * 2
    assert first.get() == 2
    assert len([each for each in errors(caplog) if "add[" in each or "workflow" in each]) <= 3


def test_one_workflow_that_the_follower_stumbles_over_holds_up_no_other(app, worker, monkeypatch, caplog):
    """Whatever it is: here the values of one join are not what they must be."""
    add, total = app.tasks["add"], app.tasks["total"]
    arrived = app.backend.arrived
    doomed = chord([add.s(1, 1)], total.s()).apply_async()
    others = [chord([add.s(n, 1), add.s(1)], total.s()).apply_async() for n in range(OTHERS)]
    seen = []

    def wrong_of_one(flow, join, **how):
        seen.append(flow)
        return [None] if flow == seen[0] else arrived(flow, join, **how)

    monkeypatch.setattr(app.backend, "arrived", wrong_of_one)
    worker(doomed, *others)
    assert doomed.state == "FAILURE"
    assert [each.get() for each in others] == [n + 2 for n in range(OTHERS)]


def test_a_step_that_the_broker_refuses_waits_alone_and_goes_on_when_it_is_taken(app, monkeypatch):
    add, publish, refused = app.tasks["add"], app.broker.publish, threading.Event()
    opened = threading.Event()

    def selective(items, **how):
        if not opened.is_set() and any(item.queue == "closed" for item in items):
            refused.set()
            raise BrokerUnavailable("the queue 'closed' takes nothing", refused=True)
        return publish(items, **how)

    monkeypatch.setattr(app.broker, "publish", selective)
    waits = chain(add.s(1, 1), add.s(5).set(queue="closed")).apply_async()
    others = [chain(add.s(n, 1), add.s(1)).apply_async() for n in range(OTHERS)]
    with start_worker(app, queues=["celery", "closed"]), allow_join_result():
        assert [each.get(timeout=60) for each in others] == [n + 2 for n in range(OTHERS)]
        assert refused.wait(20)
        assert waits.state == "PENDING"
        opened.set()
        assert waits.get(timeout=60) == 7


def test_a_group_behind_a_step_that_cannot_be_sent_fails_as_a_whole(app, worker, monkeypatch):
    add = app.tasks["add"]
    kept_as(app, monkeypatch, lambda data: data.replace(b"[77]", b"77"))
    last = (add.s(1, 1) | add.s(77) | group(add.s(1), add.s(2))).apply_async()
    worker(*last.results)
    assert [each.state for each in last.results] == ["FAILURE", "FAILURE"]
    assert last.parent.state == "FAILURE"


@pytest.fixture
def told(app):
    heard = []
    app.task(name="note")(heard.append)
    return heard


@pytest.mark.parametrize("rubbish", [b"", b"{", b"\xff\x80abc"])
def test_a_workflow_whose_record_is_rubbish_ends_as_a_failure_that_says_so(app, worker, monkeypatch, rubbish):
    add, total = app.tasks["add"], app.tasks["total"]
    with monkeypatch.context() as patched:
        kept_as(app, patched, lambda data: rubbish)
        last = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
        given = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async(task_id="given")
        body = chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()
    worker(last, given, body)
    for each in (last, given, body):
        with pytest.raises(DecodeError, match="is gone, or broken"):
            each.get()


def test_what_is_left_of_a_broken_record_fails_and_its_errbacks_are_told_once(app, worker, monkeypatch, told):
    add = app.tasks["add"]
    with monkeypatch.context() as patched:
        kept_as(app, patched, lambda data: b"{" if b"[77]" in data else data)
        last = chain(add.s(1, 1), add.s(77), add.s(3), add.s(4)).on_error(app.tasks["note"].si("heard")).apply_async()
    worker(last, last.parent, until=lambda: told)
    assert (last.state, last.parent.state, last.parent.parent.parent.get()) == ("FAILURE", "FAILURE", 2)
    assert told == ["heard"]


def test_a_workflow_that_is_gone_ends_as_a_failure(app, worker):
    add = app.tasks["add"]
    last = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
    app.backend.forget_flows([last.id])
    worker(last)
    with pytest.raises(DecodeError, match="is gone, or broken"):
        last.get()


def test_a_member_whose_workflow_is_gone_says_so_once_and_its_result_is_a_failure(app, worker, caplog):
    add, total = app.tasks["add"], app.tasks["total"]
    body = chord([add.s(1, 1), add.s(2, 2), add.s(3, 3)], total.s()).apply_async()
    app.backend.forget_flows([body.id])
    worker(body)
    with pytest.raises(DecodeError, match="is gone, or broken"):
        body.get(timeout=5)
    assert body.parent.get(timeout=5) == [2, 4, 6], "the members themselves have succeeded"
    (said,) = [each.getMessage() for each in caplog.records if "is gone" in each.getMessage()]
    assert body.id in said
    assert any(each.id in said for each in body.parent)
    assert "umbel_flow_expires" in said


def test_a_late_copy_of_a_member_does_not_take_the_result_away(app, worker):
    add, total = app.tasks["add"], app.tasks["total"]
    body = chord([add.s(1, 1)], total.s()).apply_async()
    worker(body)
    app.backend.forget_flows([body.id])
    follower = follower_of(app, app.conf, may_write=lambda: True)
    follower.follow([Ending(flow=body.id, node=None, part=Part(0, 0), id=body.parent[0].id, value=b"2")])
    assert body.get(timeout=5) == 2


def unpublishable(app, monkeypatch, name):
    """Let the broker's driver stumble over each message that names *name*."""
    publish = app.broker.publish

    def stumbling(items, **how):
        if any(name.encode() in item.raw for item in items):
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "of no message")
        return publish(items, **how)

    monkeypatch.setattr(app.broker, "publish", stumbling)


def test_a_body_that_cannot_be_published_fails_with_all_behind_it_and_its_errback_is_told(app, worker, monkeypatch, told):
    add, total, note = app.tasks["add"], app.tasks["total"], app.tasks["note"]
    app.task(name="wrong")(sum)
    body = app.tasks["wrong"].s().on_error(note.s())
    member = add.s(1, 1).on_error(note.s())
    last = chain(chord([member, add.s(2, 2)], body), add.s(1)).apply_async()
    good = chord([add.s(1, 1)], total.s()).apply_async()
    unpublishable(app, monkeypatch, "wrong")
    worker(last, last.parent, good, until=lambda: told)
    with pytest.raises(UnicodeEncodeError):
        last.parent.get()
    assert (last.state, good.get()) == ("FAILURE", 2)
    assert [each.state for each in last.parent.parent.results] == ["SUCCESS"] * 2
    assert told == [last.parent.id]


def test_a_step_that_cannot_be_published_fails_and_its_errback_is_told_of_it(app, worker, monkeypatch, told):
    add, note = app.tasks["add"], app.tasks["note"]
    app.task(name="wrong")(sum)
    last = chain(add.s(1, 1), app.tasks["wrong"].s(), add.s(1)).on_error(note.s()).apply_async()
    unpublishable(app, monkeypatch, '"wrong"')
    worker(last, until=lambda: told)
    assert [last.parent.parent.state, last.parent.state, last.state] == ["SUCCESS", "FAILURE", "FAILURE"]
    assert told == [last.parent.id]


def test_a_join_that_is_over_and_cannot_be_followed_is_ended_by_whoever_finds_it(app, monkeypatch, told):
    add, note = app.tasks["add"], app.tasks["note"]
    app.task(name="wrong")(sum)
    body = chord([add.s(1, 1)], app.tasks["wrong"].s().on_error(note.s())).apply_async()
    (over,) = app.backend.arrive([Arrival(flow=body.id, join=0, position=0, id="member", value=b"2")], expires=60)
    unpublishable(app, monkeypatch, '"wrong"')
    follower_of(app, app.conf, may_write=lambda: True).release([over])
    assert body.state == "FAILURE"
    assert app.backend.overs(older=0.0) == []
    with start_worker(app), allow_join_result():
        wait_for(lambda: told == [body.id], 20)


def test_an_errback_of_a_whole_chain_is_told_once_though_another_worker_goes_on_with_its_failure(app, told):
    """The first worker dies between the end of the header and what follows it."""
    fails, total, note = app.tasks["fails"], app.tasks["total"], app.tasks["note"]
    add = app.tasks["add"]
    header = group(chain(fails.s(), add.s(1)).on_error(note.si("chain")), add.s(1, 1))
    body = (header | total.s().on_error(note.si("chain"))).apply_async()
    alive = [True]
    follower = follower_of(app, app.conf, may_write=lambda: alive[0])
    arrive = app.backend.arrive

    def dying(arrivals, **how):
        alive[0] = False
        return arrive(arrivals, **how)

    app.backend.arrive = dying
    nodes = {number: decode_node(app.backend.nodes([(body.id, number)])[0], JSON) for number in app.backend.node_numbers(body.id)[:-1]}
    number = next(number for number, node in nodes.items() if node.signature["task"] == "fails")
    failure = encode_meta(build_meta(nodes[number].id, "FAILURE", ZeroDivisionError("no")))
    with pytest.raises(Halted):
        follower.follow([Ending(flow=body.id, node=number, id=nodes[number].id, failure=failure)])
    app.backend.arrive = arrive
    other = follower_of(app, app.conf, may_write=lambda: True)
    other.release(app.backend.overs(older=0.0))
    assert body.state == "FAILURE"
    with start_worker(app), allow_join_result():
        assert add.delay(1, 1).get(timeout=60) == 2
        wait_for(lambda: told == ["chain"], 20, lambda: told)


def test_a_message_that_cannot_be_read_ends_its_workflow(app, worker, monkeypatch):
    add, total = app.tasks["add"], app.tasks["total"]
    publish = app.broker.publish

    def damaged(items, **how):
        return publish([structs.replace(item, raw=item.raw.replace(b'"retries": 0', b'"retries": "many"')) for item in items], **how)

    with monkeypatch.context() as patched:
        patched.setattr(app.broker, "publish", damaged)
        last = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
        body = chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()
    worker(last, body)
    assert [last.parent.parent.state, last.parent.state, last.state] == ["FAILURE"] * 3
    with pytest.raises(ChordError, match="cannot be read"):
        app.AsyncResult(body.id).get()


def revoked(app, sig):
    sig.set(task_id="stopped")
    app.control.revoke("stopped")
    return sig


def expired(app, sig):
    return sig.set(expires=datetime.now(UTC) - timedelta(seconds=5), task_id="stopped")


def buried(app, sig):
    def bury():
        raise Reject("no", requeue=False)

    app.task(name="bury", acks_late=True)(bury)
    return app.tasks["bury"].si().set(task_id="stopped")


@pytest.mark.parametrize("stopped", [revoked, expired, buried])
def test_a_member_that_is_revoked_expired_or_buried_has_failed_and_so_has_a_step(app, worker, stopped):
    add, total = app.tasks["add"], app.tasks["total"]
    sig = stopped(app, add.si(1, 1))
    body = chord([sig.clone(), add.si(1, 1)], total.s()).apply_async()
    last = chain(add.si(1, 1), sig, add.s(1)).apply_async()
    worker(body, last)
    with pytest.raises(ChordError, match="Dependency stopped raised"):
        app.AsyncResult(body.id).get()
    assert last.state == "FAILURE"
