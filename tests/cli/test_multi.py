"""Workers as daemons: `umbel worker --detach`, and `umbel multi`, which starts and stops them by name."""

import contextlib
import grp
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.processes import wait_for

from umbel.cli.multi_nodes import make_plan
from umbel.supervisor.pidfile import is_there, read_pid

pytestmark = pytest.mark.timeout(300)

# --- from words to nodes


@pytest.fixture
def on_box(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "box.example")


def names(*words):
    return [node.name.removesuffix("@box.example") for node in make_plan(words).nodes]


@pytest.mark.usefixtures("on_box")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("w1 w2", ["w1", "w2"]),
        ("3", ["celery1", "celery2", "celery3"]),
        ("3-5", ["celery3", "celery4", "celery5"]),
        ("2 --range-prefix=w", ["w1", "w2"]),
        ("w1@other a", ["w1@other", "a"]),
        ("a@%h", ["a"]),
        ("a b --hostname=other", ["a@other", "b@other"]),
        ("a b -n other", ["a@other", "b@other"]),
        ("a --prefix=p- --suffix=@s", ["p-a@s"]),
        ("-E a -l INFO b -c3 c", ["a", "b", "c"]),
        ("2 x", ["2", "x"]),
    ],
)
def test_nodes_are_named_one_by_one_or_by_a_range(words, expected):
    assert names(*words.split()) == expected


def options(words):
    """The options of each node, without its name and files, by the first half of its name."""
    plan = make_plan(words.split())
    return {
        node.name.partition("@")[0]: " ".join(node.command[4 : node.command.index("-n")])[len("--detach") :].strip() for node in plan.nodes
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a b -c 2 -c:a 3", {"a": "--concurrency 3", "b": "--concurrency 2"}),
        ("a b -c:a 3 -c 2", {"a": "--concurrency 3", "b": "--concurrency 2"}),
        ("a b --concurrency:a=3 -c2", {"a": "--concurrency 3", "b": "--concurrency 2"}),
        ("3 -Q:1-2 x -Q:3 y,z", {"celery1": "--queues x", "celery2": "--queues x", "celery3": "--queues y,z"}),
        ("a b c -Q:1,c x -E", {"a": "--task-events --queues x", "b": "--task-events", "c": "--task-events --queues x"}),
        ("a -A proj --max-tasks-per-child=5", {"a": "--app proj --max-tasks-per-child 5"}),
        ("a b -Q %n", {"a": "--queues a", "b": "--queues b"}),
        ("2 1 -c:2 3", {"2": "--concurrency 3", "1": ""}),
    ],
)
def test_options_are_for_all_or_for_those_behind_the_colon(words, expected):
    assert options(words) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a --nosuch", "has the option --nosuch"),
        ("a -J", "has the option -J"),
        ("a -c", "The option -c needs a value"),
        ("a b -c:c 3", r"-c:c is for c, but the nodes are a@.*, b@"),
        ("2 -c:1-3,9 3", "-c:1-3,9 is for 9, but"),
        ("a a", "Two nodes would have the name a@"),
        ("5-3", "The range '5-3' has no nodes"),
        ("100000", "more than 1000"),
    ],
)
def test_what_would_be_lost_or_misunderstood_is_refused(words, said):
    with pytest.raises(click.UsageError, match=said):
        make_plan(words.split())


def test_a_signal_a_folder_files_and_what_stands_behind_two_dashes_are_understood():
    plan = make_plan(["a", "-QUIT", "--workdir", "/srv", "--pidfile=run/%n.pid", "--quiet", "--", "worker_lease=20"], app="proj")
    (node,) = plan.nodes
    assert plan.signal == make_plan(["a", "-SIGQUIT"]).signal == make_plan(["a", "-3"]).signal == signal.SIGQUIT
    assert str(node.pidfile) == "/srv/run/a.pid"
    assert str(node.logfile) == "/var/log/umbel/a.log"
    assert " ".join(node.command[4:7]) == "--detach --app proj"
    assert node.command[-4:] == ("--pidfile=run/a.pid", "--logfile=/var/log/umbel/a.log", "--", "worker_lease=20")
    assert plan.quiet
    (other,) = make_plan(["a", "--cmd=-m mine worker", "--executable=/py", "--append=-X q"]).nodes
    assert other.command[:4] == ("/py", "-m", "mine", "worker")
    assert other.command[-2:] == ("-X", "q")


# --- real daemons


