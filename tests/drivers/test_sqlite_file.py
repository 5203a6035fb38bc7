import os
import signal
import sqlite3
import sys
import threading
import time
import weakref
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from umbel.backend import Record
from umbel.broker import TALLIES_KEPT
from umbel.drivers.sqlite import SQLiteBackend, SQLiteBroker, SQLiteSchedules, database, statements, tallies
from umbel.drivers.sqlite.bell import Bell
from umbel.drivers.sqlite.database import Database
from umbel.exceptions import BackendUnavailable, BrokerUnavailable, ImproperlyConfigured
from umbel.schedule_store import Row
from umbel.testing import FakeClock
from umbel.testing.conformance.base import ids_of, item, settlement, succeeds_in_child


@pytest.fixture
def path(tmp_path):
    return tmp_path / "umbel.sqlite3"


@pytest.fixture
def broker(path):
    broker = SQLiteBroker(f"sqlite:///{path}", timeout=0.3)
    yield broker
    broker.close()


def test_a_missing_folder_is_named(tmp_path):
    broker = SQLiteBroker(f"sqlite:///{tmp_path}/missing/umbel.sqlite3")
    with pytest.raises(BrokerUnavailable, match=r"missing/umbel\.sqlite3 .*Create the folder"):
        broker.open()


def test_a_file_that_is_no_database_is_named(path):
    path.write_bytes(b"certainly not a database, but long enough to be looked at" * 100)
    with pytest.raises(BackendUnavailable, match="move it away"):
        SQLiteBackend(f"sqlite:///{path}").open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BrokerUnavailable, match="Create the folder and allow"):
        SQLiteBroker(f"sqlite:///{tmp_path}/umbel.sqlite3").open()


def test_a_lock_that_another_holds_ends_the_call_in_time(broker, path):
    broker.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="Another process holds the lock") as caught:
        broker.publish([item("q", "a")])
    assert 0.2 < time.monotonic() - started < 1.0
    assert not caught.value.maybe_sent
    other.execute("ROLLBACK")
    other.close()
    broker.publish([item("q", "a")])
    assert broker.depth(["q"])["q"].ready == 1


def test_a_recovery_that_waited_for_the_lock_takes_nothing_from_an_owner_that_waited_too(path):
    patient = SQLiteBroker(f"sqlite:///{path}", timeout=10)
    patient.publish([item("q", "a")])
    patient.join("busy", ["q"], lease=0.2)
    patient.join("looking", ["q"], lease=60)
    assert len(patient.fetch("q", 1, owner="busy", seq=1)) == 1
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    time.sleep(0.3)  # the lease lapses, and nobody can renew
    release = threading.Timer(1.0, holder.execute, ("ROLLBACK",))
    release.start()
    assert not patient.recover("q", owner="looking", limit=10).deliveries
    release.join()
    holder.close()
    assert patient.renew("busy", ["q"], lease=0.2), "an outage took the claim of an owner that lives"
    patient.close()


def test_a_full_disk_is_told_and_stores_nothing(broker, path):
    broker.publish([item("q", "a")])
    with broker._database.read() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(BrokerUnavailable, match="free some space") as caught:
        broker.publish([item("q", f"m{n}", size=1000) for n in range(100)])
    assert not caught.value.maybe_sent
    assert broker.depth(["q"])["q"].ready == 1


def test_tables_of_another_version_are_refused(broker, path):
    broker.open()
    broker.close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE umbel_meta SET value = 99 WHERE name = 'schema'")
    other.close()
    with pytest.raises(ImproperlyConfigured, match="version 99"):
        broker.open()


NEWEST = ("umbel_once", "umbel_schedules", "umbel_schedule_rows", "umbel_schedule_states")  # a file from before others has none of them


def test_a_file_from_before_there_were_schedules_gets_their_tables(broker, path):
    broker.publish([item("q", "a")])
    broker.close()
    with sqlite3.connect(path) as other:
        for table in NEWEST:
            other.execute(f"DROP TABLE {table}")
    other.close()
    schedules = SQLiteSchedules(f"sqlite:///{path}")
    schedules.put([Row("entry", b"{}")])
    assert [row.name for row in schedules.changed_since(0).rows] == ["entry"]
    schedules.close()
    broker.publish([replace(item("q", letter), once="key", once_for=60) for letter in "bc"])
    assert broker.depth(["q"])["q"].ready == 2


