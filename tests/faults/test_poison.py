"""A task that kills its process, its child or its whole node, among 255 that do nothing wrong."""

import json
import sqlite3
from collections.abc import Callable

import pytest
from tests.faults.conftest import Faults, faults_on
from tests.faults.test_children import stop
from tests.faults.test_odd_tasks import EMPTY
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(300)

NEIGHBOURS = 255
DEAD = 4  # the place in the file


class Watched:
    """An SQLite broker in which every attempt that is ever counted leaves a trace, by a trigger that no worker knows of."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.path = str(faults.folder / "umbel.sqlite3")
        faults.send("app.broker.open()")
        with sqlite3.connect(self.path) as connection:
            connection.executescript(
                "CREATE TABLE counted (id TEXT, attempts INTEGER);"
                "CREATE TRIGGER watch AFTER UPDATE ON umbel_messages WHEN NEW.attempts > OLD.attempts "
                "BEGIN INSERT INTO counted VALUES (NEW.id, NEW.attempts); END;"
            )

    def finished(self, *, dead: int) -> bool:
        """Answer whether all neighbours are done and nothing is left but *dead* letters."""
        with sqlite3.connect(self.path) as connection:
            left = connection.execute("SELECT place, count(*) FROM umbel_messages GROUP BY place").fetchall()
        return left == [(DEAD, dead)] and self.faults.numbers() == set(range(NEIGHBOURS))

    def counted(self) -> set[str]:
        """Return the ids of the tasks that ever lost an attempt."""
        with sqlite3.connect(self.path) as connection:
            return {row[0] for row in connection.execute("SELECT id FROM counted")}


@pytest.fixture
def watched(on_file):
    return Watched(on_file)


def send(faults: Faults, *poisons: str) -> None:
    """Send neighbours, the poisons in their middle; a poison's task id is its name."""
    middle = "; ".join(f"{poison}.apply_async(({n},), task_id='{poison}')" for n, poison in enumerate(poisons, 1))
    few, rest = f"range({NEIGHBOURS // 5})", f"range({NEIGHBOURS // 5}, {NEIGHBOURS})"
    faults.send(f"work.delay_many([((n, 0.002), {{}}) for n in {few}]); {middle}; work.delay_many([((n, 0.002), {{}}) for n in {rest}])")


def letters(faults: Faults) -> dict[str, dict]:
    """Return the dead letters by their task ids, each with the state and the class of its result."""
    code = (
        "import json; from umbel.letters import as_document\n"
        "result = lambda r: (r.state, type(r.result).__name__)\n"
        "print(json.dumps([{**as_document(x), 'result': result(app.AsyncResult(x.id))} for x in app.dead_letters.find()]))"
    )
    return {letter["id"]: letter for letter in json.loads(faults.send(code))}


LOST = ["FAILURE", "WorkerLostError"]


def test_a_task_that_kills_its_process_is_started_three_times_and_its_neighbours_lose_nothing(watched):
    faults = watched.faults
    send(faults, "dies", "reads_address_zero")
    with faults.worker("-P", "prefork", "-c", "2") as worker:
        wait_for(lambda: watched.finished(dead=2), 30, faults.logs)
        stop(worker)
    assert faults.times("dies 1") == faults.times("dies 2") == 3
    assert watched.counted() == {"dies", "reads_address_zero"}
    buried = letters(faults)
    killed, crashed = buried["dies"]["evidence"], buried["reads_address_zero"]["evidence"]
    assert (killed["kind"], killed["attempts"], killed["signal"]) == ("crashed", 3, "SIGKILL")
    assert (crashed["attempts"], crashed["signal"]) == (3, "SIGSEGV")
    assert "in reads_address_zero" in crashed["traceback"]
    assert min(killed["peak_memory"], crashed["peak_memory"]) > 5_000_000
    assert buried["dies"]["result"] == buried["reads_address_zero"]["result"] == LOST
    assert "`umbel -A faults_app dead show -Q celery dies` shows it" in worker.log()
    assert "It runs again: this was attempt 2 of 3." in worker.log()
    assert "`umbel -A faults_app dead retry -Q celery dies` sends it again" in worker.log()


