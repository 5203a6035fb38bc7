"""What packages that were written for Celery do, on umbel: python thirdparty_checks.py NAME [URL of a Redis]. For `scripts/thirdparty.py`.

Celery's names are umbel's here. A check that does not hold is an AssertionError.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from typing import Any

import umbel
from umbel.contrib.testing.worker import start_worker
from umbel.result import allow_join_result

umbel.install_as_celery()

PATIENCE = 20


def values_of(app: Any, *results: Any) -> list[Any]:
    """Run a worker until these have ended."""
    with start_worker(app, perform_ping_check=False), allow_join_result():
        return [result.get(timeout=PATIENCE) for result in results]


def batches(url: str) -> None:
    """celery-batches: calls of one task are collected."""
    del url
    import celery_batches

    assert celery_batches.Batches


def once(url: str) -> None:
    """celery-once: a call that waits is refused a second time, and not after it ran."""
    del url
    from celery_once import AlreadyQueued, QueueOnce

    app = umbel.Umbel("once", broker="memory://once", backend="memory://once")
    with tempfile.TemporaryDirectory() as folder:
        app.conf.ONCE = {"backend": "celery_once.backends.File", "settings": {"location": folder, "default_timeout": 60}}

        @app.task(base=QueueOnce, name="slow")
        def slow(number: int) -> int:
            return number

        first = slow.delay(1)
        try:
            slow.delay(1)
        except AlreadyQueued:
            pass
        else:
            raise AssertionError("it was not refused")
        assert values_of(app, first, slow.delay(2)) == [1, 2]
        assert values_of(app, slow.delay(1)) == [1]


def progress(url: str) -> None:
    """celery-progress: what a task says of its progress can be read."""
    del url
    from celery_progress.backend import Progress, ProgressRecorder

    app = umbel.Umbel("progress", broker="memory://progress", backend="memory://progress")
    seen: list[Any] = []

    @app.task(bind=True, name="work")
    def work(self: Any) -> str:
        ProgressRecorder(self).set_progress(3, 10, "going on")
        seen.append(Progress(app.AsyncResult(self.request.id)).get_info())
        return "done"

    result = work.delay()
    assert values_of(app, result) == ["done"]
    assert seen[0]["progress"] == {"pending": False, "current": 3, "total": 10, "percent": 30.0, "description": "going on"}
    assert Progress(result).get_info()["complete"] is True


def singleton(url: str) -> None:
    """celery-singleton: a call that waits has the id of the first."""
    from celery_singleton import Singleton

    app = umbel.Umbel("singleton", broker=url, backend=url)

    @app.task(base=Singleton, name="alone")
    def alone(number: int) -> int:
        return number

    first, second, other = alone.delay(1), alone.delay(1), alone.delay(2)
    assert first.id == second.id != other.id
    assert values_of(app, first, other) == [1, 2]
    assert alone.delay(1).id != first.id


CHECKS: dict[str, Callable[[str], None]] = {each.__name__: each for each in (batches, once, progress, singleton)}

if __name__ == "__main__":
    CHECKS[sys.argv[1]](*sys.argv[2:] or [""])
