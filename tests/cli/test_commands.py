"""call, result, purge and report, on a project with a broker and a backend in files."""

import json
import uuid
from datetime import UTC, datetime

import pytest
from tests.processes import Running, wait_for


@pytest.fixture
def worker(project):
    """A worker of the project that is ready."""
    words = project.command("-A", "proj", "worker", "-l", "INFO", "-P", "solo")
    with Running(words, cwd=project.path, env=project.env, log=project.path / "worker.log") as running:
        running.waits_to_print(" ready.")
        yield running


def test_call_prints_the_id_and_nothing_else(project):
    ran = project.umbel("-A", "proj", "call", "proj.add", "-a", "[2, 3]")
    assert ran.returncode == 0, ran.stderr
    assert str(uuid.UUID(ran.stdout.strip())) + "\n" == ran.stdout


def test_a_task_that_nobody_knows_here_can_be_called(project):
    assert project.umbel("-A", "proj", "call", "elsewhere.task").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-a", "[2, 3"), "is not JSON"),
        (("-a", "2"), "is JSON, but not a list. Write a list in single quotes: -a '[2, 3]'"),
        (("-k", "[]"), "is JSON, but not an object."),
        (("--eta", "tomorrow"), "'tomorrow' is not a time. Write it as 2030-01-31T12:00:00"),
        (("--eta", "10"), "'10' is not a time"),
        (("--expires", "soon"), "or a number of seconds"),
        (("--countdown", "soon"), "'soon' is not a valid float"),
    ],
)
def test_a_wrong_value_of_call_is_explained(project, one_sentence, words, said):
    assert said in one_sentence(project.umbel("-A", "proj", "call", "proj.add", *words), 2)


def test_a_serializer_that_is_not_there_is_one_sentence(project, one_sentence):
    assert "nothere" in one_sentence(project.umbel("-A", "proj", "call", "proj.add", "--serializer", "nothere"), 1)


@pytest.mark.parametrize(
    "words", [("call", "proj.add"), ("purge", "-f"), ("result", "x", "--timeout", "1"), ("worker", "-c", "1"), ("worker", "-P", "solo")]
)
def test_a_server_that_does_not_answer_is_one_sentence_and_69(project, one_sentence, words):
    pytest.importorskip("redis")
    away = "redis://127.0.0.1:1/0"
    said = one_sentence(project.umbel("-A", "proj", "-b", away, "--result-backend", away, *words), 69)
    assert "127.0.0.1:1" in said


@pytest.mark.parametrize("words", [("call", "proj.add"), ("purge", "-f"), ("worker",)])
def test_a_url_that_names_no_driver_is_one_sentence(project, one_sentence, words):
    assert "'kafka'" in one_sentence(project.umbel("-A", "proj", "-b", "kafka://:secret@h", *words), 1)


@pytest.mark.parametrize("words", [("call", "proj.add"), ("purge", "-f"), ("worker",)])
def test_a_missing_broker_url_says_what_to_set(folder, one_sentence, words):
    folder.write(proj="from umbel import Celery\napp = Celery('proj')")
    assert "broker_url is not set" in one_sentence(folder.umbel("-A", "proj", *words), 1)


def test_without_an_app_the_configuration_of_the_folder_holds(project):
    project.write(celeryconfig=f"broker_url = 'sqlite:///{project.path}/q.sqlite3'")
    ran = project.umbel("call", "proj.add")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(project.umbel("purge", "-f", "--json").stdout) == {"celery": 1}


def test_the_traceback_is_there_for_who_asks(project):
    ran = project.umbel("-A", "proj", "-b", "kafka://h", "call", "proj.add", UMBEL_DEBUG="1")
    assert "Traceback" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("Error: ")


def test_purge_counts_what_it_deletes(project):
    assert project.umbel("-A", "proj", "purge", "-f").stdout == "No messages purged from 1 queue.\n"
    for _ in range(2):
        project.umbel("-A", "proj", "call", "proj.add")
    project.umbel("-A", "proj", "call", "proj.add", "--countdown", "600")
    assert project.umbel("-A", "proj", "purge", "-f").stdout == "Purged 3 messages from 1 known task queue.\n"


def test_purge_empties_the_queues_that_are_named(project):
    project.umbel("-A", "proj", "call", "proj.add", "--queue", "mail")
    project.umbel("-A", "proj", "call", "proj.add")
    ran = project.umbel("-A", "proj", "purge", "-f", "-Q", "mail,post", "--json")
    assert json.loads(ran.stdout) == {"mail": 1, "post": 0}
    ran = project.umbel("-A", "proj", "purge", "-f", "-Q", "mail,celery", "-X", "celery", "--json")
    assert json.loads(ran.stdout) == {"mail": 0}


def test_purge_asks_first(project):
    project.umbel("-A", "proj", "call", "proj.add")
    refused = project.umbel("-A", "proj", "purge", input="n\n")
    assert refused.returncode == 1
    assert "will be deleted: celery. There is no undo" in refused.stderr
    assert "Purged 1 message from" in project.umbel("-A", "proj", "purge", input="y\n").stdout


