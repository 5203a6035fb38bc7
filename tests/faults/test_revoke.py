"""A revoked task does not start, whenever its worker comes and wherever its message is; one that runs can be ended."""

import signal

import pytest
from tests.faults.conftest import Faults
from tests.process.conftest import POSTGRES, REDIS
from tests.processes import wait_for

ENDED = "(lambda r: print(repr(r.get(timeout=60, propagate=False)), r.state))"


class Revoking(Faults):
    def send(self, call: str) -> str:
        return self.script(f"from revoke_app import *\n{call}")

    def worker(self, *options: str, app: str = "revoke_app", **env: str):
        return super().worker(*options, app=app, **env)


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def tasks(request) -> Revoking:
    found = request.getfixturevalue({"sqlite": "on_file", "redis": "direct", "postgresql": "on_postgres"}[request.param])
    return Revoking(found.env, found.folder)


def test_a_waiting_or_delayed_task_that_was_revoked_before_its_worker_came_never_starts(tasks):
    tasks.send(
        "sent = [work.apply_async((n,), task_id=f'task-{n}', countdown=3 if n == 4 else None) for n in range(5)]\n"
        "app.control.revoke(['task-1', 'task-3']); sent[4].revoke()"
    )
    with tasks.worker("-c", "1") as worker:
        said = tasks.send(f"for n in range(5): {ENDED}(app.AsyncResult(f'task-{{n}}'))")
        worker.waits_to_print("Discarding revoked task: ledger_app.work[task-4]")
    revoked = "TaskRevokedError('revoked') REVOKED"
    assert said.splitlines() == ["0 SUCCESS", revoked, "2 SUCCESS", revoked, revoked]
    assert tasks.numbers() == {0, 2}
    assert tasks.times("revoked 3 terminated=False signum=None expired=False") == 1


def test_what_comes_after_a_revoke_never_starts_though_its_worker_is_busy(tasks):
    """Each id is revoked before its message is sent: a worker that claims it, however soon, must know."""
    with tasks.worker("-c", "2") as worker:
        tasks.send("[r.get(timeout=60) for r in [work.delay(n) for n in range(50)]]")
        tasks.send(
            "sent = []\n"
            "for n in range(1000, 1060):\n"
            "    app.control.revoke(f'task-{n}'); sent += [work.apply_async((n,), task_id=f'task-{n}'), work.delay(n - 900)]\n"
            "print([r.get(timeout=60, propagate=False) for r in sent])"
        )
        worker.waits_to_print("Tasks flagged as revoked: task-1")
    assert tasks.numbers() == set(range(50)) | set(range(100, 160))


def test_ten_thousand_ids_are_revoked_in_one_call_and_the_others_run(tasks):
    ids = tasks.send(
        "sent = work.delay_many([((n,), {}) for n in range(1000)])\n"
        "app.control.revoke([r.id for r in sent[::2]] + [f'other-{n}' for n in range(9_500)])\n"
        "print(sent[0].id, sent[1].id)"
    )
    with tasks.worker("-c", "2"):
        wait_for(lambda: len(tasks.numbers()) == 500, 60, tasks.logs)
        wait_for(lambda: "ready=0, delayed=0, claimed=0" in tasks.depth(), 30, tasks.logs)
        said = tasks.send(f"for id in {ids.split()}: {ENDED}(app.AsyncResult(id))")
    assert said.splitlines() == ["TaskRevokedError('revoked') REVOKED", "1 SUCCESS"]
    assert tasks.numbers() == set(range(1, 1000, 2))


TERMINATED = "TaskRevokedError('terminated') REVOKED"


def run_until_begun(tasks, *numbers):
    wait_for(lambda: all(f"begins {number}" in tasks.lines() for number in numbers), 30, tasks.logs)