def test_keys_that_are_forgotten_are_deleted_as_others_are_remembered(path):
    clock = FakeClock()
    broker = SQLiteBroker(f"sqlite:///{path}", clock=clock)
    broker.publish([replace(item("q", "a"), once=f"{n}", once_for=1) for n in range(300)])
    clock.advance(2)
    for n in range(3):
        broker.publish([replace(item("q", "a"), once=f"new {n}", once_for=60)])
    with broker._database.read() as connection:
        assert connection.execute("SELECT count(*) FROM umbel_once").fetchone() == (3,)
    broker.close()


def test_a_file_from_before_there_were_counts_gets_their_table(broker, path):
    broker.publish([item("q", "a")])
    broker.close()
    with sqlite3.connect(path) as other:
        for table in ("umbel_tallies", *NEWEST):
            other.execute(f"DROP TABLE {table}")
    other.close()
    assert broker.tallies("q", since=0) == []
    broker.join("w", ["q"], lease=60)
    (held,) = broker.fetch("q", 1, owner="w", seq=1)
    assert broker.settle([replace(settlement(held), tally="done")]) == [True]
    assert [each.tally for each in broker.tallies("q", since=0)] == ["done"]


def test_a_file_from_before_there_were_workflows_gets_their_tables(path):
    backend = SQLiteBackend(f"sqlite:///{path}")
    backend.open()
    backend.close()
    with sqlite3.connect(path) as other:
        for name in (*(f"umbel_{each}" for each in ("flows", "nodes", "joins", "parts", "grown", "bound", "groups")), *NEWEST):
            other.execute(f"DROP TABLE {name}")
    other.close()
    backend.begin_flow("f", {0: b"node"}, {}, expires=60)
    assert backend.nodes([("f", 0)]) == [b"node"]
    backend.close()


def test_old_counts_are_deleted_in_steps_as_others_are_made(path, monkeypatch):
    monkeypatch.setattr(tallies, "FORGOTTEN_AT_ONCE", 10)
    clock = FakeClock()
    broker = SQLiteBroker(f"sqlite:///{path}", clock=clock)
    broker.join("w", ["q"], lease=1e6)
    seq = iter(range(1, 100))

    def count(number):
        broker.publish([item("q", f"m{n}") for n in range(number)])
        held = broker.fetch("q", number, owner="w", seq=next(seq))
        broker.settle([replace(settlement(each), tally=f"t{n}") for n, each in enumerate(held)])
        with broker._database.read() as connection:
            return connection.execute("SELECT count(*) FROM umbel_tallies").fetchone()[0]

    assert count(25) == 25
    clock.advance(TALLIES_KEPT + 60)
    assert [count(1) for _ in range(4)] == [16, 6, 1, 1]
    broker.close()


def test_an_unknown_synchronous_option_is_refused(path):
    with pytest.raises(ImproperlyConfigured, match="Known: OFF, NORMAL, FULL, EXTRA"):
        SQLiteBroker(f"sqlite:///{path}", options={"synchronous": "SOMETIMES"})