def test_report_hides_secrets(project):
    ran = project.umbel("-A", "proj", "-b", "redis://me:s3cret@h:1/0", "report")
    assert ran.returncode == 0, ran.stderr
    assert "s3cret" not in ran.stdout
    assert "redis://me:" in ran.stdout
    assert "proj.add" in ran.stdout
    for part in ("software", "platform", "app", "settings"):
        assert f"\n{part}\n" in f"\n{ran.stdout}"


def test_report_as_json_is_json(project):
    facts = json.loads(project.umbel("-A", "proj", "report", "--json").stdout)
    assert facts["app"]["name"] == "proj"
    assert "proj.add" in facts["app"]["tasks"]
    assert facts["software"]["umbel"]


def test_a_pending_result_is_waited_for_as_long_as_one_says(project, one_sentence):
    said = one_sentence(project.umbel("-A", "proj", "result", "not-an-id", "--timeout", "0.2"), 1)
    assert "The task not-an-id has not ended within 0.2 s; its state is PENDING." in said


def test_a_result_without_a_backend_says_what_to_set(folder, one_sentence):
    folder.write(proj=f"from umbel import Celery\napp = Celery('proj', broker='sqlite:///{folder.path}/q.sqlite3')")
    assert "result_backend" in one_sentence(folder.umbel("-A", "proj", "result", "x"), 1)


def test_result_prints_the_value(project, worker):
    task_id = project.umbel("-A", "proj", "call", "proj.add", "-a", "[2, 3]").stdout.strip()
    ran = project.umbel("-A", "proj", "result", task_id)
    assert (ran.returncode, ran.stdout) == (0, "5\n"), worker.tail()
    assert project.umbel("-A", "proj", "result", "-t", "proj.add", task_id).stdout == "5\n"
    document = json.loads(project.umbel("-A", "proj", "result", "--json", task_id).stdout)
    assert document == {"id": task_id, "state": "SUCCESS", "result": 5, "traceback": None}


def test_a_failed_result_prints_its_traceback_and_is_1(project, worker):
    task_id = project.umbel("-A", "proj", "call", "proj.fail", "-k", '{"text": "kaputt"}').stdout.strip()
    ran = project.umbel("-A", "proj", "result", task_id)
    assert (ran.returncode, ran.stdout) == (1, ""), worker.tail()
    assert "ValueError: kaputt" in ran.stderr
    assert "umbel/cli" not in ran.stderr
    told = project.umbel("-A", "proj", "result", "--traceback", task_id)
    assert "ValueError: kaputt" in told.stdout


def test_a_task_that_the_app_has_not_is_named(project, one_sentence):
    said = one_sentence(project.umbel("-A", "proj", "result", "-t", "proj.nothere", "x"), 2)
    assert "the app has no task 'proj.nothere'. It has:" in said
    assert "proj.add" in said


def test_a_module_to_include_that_is_not_there_is_named(project, one_sentence):
    said = one_sentence(project.umbel("-A", "proj", "worker", "-I", "nothere"), 2)
    assert "'-I' / '--include': the module nothere was not found." in said


def test_an_error_in_the_users_tasks_shows_their_lines_first(project):
    project.write(tasks="import not_installed")
    ran = project.umbel("-A", "proj", "worker", "-I", "tasks")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'not_installed'"
    assert f'{project.path}/tasks.py", line 1' in ran.stderr
    assert "click" not in ran.stderr


def test_the_worker_stops_on_term_and_says_so(worker):
    worker.send(15)
    assert worker.exit_code() == 0
    wait_for(lambda: "worker: Warm shutdown (MainProcess)" in worker.log())


def test_the_worker_takes_every_option_of_celery_that_means_nothing_here(project):
    words = (
        "-A proj worker -l info -P SOLO -c auto -Ofair -E --without-gossip --without-mingle --without-heartbeat"
        " --heartbeat-interval 2 --pool-start-method fork --prefetch-multiplier 0 -Q mail,celery -X mail -n w1@%h"
        " -- worker_prefetch_multiplier=1 .send_task_events=1"
    )
    with Running(project.command(*words.split()), cwd=project.path, env=project.env, log=project.path / "w.log") as running:
        running.waits_to_print(" ready.")
        log = running.log()
    assert "w1@" in log
    assert ".> celery           exchange=celery(direct) key=celery" in log
    assert ".> mail" not in log


def test_quiet_leaves_the_banner_out(project):
    words = project.command("-q", "-A", "proj", "worker", "-l", "INFO", "-P", "solo")
    with Running(words, cwd=project.path, env=project.env, log=project.path / "w.log") as running:
        running.waits_to_print(" ready.")
        assert "[config]" not in running.log()


def waiting(project):
    """How many messages of the queue are ready, and how many wait for their time."""
    ran = project.python("from proj import app; d = app.broker.depth(['celery'])['celery']; print(d.ready, d.delayed)")
    return ran.stdout.split()


