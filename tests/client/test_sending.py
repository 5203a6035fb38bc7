"""What a call puts on the broker."""

import json
import sys
import time
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from uuid import uuid4

import pytest

from umbel import Celery, shared_task, uuid
from umbel.exceptions import BrokerUnavailable, EncodeError, ImproperlyConfigured, QueueNotFound
from umbel.signals import after_task_publish, before_task_publish

HEADERS = [
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id",
    "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
    "umbel_sent",
]  # fmt: skip
RECORDED = Path(__file__).parents[1] / "compat" / "fixtures" / "produced.json"


@pytest.fixture
def app():
    place = f"memory://{uuid()}"
    with Celery("capapp", broker=place, backend=place) as app:
        yield app


@pytest.fixture
def add(app):
    @app.task(name="capapp.add")
    def add(x, y=0):
        return x + y

    return add


def sent(app, queue="celery"):
    broker = app.broker
    owner = "test"
    broker.join(owner, [queue], lease=60)
    sent.seq = getattr(sent, "seq", 0) + 1
    broker.promote(queue)
    deliveries = broker.fetch(queue, 100, owner=f"{owner}", seq=sent.seq)
    broker.leave(owner, [queue])
    return [json.loads(each.raw) for each in deliveries]


@pytest.fixture(autouse=True)
def _first_claim():
    sent.seq = 0


def test_a_call_is_the_message_that_celery_sends(app, add):
    result = add.delay(2, 3)
    (message,) = sent(app)
    assert list(message) == ["body", "content-encoding", "content-type", "headers", "properties"]
    assert list(message["headers"]) == HEADERS
    assert b64decode(message["body"]) == b'[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    assert message["headers"]["id"] == message["headers"]["root_id"] == result.id
    assert (message["headers"]["argsrepr"], message["headers"]["kwargsrepr"]) == ("(2, 3)", "{}")
    assert message["headers"]["ignore_result"] is False
    assert list(message["properties"]) == [
        "correlation_id", "reply_to", "delivery_mode", "delivery_info", "priority", "body_encoding", "delivery_tag",
    ]  # fmt: skip
    assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": "celery"}


CASES = {
    "simple": ((2, 3), {}),
    "queue_named": ((1, 2), {"queue": "hipri"}),
    "custom_headers": ((1, 2), {"headers": {"x-tenant": "acme", "traceparent": "00-abc"}}),
    "compression_zlib": ((1, 2), {"compression": "zlib"}),
    "eta_naive": ((1, 2), {"eta": datetime(2030, 1, 2, 3, 4, 5)}),
    "ignore_result_true": ((1, 2), {"ignore_result": True}),
}
OURS = ("id", "root_id", "origin")
OUR_PROPERTIES = ("correlation_id", "reply_to", "delivery_tag")


@pytest.mark.parametrize("case", CASES)
def test_a_call_is_what_celery_recorded_but_for_its_ids(app, add, case):
    args, options = CASES[case]
    queue = options.get("queue", "celery")
    app.conf.task_delay_for = "celery"
    add.apply_async(args, **options)
    (recorded,) = json.loads(RECORDED.read_text())[case]
    theirs = json.loads(recorded)
    (ours,) = sent(app, queue)
    for name in OURS:
        ours["headers"][name] = theirs["headers"][name]
    assert time.time() - 10 < ours["headers"].pop("umbel_sent") <= time.time()
    for name in OUR_PROPERTIES:
        ours["properties"][name] = theirs["properties"][name]
    assert json.dumps(ours) == json.dumps(theirs)


def test_a_call_says_when_it_was_sent_whatever_its_headers_are(app, add):
    before = int(time.time() * 1000) / 1000
    add.delay(1, 2)
    add.delay_many([((1, 2), {}), ((3, 4), {})])
    add.apply_async((1, 2), headers={"umbel_sent": "yesterday"}, countdown=0.001)
    app.send_task("capapp.add", (1, 2))
    time.sleep(0.002)
    told = [message["headers"]["umbel_sent"] for message in sent(app)]
    assert len(told) == 5
    assert all(before <= each <= time.time() for each in told)


def test_delay_takes_few_calls_in_few_files(add):
    add.delay(1, 2)
    calls = []

    def note(frame, event, _):
        if event == "call":
            calls.append(frame.f_code)

    sys.setprofile(note)
    try:
        add.delay(1, 2)
    finally:
        sys.setprofile(None)
    assert len(calls) <= 60
    files = {code.co_filename for code in calls if "/umbel/" in code.co_filename and "/drivers/" not in code.co_filename}
    assert len(files - {name for name in files if name.endswith("/clock.py")}) <= 10  # the clock is the driver's


def test_a_countdown_waits_in_the_broker_and_is_told_in_the_app_s_zone(app, add):
    app.conf.timezone = "Asia/Shanghai"
    add.apply_async((1,), countdown=60)
    depth = app.broker.depth(["celery"])["celery"]
    assert (depth.ready, depth.delayed) == (0, 1)


def test_a_past_eta_is_ready_at_once(app, add):
    add.apply_async((1,), eta=datetime.now(UTC) - timedelta(seconds=5))
    (message,) = sent(app)
    assert message["headers"]["eta"].endswith("+00:00")


