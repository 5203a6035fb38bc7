"""Workers on PostgreSQL: the server is killed, stopped, ends its connections, or has no room left."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from tests import servers
from tests.conftest import absent
from tests.faults.conftest import faults_on, goes_by
from tests.faults.proxy import Proxy
from tests.postgres import needs_postgres, pgbouncer, running_postgres
from tests.processes import wait_for

from umbel.drivers.postgres import PostgresBroker
from umbel.exceptions import BrokerUnavailable
from umbel.testing.conformance.base import item

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

SEND = "work.delay_many([((n, {seconds}), {{}}) for n in range({count})])"
EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


@pytest.fixture
def server():
    needs_postgres()
    with running_postgres() as server:
        yield server


@pytest.fixture
def direct(server, tmp_path):
    return faults_on(server.url, server.url, tmp_path)


def ran_twice(ledger):
    return {line: times for line, times in Counter(ledger.lines()).items() if times > 1 and line != "ready"}


def ends_well(ledger, worker):
    wait_for(lambda: ledger.depth() == EMPTY, 15, ledger.depth)
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == 0, worker.tail()


def test_a_server_killed_in_the_middle_loses_nothing_and_costs_one_warning(direct, server):
    direct.send(SEND.format(seconds=0.004, count=500))
    with direct.worker("-c", "2") as worker:
        wait_for(lambda: len(direct.numbers()) >= 100, 20, direct.logs)
        server.kill()
        goes_by(4)
        server.start()
        wait_for(lambda: len(direct.numbers()) == 500, 20, direct.logs)
        ends_well(direct, worker)
    assert ran_twice(direct) == {}
    said = [line for line in worker.log().splitlines() if ": WARNING/" in line or ": ERROR/" in line]
    assert len(said) == 1, "\n".join(said)
    assert "onnected to the broker again" in worker.log()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_outage_longer_than_the_lease_makes_nothing_run_twice(direct, server, workers):
    """The server is stopped, not ended: what was sent to it is carried out late, when it goes on."""
    direct.send("for n in range(4): begins.delay(n, 7.0)")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(direct.worker("-c", str(4 // workers))) for _ in range(workers)]
        wait_for(lambda: sum(line.startswith("begins") for line in direct.lines()) == 4, 20, direct.logs)
        goes_by(2.5)  # from now on each looks for dead owners, once a second
        server.send(signal.SIGSTOP)
        goes_by(3)  # the lease is 1.5 s
        server.send(signal.SIGCONT)
        wait_for(lambda: len(direct.numbers()) == 4, 20, direct.logs)
        for worker in running:
            ends_well(direct, worker)
    assert ran_twice(direct) == {}
    assert "Recovered" not in direct.logs()


@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_a_half_open_connection_makes_nothing_run_twice(direct, server, tmp_path, direction):
    direct.send("[begins.delay(n, 5.0) for n in range(2)]")
    with Proxy(server.url) as proxy:
        behind = faults_on(proxy.url, proxy.url, tmp_path)
        with behind.worker("-c", "2") as worker:
            wait_for(lambda: sum(line.startswith("begins") for line in behind.lines()) == 2, 20, behind.logs)
            goes_by(1)
            proxy.freeze(requests=direction == "requests", replies=direction == "replies")
            goes_by(3)
            proxy.thaw()
            wait_for(lambda: len(behind.numbers()) == 2, 20, behind.logs)
            wait_for(lambda: direct.depth() == EMPTY, 15, direct.depth)
            worker.send(signal.SIGTERM)
            assert worker.exit_code() == 0, worker.tail()
    assert ran_twice(direct) == {}


def test_connections_that_the_server_ends_again_and_again_lose_nothing_and_make_nothing_run_twice(direct, server):
    direct.send(SEND.format(seconds=0.01, count=400))
    with direct.worker("-c", "2") as worker:
        for done in (50, 120, 190, 260, 330):
            wait_for(lambda done=done: len(direct.numbers()) >= done, 30, direct.logs)
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'umbel'")
        wait_for(lambda: len(direct.numbers()) == 400, 30, direct.logs)
        ends_well(direct, worker)
    assert ran_twice(direct) == {}


def test_workers_behind_pgbouncer_run_everything_once_though_it_is_started_again(direct, server, tmp_path):
    if servers.find_binary(servers.PGBOUNCER) is None:
        absent(servers.PGBOUNCER)
    port = servers.free_port()
    with contextlib.ExitStack() as stack:
        with pgbouncer(server.url, port=port) as url:
            behind = faults_on(url, url, tmp_path)
            behind.send(SEND.format(seconds=0.01, count=300))
            workers = [stack.enter_context(behind.worker("-c", "2", "-n", f"w{n}@%h")) for n in range(2)]
            wait_for(lambda: len(behind.numbers()) >= 100, 30, behind.logs)
        goes_by(1)
        with pgbouncer(server.url, port=port):
            wait_for(lambda: len(behind.numbers()) == 300, 30, behind.logs)
            behind.send("print([r.get(timeout=60) for r in work.delay_many([((n,), {}) for n in range(300, 310)])])")
            wait_for(lambda: direct.depth() == EMPTY, 15, direct.depth)
            for worker in workers:
                worker.send(signal.SIGTERM)
                assert worker.exit_code() == 0, worker.tail()
    assert ran_twice(direct) == {}


@pytest.fixture
def small_disk():
    """A file system that is soon full, in which the server may write."""
    with tempfile.TemporaryDirectory(prefix="umbel-small-") as name:
        mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", name]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a file system")
        try:
            servers.as_user("postgres", Path(name))  # it belongs to that user now
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def publish_much(broker):
    for n in range(1000):
        broker.publish([item("elsewhere", f"m{n}", size=100_000)])


def test_a_full_disk_makes_calls_fail_and_holds_the_worker_up_until_there_is_room(small_disk, server, tmp_path):
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        connection.execute("CREATE DATABASE small TABLESPACE small")
    url = server.url.rpartition("/")[0] + "/small"
    ledger = faults_on(url, url, tmp_path)
    ledger.send(SEND.format(seconds=0.02, count=200))
    filler = small_disk / "filler"
    with ledger.worker("-c", "2") as worker:
        wait_for(lambda: len(ledger.numbers()) >= 20, 20, ledger.logs)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 8192)
        broker = PostgresBroker(url)
        with pytest.raises(BrokerUnavailable, match="disk is full: free some space") as caught:
            publish_much(broker)
        assert not caught.value.maybe_sent
        goes_by(2)  # more than a lease of the worker
        assert worker.process.poll() is None, worker.tail()
        filler.unlink()
        wait_for(lambda: set(range(200)) <= ledger.numbers(), 30, ledger.logs)
        broker.purge("elsewhere")
        broker.close()
        ends_well(ledger, worker)
    assert "Traceback" not in worker.log(), worker.tail()
