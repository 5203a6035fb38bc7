"""Several workers under one supervisor: replaced when they die, rolled on SIGHUP, gone when they should be."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections import Counter

import pytest
from tests.faults.conftest import APPS, goes_by
from tests.faults.test_children import below
from tests.faults.test_rolling_restart import LEFT, producing
from tests.process.test_killed import children_of
from tests.processes import Running, wait_for

from umbel.supervisor.pidfile import is_there

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["on_file", pytest.param("direct", marks=pytest.mark.redis)])
def faults(request):
    return request.getfixturevalue(request.param)


def supervisor(faults, count=2, *options, **env):
    return faults.worker("--workers", str(count), "-c", "1", *options, app="supervised_app", **env)


def ready(running):
    """(node, pid) of each worker that the supervisor has found ready, in order."""
    return [(node, int(pid)) for node, pid in re.findall(r"Supervisor\] (\S+) \(pid (\d+)\) is ready\.", running.log())]


def waits_for_ready(running, count, deadline=30):
    wait_for(lambda: len(ready(running)) >= count, deadline, running.tail)
    return ready(running)


def stop(running, number=signal.SIGTERM, code=0):
    running.send(number)
    assert running.exit_code(20) == code, running.tail()


def is_gone(pid):
    return not is_there(pid)


def version(faults, text):
    (faults.folder / "version").write_text(text)


def versions(faults, count):
    """The versions of the workers that run so many tasks now."""

    def said():
        return [line for line in faults.lines() if line.startswith("version ")]

    before = len(said())
    faults.send(f"for n in range({count}): app.send_task('supervised_app.tells_version', (n,))")  # by name: it may not be importable
    return wait_for(lambda: lines if len(lines := said()[before:]) >= count else None, 20, faults.logs)


def test_a_worker_that_is_killed_is_replaced_under_its_name_and_its_task_runs_again(faults):
    with supervisor(faults) as running:
        nodes = dict(waits_for_ready(running, 2))
        faults.send("begins_and_tells.delay(1, 3.0)")
        began = wait_for(lambda: [line for line in faults.lines() if line.startswith("begins 1")], 20, faults.logs)
        victim = next(pid for pid in nodes.values() if int(began[0].split()[-1]) in children_of(pid))
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: 1 in faults.numbers(), 30, faults.logs)
        node, _ = waits_for_ready(running, 3)[-1]
        assert nodes[node] == victim
        assert f"{node} (pid {victim}) was ended by SIGKILL and was not told to. Another is started." in running.log()
        assert len(below(running.pid)) == 2
        stop(running)
    assert len([line for line in faults.lines() if line.startswith("begins 1")]) == 2


def test_workers_do_not_outlive_a_supervisor_that_is_killed_and_finish_what_they_run(faults):
    with supervisor(faults) as running:
        waits_for_ready(running, 2)
        faults.send("begins.delay_many([((n, 1.5), {}) for n in range(2)])")
        wait_for(lambda: sum(line.startswith("begins") for line in faults.lines()) == 2, 20, faults.logs)
        family = children_of(running.pid)
        assert len(family) >= 4
        running.kill()
        wait_for(lambda: all(map(is_gone, family)), 20, running.tail)
        assert faults.numbers() == {0, 1}
        assert running.log().count("The supervisor is gone, so this worker stops, too") == 2
    assert sum(line.startswith("begins") for line in faults.lines()) == 2
    assert "ready=0, delayed=0, claimed=0, parked=0, dead=0" in faults.depth()


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_workers_of_other_pools_do_not_outlive_a_supervisor_that_is_killed(on_file, pool):
    with supervisor(on_file, 1, "-P", pool) as running:
        waits_for_ready(running, 1)
        family = children_of(running.pid)
        running.kill()
        wait_for(lambda: all(map(is_gone, family)), 20, running.tail)


def test_a_roll_under_load_loses_nothing_repeats_nothing_costs_no_attempt_and_no_capacity(faults):
    workers = 3
    with supervisor(faults, workers) as running, producing(faults) as producer:
        old = waits_for_ready(running, workers)
        for roll in (1, 2):
            goes_by(1.0)
            running.send(signal.SIGHUP)
            wait_for(lambda roll=roll: running.log().count("worker(s) are replaced.") == roll, 60, running.tail)
            assert set(below(running.pid)) == {pid for _, pid in ready(running)[-workers:]}
        said, _ = producer.communicate("\n", timeout=20)
        sent = int(said)
        wait_for(lambda: len(faults.numbers()) == sent, 60, faults.logs)
        stop(running)
    assert sent > 50
    assert [node for node, _ in ready(running)] == [node for node, _ in old] + [node for node, _ in sorted(old)] * 2
    assert {line: times for line, times in Counter(faults.lines()).items() if times > 1 and line.isdigit()} == {}
    assert "ready=0, delayed=0, claimed=0, parked=0, dead=0" in faults.depth()
    assert faults.send(LEFT).strip() == "0", "the table of owners"
    assert [said for said in ("Recovered", "exited with", "runs elsewhere", "Traceback", "ERROR") if said in running.log()] == []
    assert lowest_capacity(running.log(), workers) == workers


def lowest_capacity(log, workers):
    """How few workers served at any time after the start: a worker says itself that it serves, and that it was told to stop."""
    serve, lowest = 0, None
    for line in log.partition("SIGTERM: all workers stop")[0].splitlines():
        serve += ("worker.consumer" not in line and line.endswith(" ready.") and "MainProcess" in line) - line.startswith(
            "worker: Warm shutdown"
        )
        if serve == workers or lowest is not None:
            lowest = min(serve, serve if lowest is None else lowest)
    return lowest


def test_a_roll_loads_new_code_and_one_that_cannot_be_loaded_changes_nothing(on_file):
    with supervisor(on_file) as running:
        old = waits_for_ready(running, 2)
        assert set(versions(on_file, 20)) == {"version 1"}
        version(on_file, "broken")
        running.send(signal.SIGHUP)
        running.waits_to_print("The workers are not replaced: celery1@")
        assert "The other 1 stay as they are." in running.log()
        assert set(below(running.pid)) == {pid for _, pid in old}
        assert set(versions(on_file, 20)) == {"version 1"}
        version(on_file, "2")
        running.send(signal.SIGHUP)
        running.waits_to_print("All 2 worker(s) are replaced.")
        assert set(versions(on_file, 20)) == {"version 2"}
        stop(running)


def test_a_successor_that_does_not_get_ready_in_time_is_ended_and_the_rest_stays(on_file):
    code = "from umbel.supervisor import reload; from umbel.cli import main; reload.READY_WITHIN = 2.0; main()"
    command = [sys.executable, "-c", code, "-A", "supervised_app", "worker", "--workers", "2", "-c", "1", "-l", "INFO"]
    with Running(command, cwd=APPS, env=on_file.env, log=on_file.folder / "supervisor.log") as running:
        old = waits_for_ready(running, 2)
        version(on_file, "hangs")
        running.send(signal.SIGHUP)
        running.waits_to_print("did not get ready in 2 s and was killed")
        wait_for(lambda: set(below(running.pid)) == {pid for _, pid in old}, 10, running.tail)
        assert set(versions(on_file, 20)) == {"version 1"}
        stop(running)


def test_a_worker_that_dies_again_and_again_is_started_ever_more_seldom_and_the_others_go_on(on_file):
    with supervisor(on_file) as running:
        (_, victim), (other, _) = waits_for_ready(running, 2)
        (on_file.folder / "crash").touch()
        os.kill(victim, signal.SIGKILL)
        for told in ("the 2nd time in a row within 30 s of its start. The next one starts in 1 s", "the 3rd", "The next one starts in 4 s"):
            running.waits_to_print(told)
        assert sum(line.startswith("starts") for line in on_file.lines()) == 2 + 3, "the first two, and three that died of it"
        assert set(versions(on_file, 5)) == {"version 1"}
        (on_file.folder / "crash").unlink()
        waits_for_ready(running, 3)
        assert running.log().count(f"{other} (pid") == 1, "only the other was replaced"
        stop(running)


def test_an_app_that_cannot_be_loaded_is_said_once_and_nothing_is_started_again(on_file):
    version(on_file, "broken")
    with supervisor(on_file, 3) as running:
        assert running.exit_code() == 2
        assert running.log().count("RuntimeError: this version cannot be imported\n\n") == 1
        assert running.log().count("Starting ") == 1


def test_a_broker_that_is_not_there_is_tried_five_times_and_then_told(on_file):
    with supervisor(on_file, 2, "-b", "redis://127.0.0.1:1/0", FAULTS_RETRY="0") as running:
        assert running.exit_code(40) == 69, running.tail()
        assert running.log().count("Starting ") == 5
        assert "No worker gets ready: " in running.log()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_the_first_signal_lets_tasks_end_and_the_second_gives_them_back(on_file, number, code):
    with supervisor(on_file) as running:
        waits_for_ready(running, 2)
        on_file.send("begins.delay_many([((0, 1.0), {}), ((1, 60.0), {})])")
        wait_for(lambda: sum(line.startswith("begins") for line in on_file.lines()) == 2, 20, on_file.logs)
        running.send(number)
        wait_for(lambda: 0 in on_file.numbers(), 20, on_file.logs)
        wait_for(lambda: len(below(running.pid)) == 1, 20, running.tail)
        assert running.process.poll() is None, "it waits for the other"
        stop(running, number, code)
    assert on_file.numbers() == {0}
    assert "ready=1, delayed=0, claimed=0, parked=0, dead=0" in on_file.depth()


def test_a_worker_that_is_told_to_stop_by_its_supervisor_and_by_another_finishes_what_it_runs(on_file):
    with supervisor(on_file) as running:
        nodes = dict(waits_for_ready(running, 2))
        on_file.send("begins.delay_many([((n, 2.0), {}) for n in range(2)])")
        wait_for(lambda: sum(line.startswith("begins") for line in on_file.lines()) == 2, 20, on_file.logs)
        running.send(signal.SIGTERM)
        goes_by(0.5)  # longer than what is taken for an echo
        for pid in nodes.values():
            with contextlib.suppress(ProcessLookupError):  # on a busy machine it has finished by now
                os.kill(pid, signal.SIGTERM)  # as a systemd that tells all processes of the service
        assert running.exit_code(20) == 0, running.tail()
    assert on_file.numbers() == {0, 1}


def test_a_worker_that_waits_for_its_broker_does_not_outlive_a_supervisor_that_is_killed(on_file):
    with supervisor(on_file, 1, "-b", "redis://127.0.0.1:1/0") as running:
        running.waits_to_print("Trying again in")
        family = children_of(running.pid)
        running.kill()
        wait_for(lambda: all(map(is_gone, family)), 20, running.tail)


def test_a_stop_in_the_middle_of_a_roll_stops_all(on_file):
    with supervisor(on_file) as running:
        waits_for_ready(running, 2)
        version(on_file, "hangs")
        running.send(signal.SIGHUP)
        wait_for(lambda: len(below(running.pid)) == 3, 20, running.tail)
        stop(running)


def test_each_worker_has_a_log_of_its_own_and_the_supervisor_has_one(on_file):
    with supervisor(on_file, 2, "-n", "w%i@here", "-f", f"{on_file.folder}/%n%I.log", "--pidfile", f"{on_file.folder}/%n.pid") as running:
        wait_for((on_file.folder / "w2-2.log").exists, 20, running.tail)
        wait_for(lambda: "w2@here ready." in (on_file.folder / "w2-2.log").read_text(), 20, running.tail)
        assert "w1@here ready." in (on_file.folder / "w1-1.log").read_text()
        assert "Starting w2@here as pid" in (on_file.folder / "supervisor.log").read_text()
        assert int((on_file.folder / "supervisor.pid").read_text()) == running.pid
        stop(running)
    assert not (on_file.folder / "supervisor.pid").exists()


ON_A_TERMINAL = """
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-m", "umbel", *sys.argv[1:]])
print(pid, flush=True)
while b"worker(s) are ready" not in (said := os.read(terminal, 65536)): pass
print("ready", flush=True)
sys.stdin.readline()
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_supervisor_whose_terminal_is_closed_stops(on_file):
    command = [sys.executable, "-c", ON_A_TERMINAL, "-A", "supervised_app", "worker", "--workers", "2", "-c", "1", "-l", "INFO"]
    with subprocess.Popen(command, cwd=APPS, env=on_file.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as helper:
        try:
            out, _ = select_line(helper), select_line(helper)
            family = children_of(int(out))
            said, _ = helper.communicate("\n", timeout=30)
        finally:
            helper.kill()
    assert said.strip() == "0"
    assert all(map(is_gone, family))


def select_line(process):
    readable, _, _ = select.select([process.stdout], [], [], 30)
    assert readable, "it said nothing for 30 s"
    return process.stdout.readline()


def test_systemd_is_told_when_all_workers_are_ready_when_they_are_replaced_and_when_they_stop(on_file):
    address = str(on_file.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(30)
        with supervisor(on_file, NOTIFY_SOCKET=address) as running:
            assert systemd.recv(100) == b"READY=1\nSTATUS=2 workers"
            assert len(ready(running)) == 2
            running.send(signal.SIGHUP)
            assert systemd.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(100) == b"READY=1"
            assert "All 2 worker(s) are replaced." in running.log()
            stop(running)
            assert systemd.recv(100) == b"STOPPING=1"
        with on_file.worker("-P", "solo", app="supervised_app", NOTIFY_SOCKET=address) as single:
            assert systemd.recv(100) == b"READY=1"
            stop(single)
            assert systemd.recv(100) == b"STOPPING=1"
