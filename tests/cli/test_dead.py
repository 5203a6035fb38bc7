"""`umbel dead`, `umbel parked` and `umbel queues`: what an operator types at three in the morning."""

import io
import json
import os
import pty
import subprocess
import sys
import time
from dataclasses import dataclass
from uuid import uuid4

import pytest
from tests.processes import wait_for

from umbel import Celery
from umbel.broker import Evidence, Item, Settlement, Verb
from umbel.cli.main import main
from umbel.clock import SystemClock
from umbel.wire.message import Message, encode

WEEK = 7 * 86400


@pytest.fixture
def app(project):
    app = Celery("proj", broker=f"sqlite:///{project.path}/q.sqlite3", set_as_current=False, task_default_queue="celery")
    yield app
    app.close()


@pytest.fixture
def put_away(app, monkeypatch):
    """Sends a task and puts it away, as a worker would have done *ago* seconds before now."""

    def put(task, *args, verb=Verb.BURY, kind="crashed", reason="its process died 3 time(s)", ago=0.0, queue="celery", **known):
        monkeypatch.setattr(SystemClock, "now", lambda _: time.time() - ago)
        broker, task_id = app.broker, str(uuid4())
        body = json.dumps([args, {}, {}]).encode()  # a sender that is not umbel may choose any name
        raw = encode(Message(headers={"task": task, "id": task_id, "origin": "gen1@there"}, properties={}, body=body))
        broker.publish([Item(raw=raw, queue=queue, id=task_id)])
        broker.join("w", [queue], lease=60)
        (held,) = broker.fetch(queue, 1, owner="w", seq=1)
        evidence = Evidence(kind=kind, node="celery@here", **known)
        why = task if verb is Verb.PARK else reason
        assert broker.settle([Settlement(delivery=held, verb=verb, reason=why, evidence=evidence)]) == [True]
        broker.leave("w", [queue])
        return task_id

    return put


@dataclass
class Ran:
    """What a command printed."""

    stdout: str
    stderr: str


@pytest.fixture
def run(app, capsys, monkeypatch):
    """Runs a command line in this process, and checks its exit code."""

    def run(words, code=0, input=""):
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.StringIO(input))
        with pytest.raises(SystemExit) as ended:
            main(words.split(), obj=app)
        said = Ran(*capsys.readouterr())
        assert ended.value.code == code, said
        return said

    return run


def listed(ran):
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_dead_letters_are_listed_the_newest_first_with_task_kind_and_reason(run, put_away):
    old = put_away("proj.add", 1, 2, ago=3600)
    new = put_away("proj.fail", "x", kind="rejected", reason="rejected: no\nmore lines")
    ran = run("dead list")
    head, first, second = ran.stdout.splitlines()
    assert head.split() == ["ID", "TASK", "QUEUE", "AGO", "KIND", "REASON"]
    assert first.split()[:3] + first.split()[4:] == [new, "proj.fail", "celery", "rejected", "rejected:", "no"]
    assert second.split()[:4] == [old, "proj.add", "celery", "1h"]
    assert "2 shown of 2 dead letters in all on celery." in ran.stderr


def test_what_is_printed_for_programs_is_one_object_on_a_line(run, put_away):
    task_id = put_away("proj.add", 1, signal="SIGKILL", attempts=3, peak_memory=5_000_000)
    (letter,) = listed(run("dead list --json"))
    assert letter["evidence"] == {"kind": "crashed", "node": "celery@here", "attempts": 3, "signal": "SIGKILL", "peak_memory": 5_000_000}
    assert (letter["id"], letter["task"], letter["queue"], letter["reason"]) == (
        task_id, "proj.add", "celery", "its process died 3 time(s)"
    )  # fmt: skip
    (whole,) = listed(run(f"dead show {task_id} --json"))
    assert whole["headers"]["id"] == task_id
    assert whole["call"] == "args=[1] kwargs={}"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--task proj.add", {"a", "c"}), ("--task *.fail", {"b"}), ("--reason rejected", {"b"}), ("--reason DIED", {"a", "c"}),
        ("--older-than 7d", {"c"}), ("--newer-than 1h", {"a", "b"}), ("--newer-than 90", {"a", "b"}),
        ("--task proj.add --newer-than 1d", {"a"}), ("--limit 1", {"b"}), ("-Q celery", {"a", "b", "c"}),
    ],
)  # fmt: skip
def test_filters_choose(run, put_away, words, found):
    ids = {put_away("proj.add", ago=WEEK + 5): "c", put_away("proj.add"): "a"}
    ids[put_away("proj.fail", kind="rejected", reason="rejected: no")] = "b"
    assert {ids[letter["id"]] for letter in listed(run(f"dead list --json {words}"))} == found


def test_letters_are_chosen_by_id_and_queue(run, put_away):
    one, two, far = put_away("proj.add"), put_away("proj.add"), put_away("proj.add", queue="far")
    assert [letter["id"] for letter in listed(run(f"dead list --json --id {one} --id {two}"))] == [one, two]
    assert {letter["id"] for letter in listed(run("dead list --json -Q celery,far"))} == {one, two, far}


def test_show_prints_all_that_is_known_of_a_death(run, put_away):
    task_id = put_away("proj.add", 1, "two", signal="SIGSEGV", attempts=3, peak_memory=5_000_000, traceback='File "t.py", line 7 in f')
    said = run(f"dead show {task_id}").stdout
    for part in (task_id, "args=[1, 'two']", "SIGSEGV", "5,000,000", 'File "t.py", line 7 in f', "celery@here", "origin"):
        assert part in said