def test_a_task_that_runs_is_ended_and_its_neighbours_lose_nothing(tasks):
    with tasks.worker("-c", "2") as worker:
        tasks.send("[r.get(timeout=60) for r in [work.delay(n) for n in range(30)]]  # now they travel in packets")
        tasks.send("begins.apply_async((1, 60), task_id='long'); begins.apply_async((2, 60), task_id='other')")
        run_until_begun(tasks, 1, 2)
        tasks.send("work.delay_many([((n,), {}) for n in range(100, 150)]); app.control.revoke('other')")
        worker.waits_to_print("Tasks flagged as revoked: other")
        assert "Terminating" not in worker.log(), "without terminate, what runs is left alone"
        tasks.send("app.control.revoke(['long', 'other'], terminate=True)")
        said = tasks.send(f"{ENDED}(app.AsyncResult('long')); {ENDED}(app.AsyncResult('other'))")
        wait_for(lambda: tasks.numbers() == set(range(30)) | set(range(100, 150)), 30, tasks.logs)
        worker.waits_to_print("Terminating long (15)")
        worker.waits_to_print("exited with 'signal 15 (SIGTERM)'")
        wait_for(lambda: "ready=0, delayed=0, claimed=0, parked=0, dead=0" in tasks.depth(), 30, tasks.logs)
    assert said.splitlines() == [TERMINATED, TERMINATED]
    assert tasks.times("begins 1") == tasks.times("begins 2") == 1
    assert tasks.times("revoked 1 terminated=True signum=15 expired=False") == 1
    assert all(tasks.times(str(number)) == 1 for number in range(100, 150))


@pytest.mark.parametrize(
    ("pool", "long", "function", "beside"),
    [
        ("threads", "begins", None, "begins"),
        ("threads", "begins_async", None, "begins_async"),
        ("solo", "begins", None, None),
        ("solo", "begins_async", None, None),
        ("asyncio", "begins_async", "begins", "begins_async"),
    ],
)
def test_other_pools_interrupt_the_task_and_leave_those_beside_it_alone(on_file, pool, long, function, beside):
    tasks = Revoking(on_file.env, on_file.folder)
    calls = {1: (long, 60), 2: (function, 60), 3: (beside, 3)}
    with tasks.worker("-P", pool, "-c", "1" if pool == "solo" else "3") as worker:
        sent = [number for number, (name, _) in calls.items() if name]
        tasks.send(";".join(f"{calls[n][0]}.apply_async(({n}, {calls[n][1]}), task_id='task-{n}')" for n in sent))
        run_until_begun(tasks, *sent)
        tasks.send("app.control.terminate(['task-1', 'task-2'])")
        said = tasks.send(f"for n in {sent}: {ENDED}(app.AsyncResult(f'task-{{n}}'))\n{ENDED}(work.delay(4))")
    assert said.splitlines() == [*(TERMINATED if n < 3 else "3 SUCCESS" for n in sent), "4 SUCCESS"]
    assert not tasks.numbers() & {1, 2}
    assert all(tasks.times(f"begins {number}") == 1 for number in sent)
    assert "exited with" not in worker.log(), "they hear it by themselves"


def test_signals_reach_the_task_and_who_does_not_end_is_killed(on_file):
    tasks = Revoking(on_file.env, on_file.folder)
    with tasks.worker("-c", "3") as worker:
        tasks.send(
            "cleans_up.apply_async((1,), task_id='own'); hears.apply_async((2,), task_id='soft')\n"
            "holds_the_lock.apply_async((3, 60), task_id='deaf')"
        )
        run_until_begun(tasks, 1, 2)
        said = tasks.send(
            "app.control.terminate(['own', 'deaf']); app.control.terminate('soft', signal='USR1')\n"
            f"for id in ('own', 'soft', 'deaf'): {ENDED}(app.AsyncResult(id))"
        )
        worker.waits_to_print("Terminating deaf (15)")
    assert said.splitlines() == [TERMINATED, "'heard' SUCCESS", TERMINATED]
    assert "told 1" in tasks.lines()
    assert 3 not in tasks.numbers()


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_a_revoke_of_what_runs_during_a_warm_stop_does_not_keep_the_worker(on_file, pool):
    tasks = Revoking(on_file.env, on_file.folder)
    with tasks.worker("-P", pool, "-c", "1") as worker:
        tasks.send("begins.apply_async((1, 4), task_id='long')")
        run_until_begun(tasks, 1)
        worker.send(signal.SIGTERM)
        worker.waits_to_print("Warm shutdown")
        tasks.send("app.control.revoke('long')")
        worker.waits_to_print("Tasks flagged as revoked: long")
        assert worker.exit_code(15) == 0, worker.tail()
    assert tasks.numbers() == {1}
