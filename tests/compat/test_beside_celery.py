"""Real Celery 5.7 and umbel on one Redis: each sends to the other's workers and reads the other's results."""

import ast
import json
from collections import Counter
from typing import Any

import pytest
from tests.processes import wait_for

pytestmark = pytest.mark.redis

KINDS = """
import datetime as dt, decimal, uuid
utc = dt.timezone.utc
values = [
    None, True, -1, 2**60, 1.5, "Grüße \\u2603", [1, [2]], {"a": {"b": 1}},
    dt.datetime(2024, 5, 6, 7, 8, 9, 123456), dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=utc),
    dt.datetime(2024, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))), dt.date(2024, 5, 6), dt.time(7, 8, 9, 5),
    decimal.Decimal("1.10"), uuid.UUID(int=5), b"plain", b"\\xff\\xfe",
]
"""
OTHER = {"celery": "umbel", "umbel": "celery"}
BOTH_WAYS = pytest.mark.parametrize("producer", ["celery", "umbel"])  # the worker is the other's


@pytest.fixture(scope="module")
def workers(new_fleet):
    """For each producer a fleet with one worker, which is the other library's."""
    fleets = {"celery": new_fleet(), "umbel": new_fleet(task_delay_for="celery")}
    with fleets["celery"].worker("umbel", "-c", "2"), fleets["umbel"].worker("celery"):
        yield fleets


@BOTH_WAYS
def test_a_result_of_the_others_worker_is_read_with_its_extended_fields(workers, producer):
    said = workers[producer].script(
        producer,
        "r = add.delay(2, y=3)\n"
        "print(r.get(timeout=60), r.state, r.successful(), r.traceback)\n"
        "print(r.name, r.args, r.kwargs, r.retries, r.queue, '@' in r.worker, list(r.children))\n"
        "import datetime; print(abs(datetime.datetime.now(datetime.timezone.utc) - r.date_done).total_seconds() < 15)\n",
    )
    assert said == ["5 SUCCESS True None", "fleet.add [2] {'y': 3} 0 celery True []", "True"]


@BOTH_WAYS
def test_an_exception_of_the_others_worker_is_raised_with_its_type_and_traceback(workers, producer):
    said = workers[producer].script(
        producer,
        "for r in (fails.delay('kaput'), breaks.delay('a', 2), fleet.breaks.delay()):\n"
        "    try: r.get(timeout=60)\n"
        "    except (ValueError, BrokenError) as exc:\n"
        "        print(type(exc) in (ValueError, BrokenError), repr(exc), r.state, r.failed(), 'in breaks' in r.traceback)\n",
    )
    assert said == [
        "True ValueError('kaput') FAILURE True False",
        "True BrokenError('a', 2) FAILURE True True",
        "True BrokenError() FAILURE True True",
    ]


@BOTH_WAYS
def test_started_is_seen_and_a_reader_that_waits_already_is_woken(workers, producer):
    said = workers[producer].script(
        producer,
        "import threading\n"
        "r = held.delay('release-me')\n"
        "end = time.monotonic() + 15\n"
        "while r.state != 'STARTED' and time.monotonic() < end: time.sleep(0.01)\n"
        "print(r.state, sorted(r.info), type(r.info['pid']).__name__)\n"
        "touched = []\n"
        "def release():\n"
        "    time.sleep(0.3); touched.append(time.monotonic()); (FOLDER / 'release-me').touch()\n"
        "threading.Thread(target=release).start()\n"
        "print(r.get(timeout=60), 0 < time.monotonic() - touched[0] < 1)\n",
    )
    assert said == ["STARTED ['hostname', 'pid'] int", "release-me True"]


@BOTH_WAYS
def test_values_of_every_type_of_kombus_json_come_and_go(workers, producer):
    said = workers[producer].script(
        producer,
        KINDS + "args, kwargs = echo.apply_async(values, {'v%d' % n: v for n, v in enumerate(values)}).get(timeout=60)\n"
        "print(args == values, list(kwargs.values()) == values, [type(v) for v in args] == [type(v) for v in values])\n"
        "print([v for v, w in zip(args, values) if v != w or type(v) != type(w)])\n",
    )
    assert said == ["True True True", "[]"]