def test_expires_in_seconds_is_a_time_and_an_expiration_in_milliseconds(app, add):
    add.apply_async((1,), expires=120)
    (message,) = sent(app)
    assert datetime.fromisoformat(message["headers"]["expires"]) > datetime.now(UTC) + timedelta(seconds=100)
    assert 119_000 <= int(message["properties"]["expiration"]) <= 120_000


@pytest.mark.parametrize(
    ("expires", "text"),
    [
        (datetime(2030, 1, 1, 12), "2030-01-01T12:00:00"),
        (datetime(2030, 1, 1, 12, tzinfo=UTC), "2030-01-01T12:00:00+00:00"),
        ("2030-01-01T12:00:00+02:00", "2030-01-01T12:00:00+02:00"),
    ],
)
def test_expires_may_be_a_time_which_travels_as_it_was_said(app, add, expires, text):
    add.apply_async((1,), expires=expires)
    (message,) = sent(app)
    assert message["headers"]["expires"] == text


def test_expires_may_be_a_time_span_and_the_task_may_have_one_for_all_its_calls(app, add):
    @app.task(expires=30)
    def fleeting(): ...

    add.apply_async((1,), expires=timedelta(minutes=2))
    fleeting.delay()
    spans = [datetime.fromisoformat(message["headers"]["expires"]) - datetime.now(UTC) for message in sent(app)]
    assert timedelta(seconds=100) < spans[0] < timedelta(seconds=121)
    assert timedelta(seconds=10) < spans[1] < timedelta(seconds=31)


