"""`umbel result`, also with --watch, of saved groups and of workflows."""

import json
import subprocess

import pytest
from tests.cli.test_result_on_a_terminal import on_a_terminal, shown_until
from tests.processes import wait_for

from umbel import Umbel, chord, group
from umbel.backend import Record
from umbel.contrib.testing.worker import start_worker
from umbel.meta import build_meta, encode_meta
from umbel.result import AsyncResult, GroupResult


@pytest.fixture
def app(project):
    at = f"sqlite:///{project.path}"
    with Umbel("here", broker=f"{at}/q.sqlite3", backend=f"{at}/r.sqlite3", set_as_current=False) as app:
        app.task(name="add")(lambda x, y: x + y)
        app.task(name="total")(sum)
        yield app


@pytest.fixture
def job(app):
    """A saved group of three, of which two have ended."""
    job = GroupResult("the-group", [AsyncResult(each, app=app) for each in "abc"], app=app)
    job.save()
    for value, each in enumerate("ab"):
        end(app, each, "SUCCESS", value)
    return job


def end(app, task_id, state, value):
    app.backend.store([Record(id=task_id, state=state, meta=encode_meta(build_meta(task_id, state, value)))])


def started(project, *words):
    return subprocess.Popen(
        project.command("-A", "proj", "result", *words), cwd=project.path, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_a_saved_group_is_watched_until_all_members_have_ended(app, project, job):
    with started(project, "--watch", "the-group") as watching:
        assert watching.stdout.readline() == "STARTED 2/3\n"
        end(app, "c", "SUCCESS", 2)
        out, err = watching.communicate(timeout=30)
    assert (out, err, watching.returncode) == ("SUCCESS 3/3\n[0, 1, 2]\n", "", 0)


def test_a_saved_group_is_watched_as_json(app, project, job):
    with started(project, "--watch", "--json", "the-group") as watching:
        first = json.loads(watching.stdout.readline())
        end(app, "c", "FAILURE", ValueError("no"))
        out, _ = watching.communicate(timeout=30)
    common = {"id": "the-group", "kind": "group"}
    assert first == {**common, "state": "STARTED", "done": 2, "failed": 0, "total": 3, "result": None}
    assert json.loads(out) == {**common, "state": "FAILURE", "done": 3, "failed": 1, "total": 3, "result": [0, 1, "ValueError('no')"]}
    assert watching.returncode == 1


def test_a_group_of_which_members_failed_says_which_and_why(app, project, job):
    end(app, "c", "FAILURE", ValueError("no"))
    ran = project.umbel("-A", "proj", "result", "the-group")
    assert (ran.stdout, ran.returncode) == ("", 1)
    assert ran.stderr == "c: ValueError('no')\n"
    assert project.umbel("-A", "proj", "result", "--watch", "the-group").stdout == "FAILURE 3/3, 1 failed\n"
    document = json.loads(project.umbel("-A", "proj", "result", "--json", "the-group").stdout)
    assert document == {"id": "the-group", "state": "FAILURE", "result": [0, 1, "ValueError('no')"], "traceback": None}


def test_a_group_that_has_not_ended_in_time_says_how_far_it_is(project, job):
    for how in ((), ("--watch",)):
        ran = project.umbel("-A", "proj", "result", "--timeout", "0.1", *how, "the-group")
        assert "The group the-group has not ended within 0.1 s: 2 of its 3 tasks have." in ran.stderr
        assert ran.returncode == 1


def test_a_workflow_is_watched_by_the_id_of_its_result(app, project):
    add, total = app.tasks["add"], app.tasks["total"]
    result = chord([add.s(n, n) for n in range(3)], total.s()).apply_async()
    with started(project, "--watch", result.id) as watching:
        assert watching.stdout.readline() == "PENDING 0/4\n"
        with start_worker(app, perform_ping_check=False):
            out, _ = watching.communicate(timeout=30)
    assert out.endswith("SUCCESS 4/4\n6\n")
    assert watching.returncode == 0


def test_a_saved_group_of_workflows_counts_its_members(app, project):
    add, total = app.tasks["add"], app.tasks["total"]
    result = group(add.s(1, 1), chord([add.s(1, 1)], total.s())).apply_async()
    result.save()
    with start_worker(app, perform_ping_check=False):
        ran = project.umbel("-A", "proj", "result", "--watch", result.id)
    assert ran.stdout.endswith("SUCCESS 2/2\n[2, 2]\n")


def test_an_id_of_which_nothing_is_known_is_said_to_be_so(app, project):
    with started(project, "--watch", "nobody") as watching:
        assert watching.stderr.readline() == (
            "Nothing is stored of nobody. It may wait in a queue, have expired, or be no id of this app; "
            "a group is found only after result.save().\n"
        )
        assert watching.stdout.readline() == "PENDING\n"
        end(app, "nobody", "SUCCESS", 1)
        out, _ = watching.communicate(timeout=30)
    assert out == "SUCCESS\n1\n"


def test_what_is_no_group_is_said_to_be_none(app, project):
    app.backend.save_group("rubbish", b'{"result": 1}', expires=None)
    ran = project.umbel("-A", "proj", "result", "rubbish")
    assert "What is saved as the group rubbish is not the document of a group" in ran.stderr
    assert ran.returncode == 1


def test_a_group_has_a_bar_on_a_terminal_and_ctrl_c_ends_it(app, project, job):
    with on_a_terminal(project, "-A", "proj", "result", "--watch", "the-group") as terminal:
        assert b"2/3" in shown_until(terminal.file, b"2/3")
        terminal.type(b"\x03")
        rest = shown_until(terminal.file, None)
    assert terminal.exit_code == 130
    assert rest.endswith(b"\r\n\x1b[?25h"), "the line is over, and the cursor is there again"


def test_the_bar_of_a_group_ends_with_it(app, project, job):
    with on_a_terminal(project, "-A", "proj", "result", "--watch", "the-group") as terminal:
        shown_until(terminal.file, b"2/3")
        end(app, "c", "SUCCESS", 2)
        rest = shown_until(terminal.file, None)
    wait_for(lambda: b"3/3" in rest, 1, lambda: rest)
    assert rest.endswith(b"[0, 1, 2]\r\n")
    assert terminal.exit_code == 0
