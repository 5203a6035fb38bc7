"""Puts entries into a store, as `benchmarks/beat.py` asks by lines of JSON, and answers each when that is committed.

`idle COUNT` makes entries of the 29th of February, `each COUNT` such of every second, `now NAME` one that is due at once and then once a
day, `pulse` one of every quarter of a second, `together COUNT AT` such that are due once, at one moment. `none` removes all but the idle
ones. Each one's call has its name as argument.
"""

import json
import os
import sys
from datetime import UTC, datetime, timedelta

import beat_app

KIND = os.environ["BENCH_KIND"]
DAY = 86400
BATCH = 2000
TASK = "bench.nothing"


def crontab_of(number):
    """The fields of an idle entry."""
    return {"minute": str(number % 60), "hour": "3", "day_of_month": "29", "month_of_year": "2"}


class UmbelStore:
    """umbel's own store."""

    def __init__(self):
        from umbel.beat.stores import open_stores
        from umbel.schedule_store import Row

        leases, self.store = open_stores(beat_app.app)
        leases.close()
        self.row, self.names = Row, set()

    def put(self, entries, keep=False):
        """Put entries: (name, schedule, what else it says)."""
        rows = []
        for name, schedule, more in entries:
            rows.append(self.row(name, json.dumps({"task": TASK, "args": [name], "schedule": schedule, **more}).encode()))
            if not keep:
                self.names.add(name)
        self.store.put(rows)

    def idle(self, count):
        self.put(((f"idle{n}", {"kind": "crontab", **crontab_of(n)}, {}) for n in range(count)), keep=True)

    def each(self, count):
        self.put((f"each{n}", {"kind": "every", "run_every": 1}, {}) for n in range(count))

    def pulse(self):
        self.put([("pulse", {"kind": "every", "run_every": 0.25}, {})])

    def now(self, name):
        before = datetime.now(UTC).timestamp() - DAY
        self.put([(name, {"kind": "schedule", "run_every": DAY}, {"last_run_at": before})])

    def together(self, count, at):
        when = datetime.fromtimestamp(at, UTC).isoformat()
        self.put((f"same{n}", {"kind": "clocked", "at": when}, {}) for n in range(count))

    def none(self):
        self.store.remove(self.names)
        self.names.clear()


class UmbelTable:
    """umbel's table."""

    def __init__(self):
        migrate()
        from umbel.contrib.django.periodic.models import PeriodicTask

        self.model = PeriodicTask

    def put(self, entries):
        made = (self.model(**{"name": name, "task": TASK, "args": [name], **said}) for name, said in entries)
        self.model.objects.bulk_create(made, batch_size=BATCH)

    def idle(self, count):
        self.put((f"idle{n}", {"kind": "crontab", "crontab": f"{n % 60} 3 29 2 *"}) for n in range(count))

    def each(self, count):
        self.put((f"each{n}", {"every": 1, "unit": "seconds"}) for n in range(count))

    def now(self, name):
        before = datetime.now(UTC) - timedelta(days=1)
        self.model.objects.create(name=name, task=TASK, args=[name], every=1, unit="days", since=None, last_run_at=before)

    def pulse(self):
        self.model.objects.create(name="pulse", task=TASK, args=["pulse"], every=1, unit="seconds")

    def together(self, count, at):
        when = datetime.fromtimestamp(at, UTC)
        self.put((f"same{n}", {"kind": "clocked", "clocked_at": when}) for n in range(count))

    def none(self):
        self.model.objects.exclude(name__startswith="idle").delete()


class CeleryTable:
    """The table of django-celery-beat."""

    def __init__(self):
        migrate()
        from django_celery_beat import models

        self.models, self.model = models, models.PeriodicTask
        self.second, _ = models.IntervalSchedule.objects.get_or_create(every=1, period="seconds")
        self.day, _ = models.IntervalSchedule.objects.get_or_create(every=1, period="days")

    def put(self, entries):
        made = (self.model(**{"name": name, "task": TASK, "args": json.dumps([name]), **said}) for name, said in entries)
        self.model.objects.bulk_create(made, batch_size=BATCH)
        self.models.PeriodicTasks.update_changed()

    def idle(self, count):
        night = [self.models.CrontabSchedule.objects.create(**crontab_of(n)) for n in range(60)]
        self.put((f"idle{n}", {"crontab": night[n % 60]}) for n in range(count))

    def each(self, count):
        self.put((f"each{n}", {"interval": self.second}) for n in range(count))

    def now(self, name):
        before = datetime.now(UTC) - timedelta(days=1)
        self.model.objects.create(name=name, task=TASK, args=json.dumps([name]), interval=self.day, last_run_at=before)

    def none(self):
        self.model.objects.exclude(name__startswith="idle").delete()
        self.models.PeriodicTasks.update_changed()


class RedBeat:
    """The store of celery-redbeat."""

    def __init__(self):
        from celery.schedules import crontab, schedule
        from redbeat import RedBeatSchedulerEntry

        self.make, self.crontab, self.schedule, self.made = RedBeatSchedulerEntry, crontab, schedule, []

    def entry(self, name, schedule, before=None):
        """Put one."""
        entry = self.make(name, TASK, schedule, args=[name], app=beat_app.app, last_run_at=before)
        entry.save()
        return entry

    def idle(self, count):
        before = datetime.now(UTC)
        for n in range(count):
            self.entry(f"idle{n}", self.crontab(**crontab_of(n)), before)

    def each(self, count):
        self.made += [self.entry(f"each{n}", self.schedule(1)) for n in range(count)]

    def now(self, name):
        self.made.append(self.entry(name, self.schedule(DAY), datetime.now(UTC) - timedelta(days=1)))

    def none(self):
        for entry in self.made:
            entry.delete()
        self.made.clear()


def migrate():
    """Make the tables."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def main():
    kinds = {"umbel/redis": UmbelStore, "umbel/django": UmbelTable, "django-celery-beat": CeleryTable, "redbeat": RedBeat}
    editor = kinds[KIND]()
    print("ready", flush=True)
    for line in sys.stdin:
        what, *given = json.loads(line)
        getattr(editor, what)(*given)
        print("done", flush=True)


if __name__ == "__main__":
    main()
