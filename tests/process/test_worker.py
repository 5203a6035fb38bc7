"""A worker in its own process runs what another process sends, in every pool."""

import contextlib
import os
import signal
import subprocess
import time

import pytest
from tests.processes import wait_for

POOLS = ["prefork", "threads", "asyncio", "solo"]


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_runs_functions_and_coroutines_and_keeps_their_results(ledger, pool):
    with ledger.worker("-P", pool, "-c", "3") as worker:
        said = ledger.script(
            "from ledger_app import *\n"
            "sent = [work.delay(n) for n in range(20)] + [awaits.delay(n, 0.01) for n in range(20, 40)]\n"
            "print([r.get(timeout=60) for r in sent] == list(range(40)), flaky.delay(40, 2).get(timeout=60))\n"
            "for failing in (raises.delay('kaput'), unwritable.delay(), exits.delay()):\n"
            "    print(repr(failing.get(timeout=60, propagate=False)), failing.state)\n"
            "print(asks_in_a_task.delay().get(timeout=60))\n"
        )
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    lines = said.splitlines()
    assert lines[0] == "True 2"
    assert lines[1] == "ValueError('kaput') FAILURE"
    assert lines[2].startswith("EncodeError('What ledger_app.unwritable returned cannot be stored. A value cannot be written as JSON: ")
    assert lines[3] == "SystemExit(3) FAILURE"
    assert lines[4] == "Never call result.get() within a task!"
    assert ledger.numbers() == set(range(41)) | {1}
    log = worker.log()
    assert "Task ledger_app.raises[" in log
    assert "raised unexpected: ValueError('kaput')" in log
    assert "worker: Warm shutdown (MainProcess)" in log
    assert "umbel/execution" not in log, "a traceback begins in the user's code"


def test_a_class_of_ones_own_is_called_with_its_request_and_its_handlers(ledger):
    with ledger.worker("-c", "1"):
        said = ledger.script("from ledger_app import *; print(counted.delay(7).get(timeout=60))")
        wait_for(lambda: "after_return SUCCESS" in ledger.lines(), 10, ledger.logs)
    assert said.strip() == "True 7"
    assert ledger.lines() == ["called 0", "on_success True 7", "after_return SUCCESS"]


def test_autoretry_ends_with_the_exception_itself(ledger):
    with ledger.worker("-c", "1"):
        said = ledger.script(
            "from ledger_app import *; r = always_fails.delay(5); print(repr(r.get(timeout=60, propagate=False)), r.state)"
        )
    assert said.strip() == "KeyError(5) FAILURE"
    assert ledger.lines() == ["attempt 5"] * 3


def test_started_and_progress_are_seen_while_the_task_runs(ledger):
    with ledger.worker("-c", "1"):
        said = ledger.script(
            "from ledger_app import *\nimport time\nr, seen = progresses.delay(0.4), []\n"
            "while (state := r.state) != 'SUCCESS':\n"
            "    if state not in seen: seen.append(state)\n"
            "    time.sleep(0.01)\n"
            "print([s for s in seen if s != 'PENDING'], r.get())"
        )
    assert said.strip() == "['STARTED', 'PROGRESS'] done"


def test_what_a_task_prints_is_a_warning_in_the_log(ledger):
    with ledger.worker("-c", "1") as worker:
        ledger.script("from ledger_app import *; prints.delay('hello from a task').get(timeout=60)")
        worker.waits_to_print("WARNING/ForkPoolWorker-1] hello from a task")


def test_a_countdown_waits_in_the_broker_and_an_expired_task_is_revoked(ledger):
    with ledger.worker("-c", "1"):
        said = ledger.script(
            "from ledger_app import *\nimport time\nsent = time.time()\n"
            "r = work.apply_async((1,), countdown=0.6); late = work.apply_async((2,), countdown=0.5, expires=0.1)\n"
            "r.get(timeout=60); print(0.5 < time.time() - sent < 3)\n"
            "print(repr(late.get(timeout=60, propagate=False)), late.state)"
        )
    assert said.splitlines() == ["True", "TaskRevokedError('expired') REVOKED"]
    assert ledger.numbers() == {1}


