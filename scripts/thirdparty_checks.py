"""What packages that were written for Celery do, on umbel: python thirdparty_checks.py NAME [URL of a Redis]. For `scripts/thirdparty.py`.

Celery's names are umbel's here. A check that does not hold is an AssertionError.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import umbel
from umbel.contrib.testing.worker import start_worker
from umbel.result import allow_join_result
from umbel.wire.message import glance

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


BEAT_APP = """
import umbel

umbel.install_as_celery()

from pathlib import Path

from celery import Celery

app = Celery("scheduled", broker="sqlite:///" + str(Path(__file__).parent / "broker.sqlite3"))
app.conf.update(beat_max_loop_interval=1, beat_schedule={{"often": {{"task": "often", "schedule": 1.0}}}}, **{conf!r})
"""
DJANGO_APP = """
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_beat"], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(__file__).parent / "django.sqlite3")}},
)
django.setup()
"""
FILLED = """
import scheduled
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import IntervalSchedule, PeriodicTask
PeriodicTask.objects.create(name="row", task="row", interval=IntervalSchedule.objects.create(every=1, period="seconds"))
"""


def django_beat(url: str) -> None:
    """django-celery-beat: its scheduler, twice, sends what is in its table and in the settings, each run once."""
    del url
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scheduled.py").write_text(BEAT_APP.format(conf={}) + DJANGO_APP)
        subprocess.run([sys.executable, "-c", FILLED], cwd=folder, check=True, timeout=PATIENCE)
        sent_once(folder, "django_celery_beat.schedulers:DatabaseScheduler", {"often", "row"})


def redbeat(url: str) -> None:
    """celery-redbeat: its scheduler, twice, sends what is in the settings, each run once."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scheduled.py").write_text(BEAT_APP.format(conf={"redbeat_redis_url": url, "redbeat_lock_timeout": 5}))
        sent_once(folder, "redbeat.RedBeatScheduler", {"often"})


def sent_once(folder: str, scheduler: str, names: set[str]) -> None:
    """Run two programs of beat until each of the tasks was sent four times; none is sent more often than its seconds have passed."""
    app = umbel.Umbel("reader", broker=f"sqlite:///{folder}/broker.sqlite3", set_as_current=False)
    began = time.monotonic()
    command = [sys.executable, "-m", "umbel.contrib.celery_alias", "-m", "celery", "-A", "scheduled", "beat", "-S", scheduler]
    programs = [subprocess.Popen(command, cwd=folder) for _ in range(2)]
    try:
        app.broker.join("reader", ["celery"], lease=600)
        sent: Counter[str] = Counter()
        for seq in itertools.count(1):
            fetched = app.broker.fetch("celery", 100, owner="reader", seq=seq)
            sent.update(glance(each.raw).task for each in fetched)
            if sent.keys() >= names and min(sent[name] for name in names) >= 4:
                break
            assert time.monotonic() < began + 3 * PATIENCE, f"sent was only {dict(sent)}"
            time.sleep(0.05)
        passed = time.monotonic() - began
    finally:
        for program in programs:
            program.terminate()
        ended = [program.wait(PATIENCE) for program in programs]
    assert max(sent.values()) <= passed + 1, f"sent was {dict(sent)} in {passed:.1f} s"
    assert ended == [0, 0], ended


CHECKS: dict[str, Callable[[str], None]] = {each.__name__: each for each in (batches, once, progress, singleton, django_beat, redbeat)}

if __name__ == "__main__":
    CHECKS[sys.argv[1]](*sys.argv[2:] or [""])
