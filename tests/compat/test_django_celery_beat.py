"""`manage.py umbel_import_beat` with a database that a real django-celery-beat has made and filled."""

import json
import subprocess

import pytest
from tests.compat.celery_env import python_with
from tests.django.conftest import Example

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # its environment is made first

WANTED = ["django-celery-beat==2.9.*", "Django<6"]
FILL = """
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_beat"], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
)
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

def new(name, **said):
    return PeriodicTask.objects.create(**{"name": name, "task": "myapp_infra.tasks.add", "args": "[1, 2]", **said})

def broken(name, schedule=None, **wrong):
    # As it is not accepted: written behind its back.
    task = new(name, interval=IntervalSchedule.objects.create(every=7, period="days"))
    rows = PeriodicTask.objects.filter(pk=task.pk) if schedule is None else type(schedule).objects.filter(pk=schedule.pk)
    rows.update(**wrong)
    if isinstance(schedule, CrontabSchedule):
        PeriodicTask.objects.filter(pk=task.pk).update(crontab=schedule, interval=None)
    elif schedule is not None:
        PeriodicTask.objects.filter(pk=task.pk).update(interval=schedule)

interval = IntervalSchedule.objects.create(every=10, period="minutes")
new("interval", interval=interval, last_run_at=datetime(2026, 1, 1, tzinfo=UTC))
new("microseconds", interval=IntervalSchedule.objects.create(every=250000, period="microseconds"))
new("off", interval=interval, enabled=False)
new("once", interval=interval, one_off=True)
new("clocked", clocked=ClockedSchedule.objects.create(clocked_time=datetime(2030, 1, 1, 12, tzinfo=UTC)), one_off=True)
weekdays = CrontabSchedule.objects.create(minute="0, 30", hour="9-17", day_of_week="mon-fri", timezone=ZoneInfo("Europe/Berlin"))
new("cron", crontab=weekdays, args="", kwargs='{"x": "日报", "y": [1, {"z": null}]}')
message = {"queue": "later", "exchange": "e", "routing_key": "r", "headers": '{"h": 1}', "priority": 7, "expire_seconds": 90}
new("options", interval=interval, description="why", **message)
new("发送日报", interval=interval, expires=datetime(2031, 1, 1, tzinfo=UTC), start_time=datetime(2026, 1, 1, tzinfo=UTC))
new("sunset", solar=SolarSchedule.objects.create(event="sunset", latitude="52.5", longitude="13.4"))
broken("no json", args="[1,")
broken("no list", args='{"a": 1}')
broken("no number", args="[NaN]")
broken("no headers", headers="x")
broken("no task", task="")
broken("no schedule", interval=None)
broken("no priority", priority=999)
broken("no unit", IntervalSchedule.objects.create(every=1, period="days"), period="weeks")
broken("no time", IntervalSchedule.objects.create(every=2, period="days"), every=0)
broken("no minute", CrontabSchedule.objects.create(minute="1"), minute="1,,")
broken("no zone", CrontabSchedule.objects.create(minute="2"), hour="25")
"""
ROWS = """
import json
from umbel.contrib.django.periodic.models import PeriodicTask
left_out = ("id", "created", "changed", "since")
print(json.dumps({row.pop("name"): {k: str(v) for k, v in row.items() if v not in (None, "", [], {}) and k not in left_out}
                  for row in PeriodicTask.objects.values()}))
"""
PLAIN = {
    "task": "myapp_infra.tasks.add", "args": "[1, 2]", "enabled": "True", "kind": "interval", "every": "10.000000", "unit": "minutes",
    "one_off": "False", "misfire": "once", "overlap": "allow", "jitter": "0.0",
}  # fmt: skip
EXPECTED = {
    "interval": {"last_run_at": "2026-01-01 00:00:00+00:00"},
    "microseconds": {"every": "0.250000", "unit": "seconds"},
    "off": {"enabled": "False"},
    "once": {"one_off": "True"},
    "clocked": {"kind": "clocked", "every": None, "clocked_at": "2030-01-01 12:00:00+00:00", "one_off": "True"},
    "cron": {
        "kind": "crontab", "every": None, "crontab": "0,30 9-17 * * mon-fri", "timezone": "Europe/Berlin", "args": None,
        "kwargs": "{'x': '日报', 'y': [1, {'z': None}]}",
    },
    "options": {
        "queue": "later", "options": "{'exchange': 'e', 'routing_key': 'r'}", "headers": "{'h': 1}", "priority": "7", "expires": "90.0",
        "description": "why",
    },
    "发送日报": {"starts": "2026-01-01 00:00:00+00:00", "ends": "2031-01-01 00:00:00+00:00"},
}  # fmt: skip
REFUSED = [
    "sunset", "no json", "no list", "no number", "no headers", "no task", "no schedule", "no priority", "no unit", "no time", "no minute",
    "no zone",
]  # fmt: skip


def carry_out(example, *options):
    with example.run("python", "manage.py", "umbel_import_beat", *options) as command:
        assert command.exit_code(60) == 0, command.tail()
        return command.log()


def rows(example):
    return json.loads(example.shell(ROWS, DJANGO_SETTINGS_MODULE="periodic_settings"))


def test_all_that_can_be_is_taken_over_and_the_rest_is_named(tmp_path):
    python, database = python_with("django-celery-beat-env", WANTED), tmp_path / "site.sqlite3"
    subprocess.run([python, "-c", FILL, database], check=True, timeout=120)
    example = Example(tmp_path, DJANGO_SETTINGS_MODULE="periodic_settings", DATABASE_PATH=str(database))
    example.migrate()
    assert "8 would be taken over, 0 would be updated, 0 left as they are, 12 cannot be taken over." in carry_out(example, "--dry-run")
    assert rows(example) == {}
    told = carry_out(example)
    assert [name for name in REFUSED if f"{name!r} is not taken over: " in told] == REFUSED
    assert "8 taken over" in told
    taken = rows(example)
    for name, row in taken.items():
        if name != "interval":
            assert row.pop("last_run_at", "")  # as it was written just now, and counts from there
        assert row == {key: value for key, value in (PLAIN | EXPECTED[name]).items() if value is not None}, name
    assert "0 taken over, 0 updated, 8 left as they are" in carry_out(example)
    again = rows(example)
    carry_out(example, "--update")
    assert rows(example) == again
    assert again.keys() == EXPECTED.keys()