@pytest.fixture
def daemons(project):
    """The project; all daemons whose ids are in its folder are killed at the end."""
    yield project
    for file in project.path.glob("**/*.pid"):
        if (pid := read_pid(file)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


FILES = ("--pidfile=run/%n.pid", "--logfile=log/%n%I.log")


def multi(daemons, verb, *words, **env):
    return daemons.umbel("-A", "proj", "multi", verb, *words, *FILES, "--no-color", **env)


def pid(daemons, name):
    return read_pid(daemons.path / f"run/{name}.pid")


def test_nodes_are_started_run_tasks_are_restarted_and_stopped(daemons):
    started = multi(daemons, "start", "w1@here", "w2@here", "-P", "solo", "-l", "INFO", "-Q:w2", "other")
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.splitlines()[1:] == ["> Starting nodes...", "\t> w1@here: OK", "\t> w2@here: OK"]
    first, second = pid(daemons, "w1"), pid(daemons, "w2")
    assert "w1@here ready." in (daemons.path / "log/w1.log").read_text()
    task = daemons.umbel("-A", "proj", "call", "proj.add", "-a", "[2, 3]", "--queue", "other").stdout.strip()
    assert daemons.umbel("-A", "proj", "result", task, "--timeout", "20").stdout.strip() == "5"

    restarted = multi(daemons, "restart", "w1@here", "-P", "solo")
    assert restarted.returncode == 0
    assert f"\t> w1@here: TERM -> {first}\n> Waiting for 1 node -> {first}..." in restarted.stdout
    assert restarted.stdout.endswith("> Starting nodes...\n\t> w1@here: OK\n")
    assert pid(daemons, "w1") != first

    stopped = multi(daemons, "stopwait", "w1@here", "w2@here", "w3@here")
    assert stopped.returncode == 0
    assert "\t> w3@here: DOWN\n" in stopped.stdout
    assert stopped.stdout.count(": OK\n") == 2
    assert not is_there(second)
    assert list((daemons.path / "run").iterdir()) == []


def test_a_node_that_runs_already_is_not_started_twice(daemons):
    assert multi(daemons, "start", "1", "-P", "solo").returncode == 0
    there = pid(daemons, "celery1")
    again = multi(daemons, "start", "2", "-P", "solo")
    assert again.returncode == 1
    assert "FAILED (exit code 73)" in again.stderr
    assert f"says that it runs already, as process {there}." in again.stderr
    assert next(line for line in again.stdout.splitlines() if "celery2@" in line).endswith(": OK")
    assert pid(daemons, "celery1") == there
    assert multi(daemons, "stopwait", "2").returncode == 0


def test_a_node_that_cannot_start_says_why(daemons):
    started = daemons.umbel("multi", "start", "1", "-A", "nothere", "-P", "solo", *FILES)
    assert started.returncode == 1
    assert "FAILED (exit code 2)\nError: The module nothere was not found." in started.stderr
    assert pid(daemons, "celery1") is None
    refused = multi(daemons, "start", "1", "-P", "solo", "-b", "redis://127.0.0.1:1/0", "--quiet")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "FAILED (exit code 69)\nError: Redis at redis://127.0.0.1:1/0 does not answer" in refused.stderr


def test_a_killed_node_is_down_and_can_be_started_again(daemons):
    assert multi(daemons, "start", "1", "-P", "solo").returncode == 0
    first = pid(daemons, "celery1")
    killed = multi(daemons, "kill", "1", "--nosplash")
    assert (killed.returncode, killed.stdout.split(": ")[1]) == (0, f"KILL -> {first}\n")
    wait_for(lambda: not is_there(first))
    assert multi(daemons, "stop", "1", "--nosplash").stdout.endswith(": DOWN\n")
    assert multi(daemons, "start", "1", "-P", "solo").returncode == 0
    os.kill(pid(daemons, "celery1"), signal.SIGKILL)  # the file stays
    wait_for(lambda: not is_there(pid(daemons, "celery1")))
    assert multi(daemons, "start", "1", "-P", "solo").returncode == 0
    assert multi(daemons, "stop", "1").returncode == 0
    wait_for(lambda: pid(daemons, "celery1") is None)


def test_a_process_that_is_no_worker_is_never_signalled(daemons):
    (daemons.path / "run").mkdir()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as innocent:
        (daemons.path / "run/celery1.pid").write_text(f"{innocent.pid}\n")
        try:
            stopped = multi(daemons, "stopwait", "1")
            assert stopped.stdout.endswith(": DOWN\n")
            assert innocent.poll() is None
        finally:
            innocent.kill()
    (daemons.path / "run/celery1.pid").unlink()


@pytest.mark.parametrize("words", [(), ("nosuch",), ("start",), ("get",), ("start", "2", "-c:7", "3")], ids=" ".join)
def test_a_command_line_that_cannot_be_understood_is_one_sentence(project, words):
    said = project.umbel("multi", *words)
    if not words:
        assert said.returncode == 0
        assert said.stdout.startswith("umbel multi VERB NODES")
        return
    assert said.returncode == 2
    assert said.stderr.startswith("Usage: umbel multi VERB NODES [OPTIONS]\n\nError: ")


def test_what_would_be_run_is_shown_and_runs_nothing(project):
    assert project.umbel("multi", "names", "2", "--suffix=h").stdout == "celery1@h\ncelery2@h\n"
    assert project.umbel("multi", "expand", "%n of %h", "a@h").stdout == "a of h\n"
    shown = project.umbel("-A", "proj", "multi", "show", "a@h", "-c", "2").stdout
    assert shown.startswith(f"{sys.executable} -m umbel worker --detach --app proj --concurrency 2 -n a@h --pidfile=")
    assert project.umbel("-A", "proj", "multi", "get", "a", "a@h", "-c", "2").stdout == shown
    assert project.umbel("multi", "get", "b", "a").returncode == 2
    assert not (project.path / "run").exists()


# --- `umbel worker --detach`


def test_a_detached_worker_is_ready_when_the_command_ends_and_has_no_terminal(daemons):
    started = daemons.umbel("-A", "proj", "worker", "-P", "solo", "-l", "INFO", "-D", "-f", "w.log", "--pidfile", "w.pid", "--umask", "077")
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    worker = read_pid(daemons.path / "w.pid")
    assert " ready." in (daemons.path / "w.log").read_text()
    assert os.getsid(worker) != os.getsid(0)
    assert Path(f"/proc/{worker}/fd/0").readlink() == Path("/dev/null")
    assert (daemons.path / "w.log").stat().st_mode & 0o777 == 0o600
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: not (daemons.path / "w.pid").exists())