def test_what_a_sender_chose_gives_no_orders_to_the_terminal(run, put_away):
    task_id = put_away("proj.\x1b[2Jadd", "\x1b]0;title\x07", reason="rejected: \x1b[31m\r\u202e")
    for words in ("dead list", f"dead show {task_id}"):
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(run(words).stdout)


def test_a_retried_letter_waits_again_and_runs(run, put_away, project):
    task_id = put_away("proj.add", 2, 3)
    assert "1 dead letter sent again." in run(f"dead retry {task_id}").stdout
    (depth,) = listed(run("queues --json"))
    assert depth == {"queue": "celery", "ready": 1, "delayed": 0, "claimed": 0, "parked": 0, "dead": 0}
    worker = subprocess.Popen(project.command("-A", "proj", "worker", "-P", "solo", "-q"), cwd=project.path, env=project.env)
    try:
        wait_for(lambda: listed(run("queues --json"))[0]["ready"] == 0)
        assert project.umbel("-A", "proj", "result", task_id, "--timeout", "30").stdout.strip() == "5"
    finally:
        worker.terminate()
        worker.wait()


def test_many_are_asked_about_and_none_is_touched_without_a_yes(run, put_away):
    for n in range(3):
        put_away("proj.add", n)
    said = run("dead delete --task proj.add", 1, input="n\n").stderr
    assert "Delete 3 dead letters?" in said
    assert "3 dead letters sent again." in run("dead retry --all", input="y\n").stdout
    assert "Nothing fits: 0 dead letters in all" in run("dead retry --all --yes", 1).stderr


def test_a_dry_run_does_nothing(run, put_away):
    put_away("proj.add", ago=WEEK + 5)
    ran = run("dead delete --older-than 7d --dry-run")
    assert "1 dead letter would be deleted" in ran.stderr
    assert "proj.add" in ran.stdout
    assert len(listed(run("dead list --json"))) == 1


def test_old_letters_are_deleted_and_newer_ones_stay(run, put_away):
    for ago in (WEEK + 5, WEEK + 6, 60):
        put_away("proj.add", ago=ago)
    assert listed(run("dead delete --older-than 7d --yes --json")) == [{"matched": 2, "deleted": 2}]
    assert len(listed(run("dead list --json"))) == 1


@pytest.mark.parametrize("words", ["dead list", "dead show x", "dead retry x", "dead delete --task x", "parked list", "parked retry --all"])
def test_where_nothing_fits_the_exit_code_is_1(run, put_away, words):
    run(words, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("dead retry", "Say which"), ("dead delete", "Say which"), ("dead list --older-than soon", "Write 90s, 15m, 12h, 7d or 2w"),
        ("dead bury", "There are: list, show, retry, delete"), ("dead show", "Missing argument"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_answered_with_2(run, words, said):
    assert said in run(words, 2).stderr


def test_parked_messages_are_listed_the_oldest_first_and_deleted(run, put_away):
    first = put_away("new.one", verb=Verb.PARK, kind="unknown", ago=60)
    second = put_away("new.two", verb=Verb.PARK, kind="unknown")
    assert [line.split()[:2] for line in run("parked list").stdout.splitlines()[1:]] == [[first, "new.one"], [second, "new.two"]]
    assert "1 parked message deleted." in run("parked delete --task new.one").stdout
    assert "1 parked message sent again." in run(f"parked retry {second}").stdout


def test_options_come_from_the_environment_too(run, put_away, monkeypatch):
    put_away("proj.add")
    put_away("proj.fail")
    monkeypatch.setenv("UMBEL_DEAD_LIST_TASK", "proj.add")
    assert [letter["task"] for letter in listed(run("dead list --json"))] == ["proj.add"]


def test_the_broker_may_be_named_behind_the_command(folder):
    folder.project()
    ran = folder.umbel("dead", "list", "-A", "proj", "-b", f"sqlite:///{folder.path}/other.sqlite3")
    assert ran.returncode == 1, ran.stderr
    assert (folder.path / "other.sqlite3").exists()


def test_a_terminal_gets_a_table_with_ids_that_are_whole(project, put_away):
    task_id = put_away("proj.add", reason="word " * 100)
    ours, theirs = pty.openpty()
    env = {**project.env, "COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(
        project.command("-A", "proj", "dead", "list"), cwd=project.path, env=env, stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # Linux says so when the other end is closed
        pass
    assert process.wait() == 0
    os.close(ours)
    assert b"\x1b[1m" in said
    assert task_id.encode() in said
    assert b"word word" in said


def test_a_hundred_thousand_letters_are_read_page_by_page(app, put_away):
    """What is held at once is a page: the peak of memory does not grow with the number of letters."""
    put_away("proj.add")
    broker = app.broker
    with broker._database.write() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            "INSERT INTO umbel_messages (queue, place, priority, id, raw, reason, evidence, at) "
            "SELECT queue, place, priority, id || i, raw, reason, evidence, at + i FROM umbel_messages, n"
        )
    code = (
        "import resource; from umbel import Celery; "
        f"app = Celery(broker='sqlite:///{broker.path}'); "
        "page = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "found = app.dead_letters.find(); next(found); first = page(); "
        "print(sum(1 for _ in found), (page() - first) // 1024, app.dead_letters.delete(app.dead_letters.find(task='nobody')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, grown, deleted = map(int, ran.stdout.split())
    assert (found, deleted) == (100_000, 0)
    assert grown < 20, f"{grown} MB"
