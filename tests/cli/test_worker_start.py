"""What the worker says when it starts of that which cannot work, or does not work yet."""

import re
import shlex
import signal

import pytest
from tests.processes import Running, wait_for
from tests.servers import free_port


@pytest.fixture
def worker(project):
    """Starts a worker of the project."""

    def start(*words: str, **env: str) -> Running:
        command = project.command("-A", "proj", "worker", "-P", "solo", *words)
        return Running(command, cwd=project.path, env={**project.env, **env}, log=project.path / "worker.log")

    return start


@pytest.mark.parametrize("words", [("-X", "celery"), ("-Q", "a,b", "-X", "b,a,c")], ids=" ".join)
def test_a_worker_that_is_left_no_queue_says_so(project, one_sentence, words):
    said = one_sentence(project.umbel("-A", "proj", "worker", *words), 2)
    assert "No queue is left to consume: of " in said
    assert "with -Q." in said


def test_a_log_that_cannot_be_written_is_one_sentence(project, one_sentence):
    said = one_sentence(project.umbel("-A", "proj", "worker", "-f", "nothere/%n.log", "-n", "w1@here"), 1)
    assert "The log cannot be written to nothere/w1.log (No such file or directory). Make its folder" in said


def test_the_name_of_the_log_may_hold_that_of_the_node_and_children_write_to_it_too(project):
    project.project(more="\n\n@app.task\ndef shout():\n    print('from a child')\n")
    words = project.command("-A", "proj", "worker", "-c", "1", "-f", "%n-%h-%i%I-%d-100%%.log", "-n", "w1@here.example", "-l", "INFO")
    with Running(words, cwd=project.path, env=project.env, log=project.path / "out"):
        file = project.path / "w1-here.example-0-example-100%.log"
        project.umbel("-A", "proj", "call", "proj.shout")
        wait_for(lambda: file.exists() and "ForkPoolWorker-1] from a child" in file.read_text())


PUT_AWAY = """
from umbel import Celery
from umbel.exceptions import Reject

app.conf.task_acks_late = True


@app.task
def rejects():
    raise Reject("not mine")


@app.task(acks_on_failure=False)
def fails():
    raise ValueError("kaput")
"""
SENDS = """
from proj import *
from umbel.broker import Item
app.conf.task_default_queue = "our mail"
rejects.apply_async(task_id="rejected")
fails.apply_async(task_id="failed")
add.apply_async((1, 2), serializer="pickle", task_id="refused")
app.send_task("nobody.knows")
app.broker.publish([Item(raw=b"nonsense", queue="our mail", id="unreadable")])
"""


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_the_log_has_the_command_that_shows_each_message_that_was_put_away(project, pool):
    project.project(more=PUT_AWAY)
    assert project.python(SENDS).returncode == 0
    words = project.command("-A", "proj", "worker", "-P", pool, "-c", "1", "-Q", "our mail")
    with Running(words, cwd=project.path, env=project.env, log=project.path / "worker.log") as running:
        wait_for(lambda: running.log().count("` shows it.") == 5, 20, running.tail)
        log = running.log()
    for kind, task in {"rejected": "proj.rejects", "failed": "proj.fails", "refused": "proj.add"}.items():
        assert f"Task {task}[{kind}] from the queue 'our mail' ({kind}): It is kept as a dead letter: `umbel" in log
    commands = re.findall(r"`(umbel [^`]*)` shows it", log)
    for command in commands:
        ran = project.umbel(*shlex.split(command)[1:])
        assert ran.returncode == 0, (command, ran.stderr)
        assert "our mail" in ran.stdout


def test_a_soft_limit_behind_the_hard_one_is_refused(project, one_sentence):
    said = one_sentence(project.umbel("-A", "proj", "worker", "--time-limit", "1", "--soft-time-limit", "5"), 1)
    assert "task_soft_time_limit (5 s) must not be above task_time_limit (1 s)" in said


@pytest.mark.parametrize("words", ["worker", "dead list", "call x", "queues", "result x", "control revoke x"])
def test_who_names_no_app_is_told_to(folder, one_sentence, words):
    said = one_sentence(folder.umbel(*words.split()), 2)
    assert "No app was named. Give it with -A, for example: umbel -A mysite" in said


def test_a_letter_that_is_not_there_may_be_on_another_queue(project):
    assert "0 dead letters in all on celery. Other queues: -Q NAME." in project.umbel("-A", "proj", "dead", "show", "x").stderr
    assert "Other queues" not in project.umbel("-A", "proj", "dead", "show", "x", "-Q", "other").stderr


def test_a_result_backend_that_does_not_answer_is_found_at_the_start(project, one_sentence):
    pytest.importorskip("redis")
    away = f"redis://127.0.0.1:{free_port()}/0"
    for pool in ("solo", "prefork"):
        said = one_sentence(project.umbel("-A", "proj", "--result-backend", away, "worker", "-P", pool), 69)
        assert away in said


def test_a_worker_waits_for_its_result_backend_if_it_is_told_to(worker):
    pytest.importorskip("redis")
    away = f"redis://127.0.0.1:{free_port()}/0"
    with worker("--result-backend", away, "--", "broker_connection_retry_on_startup=1") as running:
        running.waits_to_print(f"consumer: Cannot connect to {away}: ")
        running.send(signal.SIGTERM)
        assert running.exit_code() == 0, running.tail()
