"""A pool of children by itself, with a listener that writes down what it is told."""

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from tests.faults.test_children import below

import umbel.pools.children
from umbel.exceptions import ImproperlyConfigured
from umbel.execution.limits import GRACE
from umbel.execution.outcome import Action, Job, Outcome
from umbel.pools.base import Death, Slot
from umbel.pools.children import ChildPool

pytestmark = pytest.mark.timeout(240)


class Script:
    """Runs jobs whose message is one word."""

    left_behind = False

    def __init__(
        self, start: Callable[[str], object] = lambda name: None, *, waits: Callable[[], object] = lambda: None,
        ends: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self._start, self._waits, self._ends = start, waits, ends

    def run(self, job: Job, guard: object = None) -> Outcome:
        if job.raw == b"hang":
            time.sleep(60)
        if job.raw == b"full":
            return self._large(job)
        if job.raw == b"fail":
            self._waits()
            raise RuntimeError("a fault of ours")
        return Outcome(job.tag, Action.ACK, "SUCCESS", 0.0, str(os.getpid()).encode())

    async def arun(self, job: Job, executor: object) -> Outcome:
        if job.raw == b"hold":
            time.sleep(60)  # noqa: ASYNC251 - this is the fault
        if job.raw == b"wait":
            self._waits()
        if job.raw == b"full":
            return self._large(job)
        if job.raw == b"exit":
            self._waits()
            os._exit(0)
        if job.raw == b"fail":
            raise SystemExit(3)
        if job.raw == b"cancel":
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
        return Outcome(job.tag, Action.ACK, "SUCCESS", 0.0)

    @staticmethod
    def _large(job: Job) -> Outcome:
        """What travels in a file, while no file can be opened for half a second."""
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, usual[1]))
        threading.Timer(0.5, resource.setrlimit, (resource.RLIMIT_NOFILE, usual)).start()
        return Outcome(job.tag, Action.ACK, "SUCCESS", 0.0, b"x" * 200_000)

    def starts_child(self, name: str) -> None:
        self._start(name)

    def ends_child(self, exitcode: int) -> None:
        self._ends()