def test_wrong_arguments_are_refused_at_the_call(app, add):
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        add.delay()
    with pytest.raises(TypeError, match="too many positional arguments"):
        add.delay(1, 2, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        add.delay(1, z=2)
    with pytest.raises(TypeError, match="multiple values for argument 'x'"):
        add.delay(1, x=2)
    with pytest.raises(TypeError, match="task args must be a list or tuple"):
        add.apply_async("ab")
    assert sent(app) == []


def test_keyword_only_and_variable_arguments_are_judged_by_the_signature(app):
    @app.task
    def free(first, *rest, must, **more): ...

    free.delay(1, 2, 3, must=4, other=5)
    with pytest.raises(TypeError, match="must"):
        free.delay(1)


def test_typing_off_lets_everything_pass(app):
    @app.task(typing=False)
    def loose(x): ...

    loose.delay(1, 2, 3)
    assert len(sent(app)) == 1


def test_an_argument_that_is_no_json_is_refused_by_the_name_of_the_task(app, add):
    with pytest.raises(EncodeError, match=r"capapp.add"):
        add.delay({1, 2})
    assert sent(app) == []


def test_time_limits_travel_as_hard_and_soft_and_those_of_the_call_win(app, add):
    @app.task(time_limit=30, soft_time_limit=20)
    def limited(): ...

    app.conf.task_time_limit = 99  # for workers to apply
    add.delay(1, 2)
    limited.delay()
    limited.apply_async(time_limit=3, soft_time_limit=2)
    assert [message["headers"]["timelimit"] for message in sent(app)] == [[None, None], [30, 20], [3, 2]]


def test_a_soft_limit_above_the_hard_one_is_refused_at_the_call(app):
    @app.task(time_limit=5, soft_time_limit=6)
    def limited(): ...

    with pytest.raises(ValueError, match="soft_time_limit must be less than or equal to time_limit"):
        limited.delay()


def test_many_calls_are_sent_at_once(app, add):
    results = add.delay_many(((number,), {"y": 1}) for number in range(501))
    assert len({result.id for result in results}) == 501
    assert app.broker.depth(["celery"])["celery"].ready == 501


def test_an_app_without_a_broker_says_what_to_set():
    with Celery("nowhere") as app:

        @app.task
        def f(): ...

        with pytest.raises(ImproperlyConfigured, match=r"sqlite:////absolute/path/umbel\.sqlite3.*redis://localhost:6379/0"):
            f.delay()


def test_a_dead_broker_is_told_within_two_seconds(app, add):
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    started = datetime.now(UTC)
    with pytest.raises(BrokerUnavailable):
        add.delay(1)
    assert datetime.now(UTC) - started < timedelta(seconds=2.5)


def test_a_changed_url_is_used_at_the_next_call(app, add):
    first = app.broker
    app.conf.broker_url = f"memory://{uuid()}"
    add.delay(1)
    assert app.broker is not first
    assert len(sent(app)) == 1


def test_the_signals_receive_the_very_dicts_that_are_sent(app, add):
    seen = []

    def before(sender, headers, properties, body, **kwargs):
        headers["x-added"] = sender
        body[0].append(9)

    def after(sender, headers, **kwargs):
        seen.append((sender, headers["x-added"]))

    before_task_publish.connect(before, sender="capapp.add")
    after_task_publish.connect(after, sender="capapp.add")
    try:
        add.apply_async([1])
    finally:
        before_task_publish.disconnect(before, sender="capapp.add")
        after_task_publish.disconnect(after, sender="capapp.add")
    (message,) = sent(app)
    assert message["headers"]["x-added"] == "capapp.add"
    assert b64decode(message["body"]).startswith(b"[[1, 9]")
    assert seen == [("capapp.add", "capapp.add")]


def test_send_task_needs_no_registered_task(app):
    result = app.send_task("elsewhere.f", (1,), {"a": 2}, queue="far")
    (message,) = sent(app, "far")
    assert (message["headers"]["task"], message["headers"]["id"]) == ("elsewhere.f", result.id)
    assert message["headers"]["ignore_result"] is None


def test_a_queue_that_may_not_be_made_is_an_error(app, add):
    app.conf.update(task_create_missing_queues=False)
    with pytest.raises(QueueNotFound, match="nope"):
        add.apply_async((1,), queue="nope")


def test_routes_and_attributes_choose_the_queue(app, add):
    app.conf.task_routes = {"capapp.*": {"queue": "routed", "priority": 3}}
    add.delay(1)
    assert sent(app, "routed")[0]["properties"]["priority"] == 3
    add.queue = "own"
    add.delay(1)
    sent.seq = 0
    assert len(sent(app, "own")) == 1


def test_coroutines_send_together(app, add):
    import asyncio

    async def many():
        return await asyncio.gather(*(add.adelay(number) for number in range(100)))

    results = asyncio.run(many())
    assert len({result.id for result in results}) == 100
    assert app.broker.depth(["celery"])["celery"].ready == 100


def test_what_coroutines_send_in_one_turn_goes_in_few_steps_of_the_broker(app, add, monkeypatch):
    import asyncio

    steps = []
    publish = type(app.broker).publish

    def counted(self, items, **how):
        steps.append(len(items))
        publish(self, items, **how)

    monkeypatch.setattr(type(app.broker), "publish", counted)

    async def many():
        return await asyncio.gather(*(add.adelay(number) for number in range(1200)))

    assert len(asyncio.run(many())) == app.broker.depth(["celery"])["celery"].ready == 1200
    assert sum(steps) == 1200
    assert max(steps) == 500
    assert len(steps) <= 4


def test_a_coroutine_that_is_cancelled_before_its_turn_ends_sends_nothing_and_the_others_send(app, add):
    import asyncio

    async def one_of_three():
        calls = [asyncio.ensure_future(add.adelay(number)) for number in range(3)]
        asyncio.get_running_loop().call_soon(calls[1].cancel)
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = asyncio.run(one_of_three())
    assert isinstance(second, asyncio.CancelledError)
    assert {message["headers"]["id"] for message in sent(app)} == {first.id, third.id}


def test_a_shared_task_finds_the_app_of_whoever_calls(app):
    from concurrent.futures import ThreadPoolExecutor

    @shared_task(name="client.shared_one")
    def shared(): ...

    assert app.tasks["client.shared_one"] is shared
    with ThreadPoolExecutor(1) as other_thread:
        other_thread.submit(shared.delay).result()
    assert [message["headers"]["task"] for message in sent(app)] == ["client.shared_one"]


def test_a_call_that_is_too_large_is_refused_with_its_size_and_what_to_do(app):
    app.conf.task_message_max_size = 1000
    task = app.task(lambda text: text, name="large")
    for options in ({}, {"priority": 1}, {"compression": "zlib"}):
        with pytest.raises(EncodeError, match=r"large has \d+ bytes; task_message_max_size allows 1000\. Put large data in a store .*None"):
            task.apply_async(("x" * 2000,), **options)
    app.conf.task_message_max_size = None
    task.delay("x" * 2000)
    app.conf.task_message_max_size = 0
    task.delay("x" * 2000)


@pytest.mark.parametrize("id", ["a\nb", "\x1b[2J", "x" * 1025, uuid4(), 5, "\ud800"])
def test_an_id_that_no_line_of_a_log_could_hold_is_refused_at_the_call(app, id):
    with pytest.raises(ValueError, match=r"task_id is .* printable characters"):
        app.send_task("a", task_id=id)
    with pytest.raises(ValueError, match="name of a task"):
        app.send_task("a\nb")


@pytest.mark.parametrize("priority", [-1, 256, 10**30, "high", 1.5])
def test_a_priority_that_is_none_is_refused_at_the_call(app, add, priority):
    with pytest.raises(ValueError, match=r"^priority is .*\. It must be a whole number from 0 to 255\.$"):
        add.apply_async((1, 2), priority=priority)
    assert sent(app) == []


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a\nb", "q" * 1025])
def test_a_queue_whose_name_no_driver_can_keep_is_refused_at_the_call_and_by_a_worker(app, add, name):
    with pytest.raises(ValueError, match=r"^The name of a queue is .* printable characters\.$"):
        add.apply_async((1, 2), queue=name)
    with pytest.raises(ValueError, match="The name of a queue is"):
        app.consumed_queues([name], None)


def test_a_priority_may_be_one_of_an_enumeration(app, add):
    add.apply_async((1, 2), priority=IntEnum("Priority", {"HIGH": 9}).HIGH)
    (message,) = sent(app)
    assert message["properties"]["priority"] == 9