def test_an_unknown_task_is_parked_and_runs_when_a_worker_knows_it(ledger):
    ledger.script("from ledger_app import app; app.send_task('ledger_app.not_yet', (1,))")
    with ledger.worker("-c", "1") as worker:
        worker.waits_to_print("Received unregistered task of type 'ledger_app.not_yet'")
        depth = "from ledger_app import app; print(app.broker.depth(['celery']))"
        wait_for(lambda: "parked=1" in ledger.script(depth), 10, ledger.logs)
        assert ledger.script("from ledger_app import work; print(work.delay(3).get(timeout=60))").strip() == "3"
    code = (
        "import ledger_app\nfrom ledger_app import *\n"
        "@app.task(name='ledger_app.not_yet')\ndef not_yet(n): note(f'{n}')\n"
        "import threading, time\n"
        "w = app.Worker(pool='solo', quiet=True)\n"
        "def watch():\n"
        "    while '1' not in open(os.environ['LEDGER']).read().split(): time.sleep(0.05)\n"
        "    w.stop()\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        "w.run()\n"
    )
    ledger.script(code)
    assert "1" in ledger.lines()


RUBBISH = """
import json, base64
from ledger_app import app, work
from umbel.broker import Item
from umbel.ids import uuid
good = {"body": base64.b64encode(b'[[1], {}, {}]').decode(), "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"task": "ledger_app.work", "id": "x"},
        "properties": {"delivery_info": {"exchange": "", "routing_key": "celery"}, "delivery_tag": "t"}}
def with_(**changes): return json.dumps({**good, **changes}).encode()
rubbish = [b"", b"not json", b"[1, 2]", b'{"headers": 3}', b"\\xff\\xfe", with_(body="!!!"), with_(headers={"task": "ledger_app.work"}),
    with_(body=base64.b64encode(b'"no triple"').decode()), with_(**{"content-type": "application/x-python-serialize"}),
    with_(**{"content-type": "application/x-unknown"}), with_(headers={"task": "ledger_app.work", "id": "y", "eta": "tomorrow"}),
    with_(body=base64.b64encode(b'[[[[').decode()), b"[" * 100000]
app.broker.publish([Item(raw=raw, queue="celery", id=uuid()) for raw in rubbish])
print(len(rubbish))
"""


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_rubbish_never_stops_a_worker_and_is_kept_as_a_dead_letter(ledger, pool):
    count = int(ledger.script(RUBBISH))
    with ledger.worker("-P", pool, "-c", "2") as worker:
        assert ledger.script("from ledger_app import work; print(work.delay(9).get(timeout=60))").strip() == "9"
        wait_for(
            lambda: f"dead={count}" in ledger.script("from ledger_app import app; print(app.broker.depth(['celery']))"), 20, ledger.logs
        )
        reasons = ledger.script("from ledger_app import app; print(*[d.reason for d in app.broker.dead('celery')], sep='\\n')")
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert "application/x-python-serialize" in reasons
    assert ledger.numbers() == {9}


def test_a_parent_that_is_killed_leaves_no_child_behind(ledger):
    ledger.script("from ledger_app import early; early.delay(1, 30)")
    with ledger.worker("-c", "1") as worker:
        wait_for(lambda: "started 1" in ledger.lines(), 20, ledger.logs)
        worker.kill()
        wait_for(lambda: not alive_in_session(worker.pid), 3)


