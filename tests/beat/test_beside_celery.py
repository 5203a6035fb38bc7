"""The schedules beside those of Celery 5.7, which runs in an environment of its own. What differs is in docs/from-celery.md."""

import json
import random
import subprocess
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from tests.beat import questions
from tests.beat.expressions import ZONES, changes, crontab_fields
from tests.compat.celery_env import celery_python

BEGIN = datetime(2021, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def celery_says(asked):
    done = subprocess.run(
        [celery_python(), questions.__file__], input=json.dumps(asked), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def names():
    return questions.names_of("umbel")  # its app is current until the test is over


def is_near_a_change(zone, *answers):
    """Whether the first times in which answers differ are about a day from a change of the clock."""
    first = next(min(times) for times in zip(*(answer["times"] for answer in answers), strict=True) if len(set(times)) > 1)
    at = datetime.fromisoformat(first).replace(minute=0, second=0)
    return bool(changes(ZoneInfo(zone), at - DAY, at + DAY))


def compare(names, seed, count):
    chance = random.Random(seed)
    asked = [
        (chance.choice(ZONES), crontab_fields(chance), (BEGIN + timedelta(seconds=chance.randint(0, 5 * 365 * 86400))).isoformat())
        for _ in range(count)
    ]
    different = []
    for question, theirs in zip(asked, celery_says(asked), strict=True):
        ours = questions.next_runs(names, *question)
        if ours != theirs:
            assert ours.get("fields") == theirs.get("fields"), question
            assert is_near_a_change(question[0], ours, theirs), (question, ours, theirs)
            different.append(question)
    assert len(different) <= count / 500


def test_ten_thousand_random_crontabs_are_due_as_celerys_but_where_the_clock_is_changed(names):
    compare(names, 7, 10_000)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_random_crontabs_are_due_as_celerys_but_where_the_clock_is_changed(names):
    for seed in range(10):
        compare(names, f"many {seed}", 20_000)


SPECS = [
    "'60'", "60", "-1", "'-1'", "'1-'", "'5/15'", "'*/0'", "'*/-1'", "'*/'", "'*/a'", "''", "','", "'1,,2'", "'?'", "'L'", "'a'", "'mo'",
    "'monx'",
    "'mon'", "'jan'", "'7'", "7", "'0-7'", "'sun-7'", "None", "1.5", "['1']", "[60]", "[1, 2]", "(1, 2)", "{1, 2}", "range(3)", "' 5'",
    "'5 ,6'", "'5-5'", "'6-5'", "'50-10/5'", "'fri-mon'", "'Nov-feb'", "'0'", "0", "'31'", "32", "'*/100'", "'1-5/2,7'", "'05'",
    "'0x5'", "'5.0'",
]  # fmt: skip
EXPRESSIONS = [
    *(f"sorted(crontab({field}={spec}).{field})" for spec in SPECS for field in questions.FIELDS),
    "crontab(day_of_month='31', month_of_year='2').day_of_month",
    "crontab(day_of_month='30,31', month_of_year='2,4')",
    "crontab(day_of_month='31', month_of_year='4,6,9,11')",
    "crontab(), crontab('0', '4', '*'), crontab(minute='*/5', hour=[1, 2], day_of_week='mon')",
    "crontab(0, 4) == crontab('0', '4')", "crontab(0, 4) == crontab(0, 5)", "crontab() == 'a'", "crontab() != schedule(1)",
    "crontab(minute='*/30') == crontab(minute='0,30')", "crontab(nowfun=datetime.now) == crontab()",
    "hash(crontab())", "hash(schedule(1))",
    "pickled(crontab('*/5', [1, 2], 'mon', 7, 'jan'))", "pickled(crontab('*/5')) == crontab('*/5')", "pickled(schedule(5, True)).relative",
    "pickled(crontab(nowfun=datetime.now)).nowfun == datetime.now", "pickled(schedule(5)) == schedule(5)",
    "crontab.from_string('*/5 9-17 * * mon-fri')", "crontab.from_string('* * * *')", "crontab.from_string('* * * * * *')",
    "crontab.from_string('@daily')", "crontab.from_string('0 4 1 jan sun') == crontab(0, 4, 0, 1, 1)",
    "crontab_parser(60).parse('*/15')", "sorted(crontab_parser(31, 1).parse('*/7'))", "crontab_parser(7).parse('fri-mon')",
    "crontab_parser().parse('')",
    "crontab_parser.ParseException is ParseException", "ParseException.__mro__[1]",
    "schedule(10)", "schedule(90)", "schedule(3600)", "schedule(timedelta(days=2))", "schedule(0)", "schedule(0.5)", "schedule(1)",
    "schedule(10).seconds", "schedule(-5).seconds", "schedule(90).human_seconds", "schedule(10) == 10",
    "schedule(10) == timedelta(seconds=10)",
    "schedule(10) == schedule(10, relative=True)", "schedule(10) == 'a'", "schedule(1).nowfun, schedule(1).relative, schedule.relative",
    "schedule(1).tz", "schedule(1).app is app", "schedule(1).utc_enabled",
    "maybe_schedule(10)", "maybe_schedule(1.5)", "maybe_schedule(None)", "maybe_schedule(timedelta(days=2), True).relative",
    "maybe_schedule(crontab())", "maybe_schedule(5, app=app).app is app",
    "BaseSchedule() == BaseSchedule()", "BaseSchedule() == 3", "BaseSchedule().is_due(1)", "BaseSchedule().remaining_estimate(1)",
    "schedstate(True, 3)", "schedstate._fields", "tuple(schedstate(is_due=False, next=1.5))",
    *(
        f"{ask}({last})"
        for last in ("at('2026-05-13T06:30:00-04:00')", "at('2026-05-13T10:29:00')",
            "at('2026-05-11T21:00:00-04:00')", "at('2026-05-13T06:40:00-04:00')")
        for ask in (
            "stopped(schedule, 10).is_due", "stopped(schedule, 60).remaining_estimate", "stopped(schedule, 86400).is_due",
            "stopped(schedule, 3600, relative=True).remaining_estimate", "stopped(schedule, 86400, relative=True).is_due",
            "stopped(schedule, 90, relative=True).is_due", "stopped(schedule, 0).is_due",
            "stopped(crontab, '*/5').is_due", "stopped(crontab, 30, 6).is_due", "stopped(crontab, 0, 9, 'fri', 13).remaining_estimate",
        )
    ),
    "stopped(schedule, 1).now()", "stopped(schedule, 1).maybe_make_aware(datetime(2026, 1, 1))",
    "stopped(schedule, 1).maybe_make_aware(datetime(2026, 1, 1), False)", "stopped(schedule, 1).to_local(at('2026-01-01T00:00:00+00:00'))",
    *(
        f"[app.conf.update(beat_cron_starting_deadline={deadline}), stopped(crontab, '*/10').is_due(at('2026-05-13T{last}+00:00'))][1]"
        for deadline in (None, 10, 15, 16, 3600)
        for last in ("10:29:00", "10:19:00", "09:00:00", "10:30:10")
    ),
]  # fmt: skip
# Refused by umbel, read in part or left for later by Celery.
REFUSED = [
    "crontab(minute='1-2-3')",
    "crontab(minute='*/2/3')",
    "crontab(minute=[])",
    "crontab(minute=b'5')",
    "crontab('5/2x')",
    "schedule()",
]
# The other way round.
READ = ["crontab(minute='* ')", "crontab.from_string('*  * * * *')", "crontab.from_string(' * * * * * ')"]


def test_expressions_give_the_same_with_celerys_schedules(names):
    asked = EXPRESSIONS
    ours = [questions.evaluated(names, each) for each in asked]
    theirs = [said.replace("celery.schedules", "umbel.schedules") for said in celery_says(asked)]
    assert [pair for pair in zip(asked, ours, theirs, strict=True) if pair[1] != pair[2]] == []


def test_what_celery_reads_in_part_is_refused_and_more_spaces_are_read(names):
    assert {questions.evaluated(names, each) for each in REFUSED} <= {"ValueError", "TypeError"}
    assert all(questions.evaluated(names, each).startswith("<crontab") for each in READ)


EVENTS = [
    "sunrise",
    "sunset",
    "solar_noon",
    "dawn_civil",
    "dawn_nautical",
    "dawn_astronomical",
    "dusk_civil",
    "dusk_nautical",
    "dusk_astronomical",
]


def test_the_sun_does_the_same_within_two_seconds(names):
    pytest.importorskip("ephem")
    left = [
        f"stopped(solar, {event!r}, {lat}, {lon}).remaining_estimate(at('{last}')).total_seconds()"
        for event in EVENTS
        for last in ("2026-05-13T10:30:15+00:00", "2026-06-10T12:00:00+00:00", "2025-12-01T00:00:00+00:00")
        for lat, lon in ((70, 20), (-66, -100), (0, 0), (40.7, -74), (-33.9, 151.2), (48, 179.5), (35, -179.9))
    ]
    theirs = celery_says([*left, "solar('sunset', 1, 2)", "solar('x', 1, 2)", "solar('sunset', 91, 2)", "solar('sunset', 1, -181)"])
    if "ImproperlyConfigured" in theirs:
        pytest.skip("Celery's environment has no ephem")
    ours = [questions.evaluated(names, each) for each in left]
    assert [pair for pair in zip(left, ours, theirs, strict=False) if abs(float(pair[1]) - float(pair[2])) > 2] == []
    assert theirs[len(left) :] == ["<solar: sunset at latitude 1, longitude: 2>", "ValueError", "ValueError", "ValueError"]
