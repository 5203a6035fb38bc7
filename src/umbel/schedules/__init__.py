"""Schedules as values: when something is to run next.

There are `crontab`, `schedule` (so long after the moment before), `every` (at even distances from a fixed one), `solar`, `clocked` (once).
They know nothing of tasks and entries, and do nothing by themselves. A scheduler uses them so:

* `s.next_after(moment)` is the first time after *moment* at which *s* is due, or None if there is none any more. It looks at no clock, so
  all schedulers that ask get the same answer, and a slot may be named by it. *moment* is the last run; of an entry that has never run, the
  time at which it was made. If the answer is not after now, the entry is due, and slots that were missed are found by asking again with the
  answer. An answer is in the schedule's zone; compare and keep it in UTC.
* If `s.is_custom()`, some class outside of this package decides by `is_due` or `remaining_estimate`, as classes written for Celery do. Then
  ask `s.is_due(last_run_at)`, Celery's question, which reads the clock `s.now()`: it returns whether to run now, and in how many seconds to
  ask again; None: never.
* `s.app = app` gives it the app whose `timezone` it is in, unless it has a zone of its own (`tz=`).
* `s.to_dict()` and `from_dict(document)` write and read it as JSON; `s.describe()` says it in English; `s.upcoming(moment, n)` are its next
  times; `maybe_schedule` makes a schedule of seconds and timedeltas.
"""

from __future__ import annotations

from umbel.cron import ParseException, crontab_parser
from umbel.schedules.base import BaseSchedule, schedstate
from umbel.schedules.clocked import clocked
from umbel.schedules.crontab import crontab
from umbel.schedules.documents import from_dict
from umbel.schedules.interval import every, maybe_schedule, schedule
from umbel.schedules.solar import solar

__all__ = [
    "BaseSchedule", "ParseException", "clocked", "crontab", "crontab_parser", "every", "from_dict", "maybe_schedule", "schedstate",
    "schedule", "solar",
]  # fmt: skip
