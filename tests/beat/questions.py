"""Questions to the schedules of Celery and to those of umbel, by the same code.

Celery's Python runs this file as a program: it reads and writes JSON.
"""

import importlib
import json
import pickle
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
NOW = datetime(2026, 5, 13, 10, 30, 15, tzinfo=UTC)


def next_runs(names, zone, fields, start):
    """The values of a crontab's fields, and the times of the next three runs; or the name of the error."""
    now = [datetime.fromisoformat(start).astimezone(ZoneInfo(zone))]
    try:
        schedule = names.crontab(**fields, nowfun=lambda: now[0], app=names.app)
    except Exception as exc:
        return {"error": type(exc).__name__}
    schedule.tz = ZoneInfo(zone)
    times = []
    for _ in range(3):
        left = schedule.remaining_estimate(now[0])
        found = now[0].astimezone(UTC) + left
        times.append(found.isoformat(timespec="seconds"))
        now[0] = (found + timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    return {"fields": [sorted(getattr(schedule, field)) for field in FIELDS], "times": times}


def evaluated(names, text):
    """What an expression gives, or the name of its exception."""
    try:
        return repr(eval(text, vars(names)))
    except Exception as exc:
        return type(exc).__name__


def at(text):
    return datetime.fromisoformat(text)


def names_of(package):
    """What expressions may use."""
    schedules, app = importlib.import_module(f"{package}.schedules"), importlib.import_module(package).Celery("asked")
    app.set_current()
    app.conf.timezone = "America/New_York"

    def stopped(make, *args, **kwargs):
        return make(*args, nowfun=lambda: NOW, app=app, **kwargs)

    def pickled(value):
        return pickle.loads(pickle.dumps(value))

    public = {name: getattr(schedules, name) for name in dir(schedules) if not name.startswith("_")}
    return SimpleNamespace(
        **{**public, "app": app, "stopped": stopped, "pickled": pickled, "at": at, "datetime": datetime, "timedelta": timedelta}
    )


def main():
    names, asked = names_of("celery"), json.load(sys.stdin)
    answers = [next_runs(names, *each) if isinstance(each, list) else evaluated(names, each) for each in asked]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