def test_a_commit_is_flushed_to_the_disk_unless_asked_otherwise(broker):
    with broker._database.read() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_results_of_another_file_do_not_ride(broker, path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    assert broker.settles_with(SQLiteBackend(f"sqlite:///{tmp_path}/link"))
    assert not broker.settles_with(SQLiteBackend(f"sqlite:///{tmp_path}/other.sqlite3"))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_process_may_fork_while_a_thread_waits(broker):
    broker.join("w", ["q"], lease=60)
    thread = threading.Thread(target=broker.wait, args=("w", ["q"], 1.0))
    thread.start()
    for n in range(5):
        assert succeeds_in_child(lambda n=n: broker.publish([item("other", f"m{n}")]))
    broker.publish([item("q", "a")])
    thread.join(10)
    assert broker.depth(["other"])["other"].ready == 5


def test_a_child_inherits_no_open_file(broker, path):
    broker.publish([item("q", "a")])

    def child():
        links = [link for link in Path("/proc/self/fd").iterdir() if os.path.lexists(link)]
        assert not [link for link in links if str(link.readlink()).startswith(str(path))]

    if Path("/proc/self/fd").exists():
        assert succeeds_in_child(child)


def test_processes_that_drain_at_once_share_the_work_without_repeats(broker, path, tmp_path):
    for start in range(0, 400, 100):
        broker.publish([item("q", f"m{n}") for n in range(start, start + 100)])

    def drain(name):
        mine = SQLiteBroker(f"sqlite:///{path}", timeout=10)
        mine.join(name, ["q"], lease=60)
        seq, settle, taken = 1, [], []
        while found := mine.fetch("q", 9, owner=name, seq=seq, settle=settle):
            taken += ids_of(found)
            settle = [settlement(delivery) for delivery in found]
            seq += 1
        (tmp_path / name).write_text("\n".join(taken))
        os._exit(0)

    children = []
    for n in range(3):
        pid = os.fork()
        if pid == 0:
            drain(f"taken{n}")
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    taken = " ".join((tmp_path / f"taken{n}").read_text() for n in range(3)).split()
    assert sorted(taken) == sorted(f"m{n}" for n in range(400))
    assert broker.depth(["q"])["q"].claimed == 0


def test_what_was_published_survives_a_kill(broker, path):
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        mine = SQLiteBroker(f"sqlite:///{path}")
        while True:
            mine.publish([item("q", "a")])
            os.write(tell, b".")
    os.close(tell)
    returned = len(os.read(told, 20)) + len(os.read(told, 20))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while more := len(os.read(told, 1000)):
        returned += more
    os.close(told)
    # One may have been committed without its publisher having been told.
    assert broker.depth(["q"])["q"].ready - returned in {0, 1}


def test_a_purge_of_many_messages_goes_in_steps_between_which_others_write(broker, path, monkeypatch):
    monkeypatch.setattr("umbel.drivers.sqlite.broker.PURGED_AT_ONCE", 10)
    broker.publish([item("q", f"m{n}", due=None if n % 2 else time.time() + 60) for n in range(45)])
    other, written = SQLiteBroker(f"sqlite:///{path}"), []
    write = broker._database.write

    def write_after_another(timeout=None):
        other.publish([item("q", f"late{len(written)}")])
        written.append(1)
        return write(timeout)

    monkeypatch.setattr(broker._database, "write", write_after_another)
    assert broker.purge("q") == 45
    assert len(written) >= 5
    assert broker.depth(["q"])["q"].ready == len(written)  # what came while it purged is kept
    other.close()


@pytest.mark.parametrize("statement", [statements.DEAD_OF, statements.PARKED_OF])
def test_the_letters_of_one_id_are_found_by_their_index(broker, statement):
    with broker._database.read() as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", ("q", 0.0, 0, "id", 10)).fetchall()
    assert "umbel_put_away (id=?)" in plan[0][-1]


def test_results_that_have_expired_make_room_for_those_that_are_stored(path):
    clock = FakeClock()
    backend = SQLiteBackend(f"sqlite:///{path}", clock=clock)

    def store(count):
        backend.store([Record(id=str(uuid4()), state="SUCCESS", meta=b"{}", expires=60) for _ in range(count)])
        with backend._database.read() as connection:
            return connection.execute("SELECT count(*) FROM umbel_results").fetchone()[0]

    assert store(100) == 100
    clock.advance(61)
    assert store(10) == 90
    assert store(50) == 60
    assert store(1) == 61
    backend.close()


def test_a_process_may_fork_while_a_thread_opens_databases(path, monkeypatch):
    monkeypatch.setattr(database, "DATABASES", weakref.WeakSet())
    interval, over = sys.getswitchinterval(), threading.Event()
    kept = [Database(str(path), options={}, timeout=1.0, error=BrokerUnavailable) for _ in range(300)]

    def work():
        while not over.is_set():
            mine = [Database(str(path), options={}, timeout=1.0, error=BrokerUnavailable) for _ in range(20)]
            mine.clear()

    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(200):
            database.before_fork()
            database.after_fork_in_parent()
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()
    assert len(kept) == 300


class EarlyBell(Bell):
    """Hears one write, long before it is on the disk, and nothing more."""

    def wait(self, seconds):
        if not self.heard:
            self.heard, self.rang = True, time.monotonic()
            return True
        threading.Event().wait(seconds)
        return False

    heard = False


@pytest.mark.parametrize("waits", [1, 4])
def test_what_a_slow_disk_writes_is_seen_soon_after_it_is_there_also_by_a_later_wait(broker, path, waits):
    broker.publish([item("other", "a")])
    broker.join("w", ["q"], lease=60)
    broker._database._bells.bell = EarlyBell(str(path))
    other, written = SQLiteBroker(f"sqlite:///{path}"), []
    writer = threading.Timer(0.5, lambda: (other.publish([item("q", "b")]), written.append(time.monotonic())))
    writer.start()
    for n in range(waits):
        broker.wait("w", ["q"], 5.0 if n == waits - 1 else 0.05)
    seen = time.monotonic()
    writer.join()
    other.close()
    assert seen - written[0] < 0.2