@BOTH_WAYS
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_compressed_and_msgpack_bodies_are_read(workers, producer, serializer):
    said = workers[producer].script(
        producer,
        "ways = [None, 'zlib', 'gzip', 'bzip2', 'lzma']\n"
        f"sent = [echo.apply_async(('x' * 5000, n), dict(way=w), serializer='{serializer}', compression=w) for n, w in enumerate(ways)]\n"
        "print([r.get(timeout=60) == [['x' * 5000, n], {'way': w}] for n, (r, w) in enumerate(zip(sent, ways))])\n",
    )
    assert said == ["[True, True, True, True, True]"]


@BOTH_WAYS
def test_countdown_and_eta_wait_and_an_expired_task_is_revoked(workers, producer):
    said = workers[producer].script(
        producer,
        "import datetime as dt\n"
        "utc, zone = dt.timezone.utc, dt.timezone(dt.timedelta(hours=-7))\n"
        "began = time.time()\n"
        "soon = dt.datetime.now(utc) + dt.timedelta(seconds=1.5)\n"
        "ways = [dict(countdown=1.5), dict(eta=soon), dict(eta=soon.astimezone(zone)), dict(eta=soon.replace(tzinfo=None))]\n"
        "sent = [add.apply_async((1, n), **way) for n, way in enumerate(ways, 1)]\n"
        "late = add.apply_async((0, 0), countdown=1.6, expires=0.2)\n"
        "print(add.delay(0, 1).get(timeout=60), time.time() - began < 1.4)\n"
        "print([r.get(timeout=60) for r in sent], 1.4 < time.time() - began < 5)\n"
        "print(repr(late.get(timeout=60, propagate=False)), late.state)\n",
    )
    assert said == ["1 True", "[2, 3, 4, 5] True", "TaskRevokedError('expired') REVOKED"]


@BOTH_WAYS
def test_the_task_sees_its_call_as_it_was_sent(workers, producer):
    said = workers[producer].script(
        producer,
        "r = seen.apply_async((1,), {'k': 'v'}, priority=4, headers={'traceparent': '00-ab'}, shadow='shown', expires=60)\n"
        "print({'id': r.id, **r.get(timeout=60)} == r.get(), repr(r.get()))\n",
    )
    same, _, text = said[0].partition(" ")
    request = ast.literal_eval(text)
    assert same == "True"
    assert request["root_id"] == request["correlation_id"] == request["id"]
    assert request["parent_id"] is request["group"] is request["eta"] is None
    assert (request["task"], request["args"], request["kwargs"]) == ("fleet.seen", [1], {"k": "v"})
    assert (request["argsrepr"], request["kwargsrepr"], request["shadow"]) == ("(1,)", "{'k': 'v'}", "shown")
    assert (request["retries"], request["timelimit"], request["ignore_result"]) == (0, [None, None], False)
    assert not request["delivery_info"].pop("redelivered")
    assert request["delivery_info"] == {"exchange": "", "routing_key": "celery", "priority": 4}
    assert request["headers"]["traceparent"] == "00-ab"
    assert request["expires"].startswith("20")
    assert request["reply_to"].count("-") == 4
    assert request["origin"].startswith("gen")
    assert request["hostname"].startswith("celery@")


@BOTH_WAYS
def test_a_retry_is_seen_while_it_waits_and_its_value_at_the_end(workers, producer):
    said = workers[producer].script(
        producer,
        "r, seen = flaky.delay(2, 0.4), []\n"
        "end = time.monotonic() + 15\n"
        "while not r.ready() and time.monotonic() < end:\n"
        "    state, info = r.state, r.info\n"
        "    if state == 'RETRY' and isinstance(info, KeyError) and repr(info) not in seen: seen.append(repr(info))\n"
        "    time.sleep(0.01)\n"
        "print(seen, r.get(timeout=1), r.state, r.retries)\n",
    )
    assert said == ["[\"KeyError('not yet')\"] 2 SUCCESS 2"]


