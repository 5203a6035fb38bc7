"""What the worker says when it starts of that which cannot work, or does not work yet."""

import pytest
from tests.processes import Running, wait_for


@pytest.fixture
def worker(project):
    """Starts a worker of the project."""

    def start(*words: str, **env: str) -> Running:
        command = project.command("-A", "proj", "worker", "-P", "solo", *words)
        return Running(command, cwd=project.path, env={**project.env, **env}, log=project.path / "worker.log")

    return start


def test_periodic_tasks_are_said_not_to_be_sent(folder, worker):
    folder.project(more='app.conf.beat_schedule = {"each-hour": {"task": "proj.add", "schedule": 3600, "args": [1, 2]}}\n')
    with worker() as running:
        running.waits_to_print("1 periodic task in beat_schedule is not sent: beat is not built yet.")
    folder.project(more="app.conf.beat_schedule = dict.fromkeys(['a', 'b'], {'task': 'proj.add', 'schedule': 3600})\n")
    with worker() as running:
        running.waits_to_print("2 periodic tasks in beat_schedule are not sent: beat is not built yet.")


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