class Notes:
    """Hears."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.returned: list[int] = []
        self.ended: list[int] = []
        self.deaths: list[Death] = []

    def on_outcomes(self, slot: Slot, outcomes: list[Outcome]) -> None:
        self.outcomes += outcomes

    def on_death(self, death: Death) -> None:
        self.deaths.append(death)

    def on_ended(self, tag: int, traceback: str) -> None:
        self.ended.append(tag)

    def on_returned(self, tags: Iterable[int]) -> None:
        self.returned += tags

    def on_ready(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def pool_of(name: str, concurrency: int, runner: Script | None = None, **options: float | None) -> Iterator[ChildPool]:
    pool = ChildPool(name, runner or Script(), concurrency=concurrency, **options)
    pool.fork()
    try:
        yield pool
    finally:
        pool.close()


def children(pool: ChildPool) -> list[int]:
    assert pool._zygote is not None
    return below(pool._zygote.pid)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in other processes
            await asyncio.sleep(0.005)


def test_what_was_sent_to_a_child_that_is_killed_already_comes_back():
    """After a lost lease the worker joins and claims again, perhaps before the end of its old children is known."""

    async def body(pool: ChildPool) -> Notes:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot = pool.slots[0]
        await until(lambda: slot.pid)
        pool.send(slot, [Job(1, 0, b"hang")])
        await until(pool.runs)
        pool.kill()
        assert pool.send(slot, [Job(2, 0, b"")]) in {0, 1}
        await until(lambda: notes.returned or notes.outcomes)
        return notes

    with pool_of("processes", 1) as pool:
        notes = asyncio.run(body(pool))
    assert notes.returned == [2]


def test_what_a_thread_that_was_left_behind_has_not_read_is_returned_once():
    async def body(pool: ChildPool) -> None:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot, other = pool.slots
        await until(lambda: slot.pid)
        pool.send(slot, [Job(1, 0, b"hang")])
        pool.send(other, [Job(2, 0, b"hang")])
        await until(lambda: len(pool.runs()) == 2)
        pool.send(slot, [Job(3, 0, b"")])
        pool.end_task(slot, 1)
        await until(lambda: notes.ended)
        assert (notes.ended, notes.returned) == ([1], [3])
        assert pool.take_back(slot) == [], "it may run elsewhere by now"

    with pool_of("threads", 2) as pool:
        asyncio.run(body(pool))


def test_a_limit_counts_on_a_loop_from_when_the_task_begins_there():
    """What waits in the socket for a loop that is held up has not begun."""
    read, write = os.pipe()

    async def body(pool: ChildPool) -> None:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot = pool.slots[0]
        await until(lambda: slot.pid)
        pool.send(slot, [Job(9, 0, b"wait")])
        await until(lambda: [job.tag for job in pool.runs()] == [9])
        pool.send(slot, [Job(1, 0, b"hold")])
        await asyncio.sleep(2 * GRACE)
        assert [job.tag for job in pool.runs()] == [9]
        began = time.monotonic()
        os.write(write, b"go")
        await until(lambda: [job.tag for job in pool.runs()] == [1])
        assert all(job.since >= began for job in pool.runs())
        pool.send(slot, [Job(3, 0, b"")])
        assert [job.tag for job in pool.runs()] == [1]
        assert [job.tag for job in pool.take_back(slot)] == [3]
        pool.send(slot, [Job(4, 0, b"")])
        pool.end_task(slot, 1)
        await until(lambda: notes.deaths)
        assert (notes.ended, notes.deaths[0].held, notes.deaths[0].unread) == ([1], {4}, {4})
        await until(lambda: slot.pid)
        pool.send(slot, [Job(5, 0, b"")])
        await until(lambda: len(notes.outcomes) > 1)
        assert [outcome.tag for outcome in notes.outcomes] == [9, 5]

    with pool_of("asyncio", 4, Script(waits=lambda: os.read(read, 2))) as pool:
        asyncio.run(body(pool))
    os.close(read)
    os.close(write)


def test_a_child_gets_nothing_before_it_can_work():
    """The other one, which can, gets it."""
    read, write = os.pipe()

    async def body(pool: ChildPool) -> None:
        pool.start(asyncio.get_running_loop(), Notes())
        quick, slow = pool.slots
        await until(lambda: quick.pid and len(children(pool)) == 2)
        await asyncio.sleep(0.1)
        assert slow.pid == 0
        assert pool.send(slow, [Job(1, 0, b"")]) == 0
        os.write(write, b"go")
        await until(lambda: slow.pid)

    with pool_of("processes", 2, Script(lambda name: os.read(read, 2) if name.endswith("2") else None)) as pool:
        asyncio.run(body(pool))


@pytest.mark.parametrize("name", ["processes", "threads", "asyncio"])
def test_a_child_that_is_to_be_replaced_serves_until_the_next_one_can(name):
    read, write = os.pipe()
    os.write(write, b"go")

    async def body(pool: ChildPool) -> None:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot = pool.slots[0]
        await until(lambda: slot.pid)
        first = slot.pid
        for tag in range(1, 20):  # the next child is ordered at the 18th
            assert pool.send(slot, [Job(tag, 0, b"")]) == 1
            await until(lambda tag=tag: len(notes.outcomes) == tag)
        await until(lambda: len(children(pool)) == 2)
        assert slot.pid == first
        os.write(write, b"go")
        pool.send(slot, [Job(20, 0, b"")])
        await until(lambda: slot.pid not in {0, first} and len(children(pool)) == 1)
        assert len(notes.outcomes) == 20
        assert notes.deaths == []

    with pool_of(name, 1, Script(lambda _: os.read(read, 2)), most_tasks=20) as pool:
        asyncio.run(body(pool))


def test_a_child_may_take_as_long_as_it_likes_for_its_start_if_the_limit_is_nothing(caplog):
    async def body(pool: ChildPool) -> None:
        pool.start(asyncio.get_running_loop(), Notes())
        await until(lambda: pool.slots[0].pid)

    with pool_of("processes", 1, Script(lambda _: time.sleep(1)), starts_within=0) as pool:
        asyncio.run(body(pool))
    assert "has not started up" not in caplog.text


def test_a_child_that_hangs_in_its_start_is_said_to_and_replaced(caplog, tmp_path):
    mark = tmp_path / "hangs"
    mark.touch()

    def start(_: str) -> None:
        if mark.exists():
            mark.unlink()
            time.sleep(60)

    async def body(pool: ChildPool) -> None:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        await until(lambda: pool.slots[0].pid)
        assert caplog.text.count("has not started up in 1 s") == 1
        assert notes.deaths == []

    with pool_of("processes", 1, Script(start), starts_within=1.0) as pool:
        asyncio.run(body(pool))


def test_a_child_that_hangs_in_its_start_holds_up_no_stop(monkeypatch):
    monkeypatch.setattr(umbel.pools.children, "FAREWELL", 0.3)

    async def body(pool: ChildPool) -> None:
        pool.start(asyncio.get_running_loop(), Notes())
        await until(lambda: children(pool))
        async with asyncio.timeout(10):
            await pool.finish()

    with pool_of("processes", 1, Script(lambda _: time.sleep(60))) as pool:
        asyncio.run(body(pool))


def test_a_runner_that_fails_leaves_its_place_on_the_loop_and_the_others_there_alone():
    async def body(pool: ChildPool) -> Notes:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot = pool.slots[0]
        await until(lambda: slot.pid)
        for tag in range(1, 9):
            pool.send(slot, [Job(tag, 0, b"fail" if tag % 2 else b"cancel")])
        await until(lambda: len(notes.outcomes) == 8)
        return notes

    with pool_of("asyncio", 2) as pool:
        notes = asyncio.run(body(pool))
    said = {outcome.tag: (outcome.action, outcome.kind, outcome.reason) for outcome in notes.outcomes}
    assert said == {
        tag: (Action.BURY, "broken", "internal error: SystemExit(3)") if tag % 2 else (Action.ACK, "", "") for tag in range(1, 9)
    }
    assert notes.deaths == []


def test_a_task_that_ends_a_child_that_leaves_has_killed_it_whatever_the_exit_code():
    """It would be repeated without end."""
    read, write = os.pipe()

    async def body(pool: ChildPool) -> Notes:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot = pool.slots[0]
        await until(lambda: slot.pid)
        first = slot.pid
        pool.send(slot, [Job(1, 0, b"exit")])
        await until(lambda: slot.pid not in {0, first})
        os.write(write, b"go")
        await until(lambda: notes.deaths or notes.returned)
        return notes

    with pool_of("asyncio", 2, Script(waits=lambda: os.read(read, 2)), most_tasks=1) as pool:
        notes = asyncio.run(body(pool))
    assert [(death.status, death.held, death.unread) for death in notes.deaths] == [(0, {1}, frozenset())]
    assert notes.returned == []


@pytest.mark.parametrize("name", ["processes", "threads", "asyncio"])
def test_a_large_outcome_waits_in_its_child_for_an_open_file(name):
    async def body(pool: ChildPool) -> Notes:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot = pool.slots[0]
        await until(lambda: slot.pid)
        pool.send(slot, [Job(1, 0, b"full")])
        await until(lambda: notes.outcomes)
        pool.send(slot, [Job(2, 0, b"")])
        await until(lambda: len(notes.outcomes) == 2)
        return notes

    with pool_of(name, 1) as pool:
        notes = asyncio.run(body(pool))
    assert [len(outcome.meta or b"") >= 200_000 for outcome in notes.outcomes] == [True, False]
    assert notes.deaths == []


def test_a_large_message_waits_in_the_worker_for_an_open_file(caplog):
    async def body(pool: ChildPool) -> None:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot = pool.slots[0]
        await until(lambda: slot.pid)
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, usual[1]))
        try:
            assert [pool.send(slot, [Job(1, 0, b"x" * 200_000)]) for _ in range(3)] == [0, 0, 0]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        assert pool.send(slot, [Job(1, 0, b"x" * 200_000)]) == 1
        await until(lambda: notes.outcomes)

    with pool_of("processes", 1) as pool:
        asyncio.run(body(pool))
    assert caplog.text.count("Too many open files. It is tried again") == 1


async def never_ends() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


def test_a_thread_that_fails_ends_its_child_also_after_another_has_ended():
    """One that nobody looked at held its slot, or a stop, for good."""
    read, write = os.pipe()

    async def body(pool: ChildPool) -> Notes:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        await until(lambda: pool.slots[1].pid)
        pool.send(pool.slots[1], [Job(1, 0, b"fail")])
        await until(pool.runs)
        stop = asyncio.create_task(pool.finish())  # the thread of the first slot ends
        await asyncio.sleep(0.2)
        os.write(write, b"go")
        async with asyncio.timeout(10):
            await stop
        return notes

    with pool_of("threads", 2, Script(waits=lambda: os.read(read, 2))) as pool:
        notes = asyncio.run(body(pool))
    assert [(death.status, death.started) for death in notes.deaths] == [(256, {1})]


LEFT = {
    "a coroutine": {"waits": lambda: KEPT.append(asyncio.create_task(never_ends()))},
    "a thread": {"waits": lambda: KEPT.append(asyncio.create_task(asyncio.to_thread(time.sleep, 60)))},
    "a receiver": {"ends": lambda: time.sleep(60)},
}
KEPT: list[object] = []


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("asyncio", "a coroutine"),
        ("asyncio", "a thread"),
        ("asyncio", "a receiver"),
        ("threads", "a receiver"),
        ("processes", "a receiver"),
    ],
)
def test_what_tasks_and_receivers_leave_holds_up_neither_a_stop_nor_the_next_child(monkeypatch, name, left):
    monkeypatch.setattr(umbel.pools.child, "FAREWELL", 0.3)

    async def body(pool: ChildPool) -> Notes:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        slot = pool.slots[0]
        for tag in (1, 2):
            await until(lambda: slot.pid)
            pool.send(slot, [Job(tag, 0, b"wait")])
            await until(lambda tag=tag: len(notes.outcomes) == tag)
            await until(lambda: len(children(pool)) == 1)
        async with asyncio.timeout(10):
            await pool.finish()
        return notes

    with pool_of(name, 1, Script(**LEFT[left]), most_tasks=1) as pool:
        notes = asyncio.run(body(pool))
    assert notes.deaths == []


MANY = """
import asyncio, resource, sys
from tests.faults.test_pool import Job, Notes, pool_of, until
async def body(pool):
    notes = Notes()
    pool.start(asyncio.get_running_loop(), notes)
    await until(lambda: all(slot.pid for slot in pool.slots))
    for tag, slot in enumerate(pool.slots, 1):
        assert pool.send(slot, [Job(tag, 0, b"")]) == 1
    await until(lambda: len(notes.outcomes) == len(pool.slots))
    print(len({outcome.meta for outcome in notes.outcomes}))
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
with pool_of(sys.argv[1], int(sys.argv[2])) as pool:
    asyncio.run(body(pool))
"""


@pytest.mark.parametrize(("name", "slots", "children"), [("threads", 300, 1), pytest.param("processes", 300, 300, marks=pytest.mark.slow)])
def test_a_pool_of_hundreds_of_slots_starts_whatever_number_of_open_files_is_usual(name, slots, children):
    """Their descriptors are numbers above those that `select` knows, and more than the usual limit."""
    said = subprocess.run([sys.executable, "-c", MANY, name, str(slots)], check=True, capture_output=True, text=True, timeout=50).stdout
    assert said == f"{children}\n"


def test_a_pool_for_which_the_system_has_too_few_open_files_says_what_to_do(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    with pytest.raises(ImproperlyConfigured, match="A concurrency of 500 needs 3256 open files; this process may have 1024"):
        ChildPool("threads", Script(), concurrency=500)
