"""An SQLite file on a full disk: calls say so, the worker goes on when there is room again, and nothing is lost."""

import resource
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tests.faults.conftest import faults_on, goes_by
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(300)

EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"
COUNT = 200
FULL = """
from umbel.exceptions import BrokerUnavailable
try:
    for n in range(1000, 9000):
        quiet.apply_async((n,), headers={"padding": "x" * 4000})
except BrokerUnavailable as exc:
    print(exc.maybe_sent, exc)
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system that is soon full."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Use all room that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def check_that_all_ran_once(ledger):
    wait_for(lambda: set(range(COUNT)) <= ledger.numbers(), 30, ledger.logs)
    wait_for(lambda: ledger.depth() == EMPTY, 20, ledger.depth)
    assert {n: times for n, times in Counter(ledger.lines()).items() if times > 1} == {}


def test_a_full_disk_makes_calls_fail_and_holds_the_worker_up_until_there_is_room(small_disk, tmp_path):
    url = f"sqlite:///{small_disk}/umbel.sqlite3"
    ledger = faults_on(url, url, tmp_path)
    ledger.send(f"work.delay_many([((n, 0.005), {{}}) for n in range({COUNT})])")
    with ledger.worker("-c", "2") as worker:
        wait_for(lambda: len(ledger.numbers()) >= 30, 20, ledger.logs)
        filler = fill(small_disk)
        said = ledger.send(FULL)
        assert said.startswith("False The database "), said
        assert "disk is full" in said
        assert "free some space" in said
        goes_by(2)  # more than a lease of the worker
        assert worker.process.poll() is None, worker.tail()
        filler.unlink()
        check_that_all_ran_once(ledger)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert "Traceback" not in worker.log(), worker.tail()


def test_a_file_that_may_not_grow_holds_the_worker_up_until_it_may(on_file, tmp_path):
    """A quota, or a limit of the process: the disk has room and refuses all the same."""
    on_file.send(f"work.delay_many([((n, 0.005), {{}}) for n in range({COUNT})])")
    with on_file.worker("-c", "2") as worker:
        wait_for(lambda: len(on_file.numbers()) >= 30, 20, on_file.logs)
        unlimited = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, ((tmp_path / "umbel.sqlite3-wal").stat().st_size, unlimited[1]))
        wait_for(lambda: "The disk refused" in worker.log(), 20, worker.tail)
        goes_by(2)  # more than a lease of the worker
        assert worker.process.poll() is None, worker.tail()
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, unlimited)
        check_that_all_ran_once(on_file)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert "Traceback" not in worker.log(), worker.tail()