@BOTH_WAYS
def test_progress_and_the_children_of_a_task_are_read(workers, producer):
    said = workers[producer].script(
        producer,
        "r, end = progresses.delay('progressed'), time.monotonic() + 15\n"
        "while r.state != 'PROGRESS' and time.monotonic() < end: time.sleep(0.01)\n"
        "print(r.state, r.info); (FOLDER / 'progressed').touch(); print(r.get(timeout=60))\n"
        "r = sends.delay(4)\n"
        "child = r.get(timeout=60)\n"
        "print([c.id for c in r.children] == [child], r.children[0].get(timeout=60), r.children[0].name)\n"
        "print(app.send_task('fleet.add', ('\u00e4', '\u00f6'), task_id='an id \u00fc').get(timeout=60))\n",
    )
    assert said == ["PROGRESS {'done': 1, 'of': 2}", "done", "True 5 fleet.add", "äö"]


@BOTH_WAYS
def test_nothing_is_stored_of_an_ignored_result(workers, producer):
    said = workers[producer].script(
        producer,
        "r = work.apply_async((1,), ignore_result=True)\nprint(add.delay(1, 2).get(timeout=60), app.AsyncResult(r.id).state)\n",
    )
    assert said == ["3 PENDING"]


@BOTH_WAYS
def test_priorities_are_kept_for_the_others_worker(fleet, producer):
    fleet.script(producer, "for p in (9, 5, 0, 3, 6): work.apply_async((p,), priority=p)")
    with fleet.worker(OTHER[producer], "-c", "1"):
        wait_for(lambda: len(fleet.ledger()) == 5, 20, fleet.tails)
    assert [int(what) for _, what in fleet.ledger()] == [0, 5, 3, 6, 9]


@BOTH_WAYS
def test_other_names_of_keys_and_other_formats_of_results_are_shared(new_fleet, producer):
    fleet = new_fleet(
        broker_transport_options={"global_keyprefix": "pre:", "sep": ":", "priority_steps": list(range(10))},
        result_backend_transport_options={"global_keyprefix": "fix"},
        result_serializer="msgpack",
        result_accept_content=["json", "msgpack"],
        result_compression="zlib",
        result_expires=60,
    )
    fleet.script(producer, "for p in (9, 1, 0, 2): work.apply_async((p,), priority=p)")
    with fleet.worker(OTHER[producer], "-c", "1"), redis_of(fleet) as client:
        said = fleet.script(producer, "r = echo.delay('y' * 3000); print(r.get(timeout=60) == [['y' * 3000], {}], r.id)")[0].split()
        wait_for(lambda: len(fleet.ledger()) == 4, 15, fleet.tails)
        assert said[0] == "True"
        assert 0 < client.ttl(f"fix_celery-task-meta-{said[1]}") <= 60
        assert [key for key in client.scan_iter() if not key.startswith((b"pre:", b"fix_"))] == []
    assert [int(what) for _, what in fleet.ledger()] == [0, 1, 2, 9]


def test_a_message_of_protocol_1_and_one_that_kills_its_worker_are_answered(workers):
    said = workers["celery"].script(
        "celery",
        "app.conf.task_protocol = 1\n"
        "print(add.apply_async((1, 2), countdown=0.1).get(timeout=60))\n"
        "app.conf.task_protocol = 2\n"
        "r = dies.delay()\n"
        "try: r.get(timeout=60)\n"
        "except Exception as exc: print(type(exc).__module__, repr(exc), r.state)\n",
    )
    assert said[0] == "3"
    assert said[1].startswith("billiard.exceptions WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL)")
    assert said[1].endswith("FAILURE")


def test_a_group_of_celery_is_run_by_umbel_and_read_by_celery(workers):
    said = workers["celery"].script(
        "celery", "from celery import group\nr = group(add.s(n, n) for n in range(5))(); print(r.get(timeout=60), r.completed_count())"
    )
    assert said == ["[0, 2, 4, 6, 8] 5"]


WORKFLOWS = """
import celery
add.apply_async((1, 2), link=work.s())
fails.apply_async(('x',), link_error=work.si(1))
print((add.s(1, 1) | work.s()).delay().get(timeout=60))
print(celery.chord([add.s(1, 2), add.s(3, 4)])(echo.s()).get(timeout=60))
"""


def test_a_workflow_that_a_celery_producer_sends_is_followed_to_its_end(fleet):
    with fleet.worker("umbel", "-c", "1"):
        assert fleet.script("celery", WORKFLOWS) == ["2", "[[[3, 7]], {}]"]
        wait_for(lambda: sorted(what for _, what in fleet.ledger()) == ["1", "2", "3"], 10, fleet.tails)
    assert depth(fleet).dead == 0


