"""What `app.control` writes, and what it answers."""

import signal
from datetime import timedelta
from uuid import uuid4

import pytest

from umbel import Celery, states
from umbel.exceptions import TaskRevokedError


@pytest.fixture
def app():
    url = f"memory://{uuid4().hex}"
    with Celery("controlled", broker=url, backend=url) as app:
        yield app


def listed(app):
    return {entry.id: entry.signal for entry in app.broker.revoked_since(0).entries}


def test_one_id_or_many_are_revoked(app):
    assert app.control.revoke("a") is None
    app.control.revoke(["b", "c"])
    app.AsyncResult("d").revoke()
    assert listed(app) == {"a": "", "b": "", "c": "", "d": ""}


@pytest.mark.parametrize("name", ["SIGKILL", "kill", 9, "9", signal.SIGKILL])
def test_a_signal_is_a_name_or_a_number(app, name):
    app.control.revoke("a", terminate=True, signal=name)
    assert listed(app) == {"a": "SIGKILL"}


def test_terminating_takes_sigterm_unless_told_otherwise(app):
    app.control.terminate(["a"])
    app.AsyncResult("b").revoke(terminate=True)
    app.control.revoke("c", signal="SIGKILL")
    assert listed(app) == {"a": "SIGTERM", "b": "SIGTERM", "c": ""}


@pytest.mark.parametrize("wrong", [None, 7])
def test_what_is_no_id_is_refused_in_a_sentence(app, wrong):
    with pytest.raises(TypeError, match=f"{wrong} is no id of a task. Give the id as text"):
        app.control.revoke(wrong)


@pytest.mark.parametrize("wrong", [1.5, "1000", 1000, ""])
def test_what_is_no_signal_is_refused_in_a_sentence(app, wrong):
    with pytest.raises(ValueError, match=f"There is no signal {wrong!r} on this system"):
        app.control.revoke("a", terminate=True, signal=wrong)


def test_a_signal_that_is_not_there_is_an_error(app):
    with pytest.raises(ValueError, match="There is no signal 'SIGNONE' on this system"):
        app.control.terminate("a", signal="SIGNONE")
    assert listed(app) == {}


@pytest.mark.parametrize("task_id", ["two\nlines", "x" * 2000, "\x1b[2J", ""])
def test_what_cannot_be_an_id_is_an_error(app, task_id):
    with pytest.raises(ValueError, match="is no id of a task"):
        app.control.revoke(["a", task_id])
    assert listed(app) == {}


def test_celerys_other_options_are_understood(app):
    assert app.control.revoke("a", destination=["celery@x"], reply=True, timeout=1.0) == []
    app.AsyncResult("b").revoke(wait=True, timeout=1.0)
    assert listed(app) == {"a": "", "b": ""}


def test_a_revoked_id_is_remembered_as_long_as_the_setting_says(app):
    app.conf.task_revoke_expires = timedelta(hours=1)
    app.control.revoke("a")
    app.conf.task_revoke_expires = 60
    app.control.revoke("b")
    longer, shorter = (entry.expires for entry in app.broker.revoked_since(0).entries)
    assert longer - shorter == pytest.approx(3540, abs=30)


def test_what_comes_later_is_not_there_and_says_so(app):
    assert not hasattr(app.control, "ping")
    with pytest.raises(AttributeError, match=r"app\.control\.inspect comes with a later version of umbel"):
        app.control.inspect()


def test_a_result_that_ran_eagerly_can_be_revoked(app):
    @app.task
    def add(x, y):
        return x + y

    result = add.apply((1, 2))
    result.revoke()
    assert result.state == states.REVOKED
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get()