@pytest.mark.parametrize("words", [("--countdown", "600"), ("--eta", "2099-01-01T00:00:00"), ("--eta", "2099-01-01T00:00:00+08:00")])
def test_a_call_may_be_for_later(project, words):
    assert project.umbel("-A", "proj", "call", "proj.add", *words).returncode == 0
    assert waiting(project) == ["0", "1"]


@pytest.mark.parametrize(
    "words", [("--expires", "60"), ("--expires", "2099-01-01"), ("--serializer", "msgpack"), ("--routing-key", "celery")]
)
def test_a_call_takes_the_other_options(project, words):
    assert project.umbel("-A", "proj", "call", "proj.add", *words).returncode == 0
    assert waiting(project) == ["1", "0"]


def test_a_time_without_a_zone_is_on_the_apps_clock(folder):
    folder.project(more="\napp.conf.timezone = 'Asia/Shanghai'\n")
    assert folder.umbel("-A", "proj", "call", "proj.add", "--eta", "2099-01-01T00:00:00").returncode == 0
    ran = folder.python("from proj import app; print(app.broker.promote('celery'))")
    assert float(ran.stdout) == datetime(2098, 12, 31, 16, tzinfo=UTC).timestamp()


def test_an_app_starts_the_program_itself(project):
    ran = project.python("from proj import app; app.start(['report', '--json'])")
    assert (ran.returncode, json.loads(ran.stdout)["app"]["name"]) == (0, "proj"), ran.stderr
    assert project.python("from proj import app; app.start(['worker', '-P', 'gevent'])").returncode == 2


def test_the_worker_purges_first_if_told_to(project):
    project.umbel("-A", "proj", "call", "proj.add")
    words = project.command("-A", "proj", "worker", "-l", "INFO", "-P", "solo", "--purge")
    with Running(words, cwd=project.path, env=project.env, log=project.path / "w.log") as running:
        running.waits_to_print(" ready.")
        assert waiting(project) == ["0", "0"]
        assert "received" not in running.log()


def test_the_environment_sets_options_of_the_worker(project):
    env = {
        **project.env,
        "CELERY_APP": "proj",
        "CELERY_WORKER_LOGLEVEL": "info",
        "CELERY_WORKER_POOL": "threads",
        "UMBEL_WORKER_CONCURRENCY": "3",
    }
    with Running(project.command("worker"), cwd=project.path, env=env, log=project.path / "w.log") as running:
        running.waits_to_print(" ready.")
        assert ".> concurrency: 3 (threads)" in running.log()


def test_tasks_are_revoked_and_terminated_by_their_ids(project):
    assert project.umbel("-A", "proj", "control", "revoke", "a", "b").stdout == "2 tasks revoked.\n"
    said = project.umbel("-A", "proj", "control", "terminate", "KILL", "c", "--json").stdout
    assert json.loads(said) == {"revoked": ["c"], "signal": "SIGKILL"}
    ran = project.umbel("-A", "proj", "control", "terminate", "NONE", "c")
    assert ran.returncode == 2
    assert "There is no signal 'NONE'" in ran.stderr


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("worker_lease_renewal=0", "above 0 and below worker_lease (10 s)"),
        ("worker_watchdog_timeout=-1", "It must be 0 or more seconds"),
        ("task_default_rate_limit=abc", "task_default_rate_limit: 'abc' is not a rate limit. Write '10/s'"),
        ("task_default_rate_limit=10/d", "task_default_rate_limit: '10/d' is not a rate limit."),
        ("timezone=Mars/Base", "timezone is 'Mars/Base', and this system knows no such time zone."),
        ("timezone=Europe", "timezone is 'Europe', and this system knows no such time zone."),
    ],
)
def test_a_worker_with_a_setting_that_makes_no_sense_does_not_start(project, one_sentence, setting, says):
    ran = project.umbel("-A", "proj", "worker", "-P", "solo", "--", setting)
    assert says in one_sentence(ran, ran.returncode)
    assert ran.returncode


def test_a_result_is_watched_until_it_ends(project, worker):
    task_id = project.umbel("-A", "proj", "call", "proj.add", "-a", "[2, 3]").stdout.strip()
    ran = project.umbel("-A", "proj", "result", "--watch", task_id)
    assert ran.stdout.splitlines()[-2:] == ["SUCCESS", "5"]
    changes = [json.loads(line) for line in project.umbel("-A", "proj", "result", "--watch", "--json", task_id).stdout.splitlines()]
    assert changes == [{"id": task_id, "state": "SUCCESS", "progress": None, "result": 5}]


def test_a_workflow_is_printed_by_its_id(project, worker):
    task_id = project.umbel("-A", "proj", "call", "proj.add", "-a", "[2, 3]").stdout.strip()
    project.umbel("-A", "proj", "result", task_id)
    assert project.umbel("-A", "proj", "graph", task_id).stdout == f"task {task_id} SUCCESS\n"
    assert json.loads(project.umbel("-A", "proj", "graph", "--format", "json", task_id).stdout)["state"] == "SUCCESS"
    assert project.umbel("-A", "proj", "graph", "--format", "dot", task_id).stdout.startswith("digraph")
    assert project.umbel("-A", "proj", "graph", "--format", "svg", task_id).stdout.startswith("<svg")