def test_a_task_that_umbel_does_not_know_is_parked_and_stays_pending(fleet):
    fleet.script("celery", "app.send_task('fleet.not_here', (1,))")
    with fleet.worker("umbel", "-c", "1") as worker:
        worker.waits_to_print("Received unregistered task of type 'fleet.not_here'")
        assert fleet.script("celery", "print(add.delay(1, 1).get(timeout=60))") == ["2"]
        wait_for(lambda: depth(fleet).parked == 1, 10, fleet.tails)


def test_four_hundred_tasks_of_both_producers_run_once_each_on_both_workers(fleet):
    send = "ns = range({0}, {0} + 200); sent = [work.delay(n, 0.004) for n in ns]; print([r.get(timeout=60) for r in sent] == list(ns))"
    with fleet.worker("celery") as celery, fleet.worker("umbel", "-c", "2") as umbel:
        celery.waits_to_print("ready.")
        umbel.waits_to_print("ready.")
        producers = [fleet.begin("celery", send.format(0)), fleet.begin("umbel", send.format(200))]
        assert [fleet.end(producer) for producer in producers] == [["True"], ["True"]]
    assert Counter(int(what) for _, what in fleet.ledger()) == Counter(range(400))
    assert min(Counter(library for library, _ in fleet.ledger()).values()) > 20, "one worker did it all"
    assert leftovers(fleet) == {}


@pytest.mark.parametrize("library", ["celery", "umbel"])
def test_a_retry_of_one_library_is_run_by_the_other(fleet, library):
    other = OTHER[library]
    code = (
        "sent = [hands_over.apply_async(({!r}, 'second', n), dict(extra=b'\\xff'), queue='first', compression='zlib') for n in (0, 0.5)]\n"
    )
    code += "for r in sent: print(r.id, r.get(timeout=60), r.name, r.retries, r.queue, r.kwargs)"
    with fleet.worker(other, "-Q", "first", task_delay_for="celery"), fleet.worker(library, "-Q", "second"):
        said = [line.partition(" ") for line in fleet.script("celery", code.format(library))]
    assert [rest for _, _, rest in said] == [f"['{library}', 1, True, b'\\xff'] fleet.hands_over 1 second {{'extra': b'\\xff'}}"] * 2
    assert sorted(fleet.ledger()) == sorted([who, f"{task_id} {n}"] for task_id, _, _ in said for n, who in enumerate((other, library)))


AGAIN = """
again = dict(queue='first')
tries_again.apply_async((1, b'\\xff'), {'k': 1.5}, **again, priority=4, headers={'traceparent': '00-ab'}, shadow='shown', expires=600)
tries_again.apply_async((2,), **again, compression='zlib', ignore_result=True)
tries_again.apply_async((3,), **again, serializer='msgpack', time_limit=30, soft_time_limit=20)
app.send_task('fleet.tries_again', (4,), **again)
tries_again.apply_async((5,), **again, reply_to='me', correlation_id='corr', group_id='g', group_index=3, root_id='root', delivery_mode=1)
"""


def test_the_message_of_a_retry_is_the_one_that_celery_would_send(fleet):
    sent = {}
    with redis_of(fleet) as client:
        for library in ("celery", "umbel"):
            lists = [f"again-{library}", f"again-{library}\x06\x163"]
            with fleet.worker(library, "-Q", "first"):
                fleet.script("celery", AGAIN)
                wait_for(lambda lists=lists: sum(map(client.llen, lists)) == 5, 10, fleet.tails)
            sent[library] = sorted((unlike_another(raw) for name in lists for raw in client.lrange(name, 0, -1)), key=lambda m: m["body"])
    assert sent["umbel"] == sent["celery"]


def unlike_another(raw: bytes) -> dict[str, Any]:
    """A message without what differs from one call, or one library, to the next."""
    message = json.loads(raw)
    headers, properties = message["headers"], message["properties"]
    assert headers["parent_id"] == headers["id"]
    assert properties["delivery_info"].pop("routing_key").startswith("again-")
    assert len(properties.pop("delivery_tag")) == 36
    headers.pop("umbel_sent", None)  # umbel's own
    properties.pop("origin", None)  # a slip of Celery's; nobody reads it
    for where, name in ((headers, "expires"), (properties, "expiration")):
        if where.get(name):
            where[name] = "some time"
    if properties["reply_to"] != "me":
        del properties["reply_to"]
    for where, name in ((headers, "root_id"), (properties, "correlation_id")):
        if where[name] == headers["id"]:
            where[name] = "itself"
    for name in ("id", "parent_id", "origin", "argsrepr"):
        del headers[name]  # of the arguments Celery shows a tuple, umbel what came in the message, a list
    return dict(message)


