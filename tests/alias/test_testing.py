"""`umbel.contrib.testing`: workers in a thread, messages, waiting."""

import threading
import time
from datetime import datetime

import pytest

from umbel import signals
from umbel.contrib.testing.app import TestApp
from umbel.contrib.testing.manager import Manager
from umbel.contrib.testing.mocks import ContextMock, TaskMessage, TaskMessage1, task_message_from_sig
from umbel.contrib.testing.worker import start_worker, test_worker_started, test_worker_stopped
from umbel.exceptions import ImproperlyConfigured
from umbel.logs import get_logger
from umbel.result import EagerResult


def test_a_worker_leaves_the_log_and_the_standard_streams_as_they_are(capsys):
    root = list(get_logger("").handlers)
    app = TestApp()
    with start_worker(app):
        print("still here")
        assert get_logger("").handlers == root
    assert capsys.readouterr().out == "still here\n"


def test_it_says_when_it_starts_and_ends():
    app, heard = TestApp(), []

    def started(worker, **_):
        heard.append(("started", worker))

    def stopped(worker, **_):
        heard.append(("stopped", worker))

    test_worker_started.connect(started)
    test_worker_stopped.connect(stopped)
    with start_worker(app) as worker:
        assert heard == [("started", worker)]
    assert heard[1:] == [("stopped", worker)]


def test_an_app_that_cannot_start_says_why_in_the_test():
    app = TestApp(config={"worker_lease": 1.0, "worker_lease_renewal": 5.0})
    with pytest.raises(ImproperlyConfigured, match="worker_lease_renewal"), start_worker(app):
        pass


def test_a_pool_of_processes_is_refused():
    with pytest.raises(ImproperlyConfigured, match="prefork"), start_worker(TestApp(), pool="prefork"):
        pass


def test_a_task_that_does_not_end_is_told():
    app, go, began = TestApp(), threading.Event(), threading.Event()

    @app.task
    def stay():
        began.set()
        go.wait(20)

    running = start_worker(app, shutdown_timeout=0.1)
    running.__enter__()
    stay.delay()
    assert began.wait(10)
    with pytest.raises(RuntimeError, match="a task still runs"):
        running.__exit__(None, None, None)
    go.set()
    wait_for_end()


def wait_for_end():
    for thread in threading.enumerate():
        if thread.name in {"test-worker", "task-1"}:
            thread.join(10)
            assert not thread.is_alive()


def test_it_starts_and_ends_at_once():
    app = TestApp()
    begun = time.monotonic()
    with start_worker(app):
        pass
    assert time.monotonic() - begun < 2


def test_signals_of_the_pool_are_sent():
    app, heard = TestApp(), []

    def init(**_):
        heard.append("init")

    def end(**_):
        heard.append("end")

    signals.worker_process_init.connect(init)
    signals.worker_process_shutdown.connect(end)
    with start_worker(app):
        pass
    assert heard == ["init", "end"]


def test_a_message_has_what_readers_look_at():
    message = TaskMessage("add", id="1", args=(2,), kwargs={"y": 3}, eta="2030-01-01T00:00:00")
    assert message.headers["task"] == "add"
    assert message.headers["eta"] == "2030-01-01T00:00:00"
    assert message.payload == ([2], {"y": 3}, {"callbacks": None, "errbacks": None, "chain": None})
    assert message.content_type == "application/json"
    old = TaskMessage1("add", id="1", args=(2,))
    assert old.headers == {}
    assert old.payload["task"] == "add"
    with ContextMock() as mock:
        assert mock


def test_a_signature_makes_the_message_that_it_would_send():
    with TestApp() as app:

        @app.task(name="add")
        def add(x, y):
            return x + y

        sig = add.signature((2,), {"y": 3}, task_id="1", eta="2030-01-01T00:00:00", link=[add.s(10)], link_error=[add.si(0, 0)])
        message = task_message_from_sig(app, sig)
        assert message.headers["id"] == message.properties["correlation_id"] == "1"
        assert (message.headers["task"], message.headers["eta"]) == ("add", "2030-01-01T00:00:00")
        args, kwargs, embed = message.payload
        assert (args, kwargs) == ([2], {"y": 3})
        assert [(each["task"], list(each["args"])) for each in embed["callbacks"]] == [("add", [10])]
        assert [each["immutable"] for each in embed["errbacks"]] == [True]
        assert embed["chain"] is None
        late = datetime.fromisoformat(task_message_from_sig(app, add.s(1, 1).set(countdown=60)).headers["eta"])
        assert 0 < (late - app.now()).total_seconds() <= 60
        assert task_message_from_sig(app, add.s(1, 1)).headers["id"] != task_message_from_sig(app, add.s(1, 1)).headers["id"]


def test_a_manager_waits_until_there_is_no_error():
    tries = []

    def third():
        tries.append(1)
        if len(tries) < 3:
            raise KeyError
        return "there"

    assert Manager(TestApp()).wait_for(third, KeyError, interval_start=0, interval_step=0) == "there"


def test_packages_for_celery_find_the_app_of_a_task_and_what_is_known_of_a_result():
    app = TestApp()

    @app.task
    def nothing():
        return None

    assert nothing._get_app() is type(nothing)._get_app() is app
    assert app.AsyncResult("1")._get_task_meta()["status"] == "PENDING"
    assert EagerResult(None, None, "REJECTED").id is None