def alive_in_session(session: int) -> list[str]:
    rows = subprocess.check_output(["ps", "-eo", "sid=,pid=,stat="], text=True).split("\n")
    return [row for row in rows if row.split()[:1] == [str(session)] and "Z" not in row.split()[2]]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_task_that_holds_the_interpreters_lock_keeps_its_lease(ledger, pool):
    ledger.script("from ledger_app import holds_the_lock; holds_the_lock.delay(1, 5)")
    with ledger.worker("-P", pool, "-c", "2") as first:
        first.waits_to_print("holds_the_lock")
        with ledger.worker("-P", "prefork", "-c", "1"):  # would take it over if the lease of 1.5 s lapsed
            wait_for(lambda: ledger.lines() == ["1"], 20, ledger.logs)
            depth = "from ledger_app import app; print(app.broker.depth(['celery'])['celery'].claimed)"
            wait_for(lambda: ledger.script(depth).strip() in {"0", "None"}, 10, ledger.logs)
    assert ledger.lines() == ["1"]


def test_a_worker_that_was_stopped_past_its_lease_changes_nothing_when_it_goes_on(ledger):
    ledger.script("from ledger_app import work; work.delay(1, 1.0)")
    with ledger.worker("-c", "1") as first:
        first.waits_to_print("received")
        for pid in stopped_order(first.pid):
            os.kill(pid, signal.SIGSTOP)
        with ledger.worker("-c", "1"):
            wait_for(lambda: ledger.lines() == ["1"], 20, ledger.logs)
            for pid in stopped_order(first.pid):
                with contextlib.suppress(ProcessLookupError):  # the parent, which goes on first, may have ended it
                    os.kill(pid, signal.SIGCONT)
            first.waits_to_print("The lease of")
            assert ledger.script("from ledger_app import work; print(work.delay(2).get(timeout=60))").strip() == "2"
            time.sleep(0.5)
    assert ledger.lines().count("2") == 1
    depth = ledger.script("from ledger_app import app; print(app.broker.depth(['celery'])['celery'])")
    assert "ready=0, delayed=0, claimed=0, parked=0, dead=0" in depth.replace("None", "0")  # not known


def stopped_order(session: int) -> list[int]:
    return [int(row.split()[1]) for row in alive_in_session(session)]


def test_a_result_is_there_though_a_task_behind_it_in_its_packet_takes_long(ledger):
    """Tasks of one kind were all quick before, so they travel together; then one of them takes seconds."""
    with ledger.worker("-c", "1", "-P", "prefork"):
        quick, slow = ledger.script(
            "from ledger_app import work; import time\n"
            "[result.get(timeout=60) for result in work.delay_many(((n,), {}) for n in range(300))]\n"
            "sent, began = work.delay_many([((n,), {}) for n in range(1000, 1010)] + [((2000, 5.0), {})]), time.time()\n"
            "[result.get(timeout=60) for result in sent[:-1]]\n"
            "print(time.time() - began)\n"
            "print(sent[-1].get(timeout=60))"
        ).split()
        assert float(quick) < 3
        assert slow == "2000"
        assert len(ledger.lines()) == 311, "what was heard twice is settled once"


def test_a_retry_goes_to_the_queue_that_its_message_came_from(ledger):
    """Whatever exchange a foreign producer named: the worker that runs it consumes this queue."""
    ledger.script(
        "from ledger_app import app\nfrom umbel.broker import Item\nfrom umbel.ids import uuid\nimport base64, json\n"
        "raw = json.dumps({'body': base64.b64encode(b'[[5, 1], {}, {}]').decode(), 'content-encoding': 'utf-8',\n"
        "    'content-type': 'application/json', 'headers': {'task': 'ledger_app.flaky', 'id': uuid()},\n"
        "    'properties': {'body_encoding': 'base64', 'delivery_tag': uuid(),\n"
        "    'delivery_info': {'exchange': 'pictures', 'routing_key': 'new'}}}).encode()\n"
        "app.broker.publish([Item(raw=raw, queue='img', id='5')])"
    )
    with ledger.worker("-c", "1", "-Q", "img"):
        wait_for(lambda: ledger.numbers() == {5}, 20, ledger.logs)
