"""A limited task starts as often as it may, and what waits for its turn is in nobody's way."""

import re
import signal

import pytest
from tests.faults.conftest import Faults
from tests.process.conftest import POSTGRES, REDIS
from tests.processes import wait_for


class Limited(Faults):
    def send(self, call: str) -> str:
        return self.script(f"from rates_app import *\n{call}")

    def worker(self, *options: str, app: str = "rates_app", **env: str):
        return super().worker(*options, app=app, **env)

    def starts(self, name: str = "limited") -> list[tuple[float, int]]:
        words = [line.split() for line in self.lines() if line.startswith(f"{name} ")]
        return sorted((float(at), int(number)) for _, number, at in words)

    def kept(self) -> dict[str, int]:
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", self.depth())}


def assert_never_exceeded(starts, interval, *, jitter=0.08):
    """No window holds more starts than the rate allows; a start is noted a little later than it was let go."""
    times = [at for at, _ in starts]
    for first, since in enumerate(times):
        for last in range(first + 1, len(times)):
            assert times[last] - since >= (last - first) * interval - jitter, times[first : last + 1]


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def tasks(request) -> Limited:
    found = request.getfixturevalue({"sqlite": "on_file", "redis": "direct", "postgresql": "on_postgres"}[request.param])
    return Limited(found.env, found.folder)


def test_ten_thousand_limited_tasks_in_front_hold_up_no_other_and_a_warm_stop_leaves_them_in_the_broker(tasks):
    tasks.send("limited.delay_many([((n,), {}) for n in range(10_000)]); work.delay_many([((n,), {}) for n in range(100)])")
    with tasks.worker("-c", "2") as worker:
        wait_for(lambda: len(tasks.numbers()) == 100, 60, tasks.logs)
        assert len(tasks.starts()) < 300, "the others ran long before the limited ones"
        wait_for(lambda: len(tasks.starts()) >= 30, 30, tasks.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    starts = tasks.starts()
    assert_never_exceeded(starts, 0.1)
    # What has its turn stands behind the rest when it comes back; until that was seen once, a free token goes to who comes.
    assert [number for _, number in starts[:10]] == list(range(10))
    kept = tasks.kept()
    assert kept["claimed"] == kept["dead"] == kept["parked"] == 0
    assert kept["ready"] + kept["delayed"] == 10_000 - len(starts)


def test_a_task_with_two_workers_starts_twice_as_often_and_each_keeps_its_own_limit(tasks):
    tasks.send("limited.delay_many([((n,), {}) for n in range(40)])")
    with tasks.worker("-c", "1", "-n", "a@here"), tasks.worker("-c", "1", "-n", "b@here"):
        wait_for(lambda: len(tasks.starts()) == 40, 40, tasks.logs)
    assert_never_exceeded(tasks.starts()[::2], 0.1 / 2, jitter=0.2)
    assert sorted(number for _, number in tasks.starts()) == list(range(40))


def test_a_limited_task_that_expires_while_it_waits_is_revoked(on_file):
    tasks = Limited(on_file.env, on_file.folder)
    with tasks.worker("-c", "1"):
        said = tasks.send(
            "sent = [rare.delay(0), *(rare.apply_async((n,), expires=1) for n in (1, 2)), rare.delay(3)]\n"
            "print([r.get(timeout=60, propagate=False) for r in sent[1:]], [r.state for r in sent])"
        )
    assert said.strip() == ("[TaskRevokedError('expired'), TaskRevokedError('expired'), 3] ['SUCCESS', 'REVOKED', 'REVOKED', 'SUCCESS']")


def test_limits_may_be_turned_off_for_a_worker(on_file):
    tasks = Limited(on_file.env, on_file.folder)
    tasks.send("limited.delay_many([((n,), {}) for n in range(200)])")
    with tasks.worker("-c", "1", "--", "worker.disable_rate_limits=true"):
        wait_for(lambda: len(tasks.starts()) == 200, 15, tasks.logs)