def test_retries_on_a_queue_of_both_workers_are_counted_once_each(fleet):
    with fleet.worker("celery") as celery, fleet.worker("umbel", "-c", "2"):
        celery.waits_to_print("ready.")
        code = "print([r.get(timeout=60) for r in [flaky.delay(6, 0.1) for _ in range(4)]])"
        producers = [fleet.begin(library, code) for library in ("celery", "umbel")]
        assert [fleet.end(producer) for producer in producers] == [["[6, 6, 6, 6]"]] * 2
    assert Counter(what for _, what in fleet.ledger()) == {f"flaky {n}": 8 for n in range(7)}
    assert leftovers(fleet) == {}


def test_what_celery_has_claimed_is_left_alone_and_what_it_gives_back_is_run(fleet):
    with fleet.worker("celery", "-P", "prefork", "-c", "1") as celery:
        fleet.script("celery", "held_late.delay('a'); [work.delay(n) for n in range(3)]")  # the three are prefetched
        wait_for(lambda: redis_of(fleet).hlen("unacked") == 4, 20, fleet.tails)
        with fleet.worker("umbel", "-c", "2"):
            assert fleet.script("umbel", "print(work.delay(3).get(timeout=60))") == ["3"]
            assert redis_of(fleet).hlen("unacked") == redis_of(fleet).zcard("unacked_index") == 4
            assert fleet.ledger() == [["celery", "holds a"], ["umbel", "3"]]
            celery.send(15)
            celery.waits_to_print("Warm shutdown")
            fleet.touch("a")
            assert celery.exit_code() == 0
            wait_for(lambda: len(fleet.ledger()) == 6, 15, fleet.tails)
    assert sorted(fleet.ledger()[2:]) == sorted([["celery", "held a"], *(["umbel", str(n)] for n in range(3))])
    assert leftovers(fleet) == {}


def test_celery_is_not_disturbed_by_umbels_keys_nor_does_it_change_them(fleet):
    with fleet.worker("umbel", "-c", "1") as umbel:
        fleet.script("umbel", "app.send_task('fleet.not_here', (1,)); work.apply_async((1,), countdown=600)")
        rubbish = "app.broker.publish([__import__('umbel.broker').broker.Item(raw=b'rubbish', queue='celery', id='x')])"
        fleet.script("umbel", rubbish + "; held_late.delay('a')")
        wait_for(lambda: depth(fleet).dead == depth(fleet).parked == depth(fleet).delayed == depth(fleet).claimed == 1, 20, fleet.tails)
        with fleet.worker("celery") as celery:
            celery.waits_to_print("ready.")
            before = depth(fleet)
            umbel.send(19)  # stopped, well within its lease: only Celery consumes
            assert fleet.script("celery", "print([add.delay(n, n).get(timeout=60) for n in range(20)][-1])") == ["38"]
            assert "ERROR" not in celery.log(), celery.tail()
            assert depth(fleet) == before
            umbel.send(18)
            celery.send(15)
            assert celery.exit_code() == 0, celery.tail()
        fleet.touch("a")
        wait_for(lambda: ["umbel", "held a"] in fleet.ledger(), 15, fleet.tails)
    assert [line for line in fleet.ledger() if line[1].startswith("hold")] == [["umbel", "holds a"]]


def redis_of(fleet):
    import redis

    return redis.Redis.from_url(fleet.url)


def depth(fleet):
    """How many messages umbel has, by what it does with them."""
    from umbel.drivers import open_broker

    broker = open_broker(fleet.url)
    try:
        return broker.depth(["celery"])["celery"]
    finally:
        broker.close()


def leftovers(fleet) -> dict[bytes, str]:
    """What is in the database besides results, bindings and what lives only for a while."""
    with redis_of(fleet) as client:
        keys = [key for key in client.scan_iter() if client.ttl(key) == -1 and not key.startswith(b"_kombu.")]
        return {key: client.type(key).decode() for key in keys}