def test_alone_in_a_pool_of_threads_it_is_started_three_times(on_file):
    on_file.send("dies.apply_async((1,), task_id='dies')")
    with on_file.worker("-P", "threads", "-c", "4") as worker:
        wait_for(lambda: "dead=1" in on_file.depth(), 25, on_file.logs)
        stop(worker)
    assert on_file.times("dies 1") == 3


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_among_others_in_one_child_it_is_started_at_most_once_more_and_they_lose_no_attempt(watched, pool):
    faults = watched.faults
    send(faults, "dies")
    with faults.worker("-P", pool, "-c", "8") as worker:
        wait_for(lambda: watched.finished(dead=1), 30, faults.logs)
        stop(worker)
    assert faults.times("dies 1") in {3, 4}
    assert watched.counted() == {"dies"}
    assert list(letters(faults)) == ["dies"]


@pytest.mark.parametrize(("pool", "long"), [("threads", "begins"), ("asyncio", "begins_async")])
def test_it_costs_a_long_neighbour_no_attempt_that_is_there_each_time_it_kills_their_child(watched, pool, long):
    faults = watched.faults
    with faults.worker("-P", pool, "-c", "2") as worker:
        faults.send(f"{long}.apply_async((1, 4), task_id='long')")
        wait_for(lambda: faults.times("begins 1") == 1, 20, faults.logs)
        faults.send("dies.apply_async((2,), task_id='dies')")
        wait_for(lambda: faults.times("dies 2") == 3, 20, faults.logs)
        faults.send("work.delay(3)")
        wait_for(lambda: faults.numbers() == {3}, 20, faults.logs)
        wait_for(lambda: "ready=0, delayed=0, claimed=0, parked=0, dead=1" in faults.depth(), 20, faults.logs)
        stop(worker)
    assert faults.numbers() == {1, 3}
    assert faults.times("begins 1") <= 4, "it ran beside three deaths at most, and not beside the one that buried"
    assert faults.times("dies 2") == 4
    assert watched.counted() == {"dies"}


def run_until(finished: Callable[[], bool], faults: Faults, *options: str) -> int:
    """Start a worker whenever one has died; return how many died."""
    deaths = 0
    while True:
        with faults.worker(*options) as worker:
            wait_for(lambda: worker.process.poll() is not None or finished(), 30, faults.logs)
            if worker.process.poll() is None:
                stop(worker)
                return deaths
        deaths += 1


def test_when_it_takes_a_node_of_one_process_along_each_time_its_neighbours_still_lose_no_attempt(watched):
    faults = watched.faults
    faults.env["LEDGER_LEASE"] = "1.0"
    send(faults, "dies")
    assert run_until(lambda: watched.finished(dead=1), faults, "-P", "solo") == 4
    assert faults.times("dies 1") == 4, "the first crash names nobody, the others are counted"
    assert watched.counted() == {"dies"}
    assert letters(faults)["dies"]["result"] == LOST


@pytest.mark.redis
def test_when_it_takes_a_whole_node_along_each_time_its_neighbours_still_lose_no_attempt(redis_url, redis_prefix, tmp_path):
    faults = faults_on(redis_url, redis_url, tmp_path, LEDGER_PREFIX=redis_prefix, LEDGER_LEASE="1.0")
    numbers = f"[((n, 0.002), {{}}) for n in range({NEIGHBOURS})]"
    faults.send(f"tells_attempts.delay_many({numbers}); kills_its_node.apply_async((1,), task_id='poison')")

    def finished() -> bool:
        return faults.numbers() == set(range(NEIGHBOURS)) and faults.depth() == EMPTY.replace("dead=0", "dead=1")

    assert run_until(finished, faults, "-P", "prefork", "-c", "2") == 4
    assert faults.times("kills_its_node 1") == 4
    assert {line for line in faults.lines() if line.startswith("attempts")} == {"attempts 0"}
    assert [letter["result"] for letter in letters(faults).values()] == [LOST]