def test_a_detached_worker_that_fails_says_so_to_who_started_it(daemons):
    daemons.write(broken="raise RuntimeError('broken')")
    for words, code, said in (
        (("-A", "nothere", "worker", "-D"), 2, "The module nothere was not found."),
        (("-A", "broken", "worker", "-D"), 2, "RuntimeError: broken"),
        (("-A", "proj", "worker", "-D", "-X", "celery"), 2, "No queue is left to consume"),
        (("-A", "proj", "-b", "redis://127.0.0.1:1/0", "worker", "-D"), 69, "does not answer"),
        (("-A", "proj", "worker", "-D", "--pidfile", "nothere/w.pid"), 1, "The file for the process id cannot be written to nothere/w.pid"),
        (("-A", "broken", "worker", "-D", "--workers", "2"), 2, "It ended before it was ready."),
    ):
        started = daemons.umbel(*words, "-f", "w.log")
        assert (started.returncode, said in started.stderr) == (code, True), started
    missing = daemons.umbel("-A", "proj", "worker", "-D", "-f", "nothere/w.log")
    assert (missing.returncode, "The log cannot be written to nothere/w.log" in missing.stderr) == (1, True)


def test_a_detached_supervisor_reports_when_all_its_workers_are_ready(daemons):
    files = ("--pidfile", "s.pid", "-f", "%n.log")
    started = daemons.umbel("-A", "proj", "worker", "--workers", "2", "-c", "1", "-l", "INFO", "-D", *files)
    assert (started.returncode, started.stderr) == (0, "")
    log = (daemons.path / "supervisor.log").read_text()
    assert "All 2 worker(s) are ready." in log
    os.kill(read_pid(daemons.path / "s.pid"), signal.SIGTERM)
    wait_for(lambda: not (daemons.path / "s.pid").exists())
    for number in (1, 2):
        assert " ready." in (daemons.path / f"celery{number}.log").read_text()


def test_the_start_of_a_detached_worker_without_a_log_says_that_its_lines_are_lost(daemons):
    started = daemons.umbel("-A", "proj", "worker", "-P", "solo", "-D", "--pidfile", "w.pid")
    assert (started.returncode, started.stderr) == (0, "There is no --logfile, so what the daemon logs is lost.\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize(("user", "group"), [("nobody", None), ("nobody", "daemon"), (None, "daemon"), ("65534", "1")])
def test_root_becomes_the_user_and_the_group_that_are_named(project, user, group):
    code = "import os\nfrom umbel.supervisor.user import become\n"
    said = project.python(f"{code}become({user!r}, {group!r})\nprint(os.getresuid(), os.getresgid(), 0 in os.getgroups())")
    uid = pwd.getpwnam("nobody").pw_uid if user else 0
    gid = grp.getgrnam("daemon").gr_gid if group else pwd.getpwnam("nobody").pw_gid
    assert said.stdout.startswith(f"{(uid,) * 3} {(gid,) * 3} "), said.stderr
    assert not user or said.stdout.endswith("False\n"), "no group of root's is left"
    stays = project.python(f"{code}become('nobody', None)\nbecome('root', None)")
    assert "Only root may become another user, and this is user" in stays.stderr


@pytest.mark.parametrize("words", [("--uid", "nosuchuser"), ("--gid", "nosuchgroup"), ("--umask", "9")], ids=" ".join)
def test_a_user_a_group_or_a_mask_that_there_is_not_is_one_sentence(project, one_sentence, words):
    said = one_sentence(project.umbel("-A", "proj", "worker", *words), 2 if "--umask" in words else 1)
    assert words[1] in said
