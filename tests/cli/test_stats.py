"""`umbel stats`: what tasks came to in the last minutes."""

import io
import json
import signal
import sys

import pytest
from msgspec.structs import replace
from tests.processes import Running

from umbel import Celery, uuid
from umbel.cli.main import main
from umbel.cli.stats import duration
from umbel.tally import LOST, tally_of
from umbel.testing.conformance.base import item, settlement


@pytest.fixture
def app():
    with Celery("proj", broker=f"memory://{uuid()}", set_as_current=False) as app:
        yield app


@pytest.fixture
def count(app):
    """Settles messages as a worker would have done: (end, seconds of waiting, seconds of running), or a tally as it stands."""

    def count(*ends, task="proj.add", queue="celery"):
        broker, owner = app.broker, uuid()
        broker.publish([item(queue, f"m{n}") for n in range(len(ends))])
        broker.join(owner, [queue], lease=60)
        held = broker.fetch(queue, len(ends), owner=owner, seq=1)
        tallies = [each if isinstance(each, str) else tally_of(task, *each) for each in ends]
        broker.settle([replace(settlement(one), tally=tally) for one, tally in zip(held, tallies, strict=True)])

    return count


@pytest.fixture
def run(app, capsys):
    def run(words, code=0):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words.split(), obj=app)
        said = capsys.readouterr()
        assert ended.value.code == code, said
        return said

    return run


def test_each_task_of_each_queue_has_a_line(run, count):
    count(*[("SUCCESS", 0.5, 0.01)] * 95, *[("SUCCESS", 30.0, 2.0)] * 5, ("FAILURE", 0.5, 0.01), ("RETRY", 0.5, 0.01))
    count((LOST, None, None), ("REVOKED", None, None), ("REJECTED", 0.1, 0.1), task="proj.other one")
    count(("SUCCESS", 0.1, 100.0), queue="far")
    lines = run("stats -Q far,celery").out.splitlines()
    assert " ".join(lines[0].split()) == "QUEUE TASK DONE FAILED RETRIED LOST OTHER PER MIN WAIT P50 WAIT P95 RUN P50 RUN P95"
    first, second, third = (line.split() for line in lines[1:])
    assert first[:7] == ["celery", "proj.add", "100", "1", "1", "0", "0"]
    assert 1.6 <= float(first[7]) <= 1.7
    assert first[8:] == ["512ms", "512ms", "16ms", "16ms"]
    assert second[:8] == ["celery", "proj.other", "one", "0", "0", "0", "1", "2"]
    assert third[:3] == ["far", "proj.add", "1"]
    assert third[-4:] == ["128ms", "128ms", "2.18m", "2.18m"]


def test_programs_get_one_object_on_a_line_with_every_end_and_seconds(run, count):
    count(("SUCCESS", 0.5, 0.01), ("IGNORED", None, 0.01), (LOST, None, None), "not ours", "")
    (line,) = run("stats --json --minutes 1").out.splitlines()
    read = json.loads(line)
    assert 1.5 <= read.pop("per_minute") <= 3.0
    assert read == {
        "queue": "celery", "task": "proj.add", "ends": {"IGNORED": 1, "LOST": 1, "SUCCESS": 1},
        "wait_p50": 0.512, "wait_p95": 0.512, "run_p50": 0.016, "run_p95": 0.016,
    }  # fmt: skip


def test_where_nothing_was_counted_it_says_so(run):
    ran = run("stats -Q celery,far --minutes 5")
    assert ran.out == ""
    assert ran.err == "Nothing was counted on celery, far in the last 5 minute(s).\n"
    assert run("stats --json").out == ""


@pytest.mark.parametrize("words", ["stats --minutes 0", "stats --minutes 180", "stats --minutes x"])
def test_minutes_that_are_not_kept_are_refused(run, words):
    run(words, 2)


def test_a_worker_counts_and_the_program_prints_it(project):
    send = "from proj import add, fail; add.delay_many([((n, n), {}) for n in range(20)]); fail.delay('no')"
    assert project.python(send).returncode == 0
    wait = "from proj import fail; r = fail.delay('again'); r.get(timeout=60, propagate=False)"
    command = project.command("-A", "proj", "worker", "-P", "solo", "-q")
    with Running(command, cwd=project.path, env=project.env, log=project.path / "log") as worker:
        assert project.python(wait).returncode == 0, worker.tail()
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0
    ran = project.umbel("-A", "proj", "stats", "--json")
    rows = {row["task"]: row for row in map(json.loads, ran.stdout.splitlines())}
    assert {task: row["ends"] for task, row in rows.items()} == {"proj.add": {"SUCCESS": 20}, "proj.fail": {"FAILURE": 2}}
    assert all(0.001 <= row["run_p95"] < 5 and 0.001 <= row["wait_p95"] < 60 for row in rows.values())


def test_on_a_narrow_terminal_no_number_is_broken(app, count, monkeypatch):
    count(*[("SUCCESS", 60.0, 2.0)] * 1500, task="mysite.mail.tasks.send_the_newsletter")
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(SystemExit):
        main(["stats"], obj=app)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    numbers = next(line.split() for line in lines if "1,500" in line)
    assert numbers[0] == "celery"
    assert numbers[-10:-5] == ["1,500", "0", "0", "0", "0"]
    assert numbers[-4:] == ["1.09m", "1.09m", "2.05s", "2.05s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.001, "1ms"), (0.512, "512ms"), (1.024, "1.02s"), (65.536, "1.09m"), (8388.608, "2.33h"), (2147483.648, "24.9d")],
)
def test_times_are_shown_in_a_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text
