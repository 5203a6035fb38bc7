"""A revoked task does not start, whenever its worker comes and wherever its message is; one that runs can be ended."""

import pytest
from tests.faults.conftest import Faults
from tests.processes import wait_for

ENDED = "(lambda r: print(repr(r.get(timeout=30, propagate=False)), r.state))"


class Revoking(Faults):
    def send(self, call: str) -> str:
        return self.script(f"from revoke_app import *\n{call}")

    def worker(self, *options: str, app: str = "revoke_app", **env: str):
        return super().worker(*options, app=app, **env)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def tasks(request) -> Revoking:
    found = request.getfixturevalue("on_file" if request.param == "sqlite" else "direct")
    return Revoking(found.env, found.folder)


def test_a_task_that_was_revoked_before_its_worker_came_never_starts(tasks):
    tasks.send(
        "sent = [work.apply_async((n,), task_id=f'task-{n}') for n in range(5)]\napp.control.revoke(['task-1', 'task-3']); sent[4].revoke()"
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
        tasks.send("[r.get(timeout=30) for r in [work.delay(n) for n in range(50)]]")
        tasks.send(
            "sent = []\n"
            "for n in range(1000, 1060):\n"
            "    app.control.revoke(f'task-{n}'); sent += [work.apply_async((n,), task_id=f'task-{n}'), work.delay(n - 900)]\n"
            "print([r.get(timeout=30, propagate=False) for r in sent])"
        )
        worker.waits_to_print("Tasks flagged as revoked: task-1")
    assert tasks.numbers() == set(range(50)) | set(range(100, 160))


def test_a_delayed_task_that_was_revoked_is_discarded_when_it_is_due(tasks):
    with tasks.worker("-c", "1"):
        said = tasks.send(
            "late, kept = work.apply_async((1,), countdown=1), work.apply_async((2,), countdown=1)\n"
            f"late.revoke(); {ENDED}(late); {ENDED}(kept)"
        )
    assert said.splitlines() == ["TaskRevokedError('revoked') REVOKED", "2 SUCCESS"]
    assert tasks.numbers() == {2}


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
