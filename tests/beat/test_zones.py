"""Ten years of crontabs in twenty zones: an independent library on ordinary days, the written rules where the clock is changed."""

import random
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from tests.beat.expressions import ZONES, by_the_rules, changes, crontab_fields

from umbel.schedules import crontab

BEGIN, END = datetime(2010, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

# Lines of cron as all libraries read them, with a day of the week that must match as well, for cron's OR.
LINES = [
    ("30 2 * * *", None),
    ("0 0 * * *", None),
    ("15 1 * * 1-5", None),
    ("0 12 29 2 *", None),
    ("45 23 31 * *", None),
    ("10 3 13 * *", {5}),
    ("0 8,20 1-7 3-5 *", {0, 6}),
    ("5 4 * * 0", None),
]
OFTEN = [("*/5 9-17 * * 1-5", None), ("*/20 * * * *", None), ("0 * * 6 *", None), ("7-59/13 */3 * * *", None)]


@cache
def on_the_wall(line, weekdays, library):
    """When another library says that a line is due on a clock that is never changed."""
    start, end = BEGIN.replace(tzinfo=None), END.replace(tzinfo=None)
    times = CronSim(line, start) if library == "cronsim" else croniter(line, start, ret_type=datetime)
    found = []
    for time in times:
        if time >= end:
            return found
        if not weekdays or time.isoweekday() % 7 in weekdays:
            found.append(time)
    return found


@cache
def changed(zone):
    return changes(ZoneInfo(zone), BEGIN - DAY, END + DAY)


def fires(schedule, begin, end):
    at, found = begin - timedelta(seconds=1), []
    while (at := schedule.next_after(at)) is not None and at.astimezone(UTC) < end:
        found.append(at)
    return found


def ten_years(zone, line, weekdays, *libraries):
    """Compare all days but those within a day of a change."""
    schedule = crontab.from_string(line, tz=zone)
    if weekdays:
        fields = schedule.__reduce__()[1]
        schedule = crontab(fields[0], fields[1], weekdays, fields[3], fields[4], tz=zone)
    near = {(at.astimezone(ZoneInfo(zone)) + DAY * days).date() for at in changed(zone) for days in (-1, 0, 1)}
    ours = [at.replace(tzinfo=None) for at in fires(schedule, BEGIN + DAY, END - DAY)]
    begin, end = (BEGIN + 2 * DAY).replace(tzinfo=None), (END - 2 * DAY).replace(tzinfo=None)
    ours = [at for at in ours if begin <= at < end and at.date() not in near]
    for library in libraries:
        theirs = on_the_wall(line, None if weekdays is None else frozenset(weekdays), library)
        assert ours == [at for at in theirs if begin <= at < end and at.date() not in near]


@pytest.mark.parametrize("zone", ZONES)
def test_ten_years_of_ordinary_days_are_as_another_library_has_them(zone):
    at = ZONES.index(zone)
    ten_years(zone, *LINES[at % len(LINES)], ("cronsim", "croniter")[at // len(LINES) % 2])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("zone", ZONES)
def test_ten_years_of_ordinary_days_are_as_two_other_libraries_have_them(zone):
    for line, weekdays in [*LINES, *OFTEN]:
        ten_years(zone, line, weekdays, "cronsim", "croniter")


def around_changes(zone, each):
    chance = random.Random(zone)
    for change in changed(zone):
        begin = (change - timedelta(hours=chance.randint(1, 40))).replace(minute=chance.randint(0, 59))
        end = begin + timedelta(hours=chance.randint(41, 50))
        for _ in range(each):
            fields = {**crontab_fields(chance), "month_of_year": "*"}
            if chance.random() < 0.5:
                fields.update(day_of_month="*", day_of_week="*")
            schedule = crontab(**fields, tz=zone)
            assert [at.astimezone(UTC) for at in fires(schedule, begin, end)] == by_the_rules(schedule, ZoneInfo(zone), begin, end), (
                fields,
                begin,
            )


@pytest.mark.parametrize("zone", [zone for zone in ZONES if zone not in ("UTC", "Asia/Shanghai", "Asia/Kolkata")])
def test_where_the_clock_is_changed_the_written_rules_hold(zone):
    assert changed(zone)
    around_changes(zone, each=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("zone", [zone for zone in ZONES if zone not in ("UTC", "Asia/Shanghai", "Asia/Kolkata")])
def test_where_the_clock_is_changed_the_written_rules_hold_for_many_expressions(zone):
    around_changes(zone, each=10)


@pytest.mark.parametrize(
    ("zone", "line", "after", "due"),
    [
        # 8 March 2026: 02:00 becomes 03:00. 1 November: 02:00 becomes 01:00.
        ("America/New_York", "30 2 * * *", "2026-03-08T05:00Z", ["2026-03-08T03:30-04:00", "2026-03-09T02:30-04:00"]),
        ("America/New_York", "30 2,3 * * *", "2026-03-08T05:00Z", ["2026-03-08T03:30-04:00", "2026-03-09T02:30-04:00"]),
        ("America/New_York", "30 * * * *", "2026-03-08T06:00Z", ["2026-03-08T01:30-05:00", "2026-03-08T03:30-04:00"]),
        ("America/New_York", "30 1 * * *", "2026-11-01T04:00Z", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        (
            "America/New_York", "*/30 * * * *", "2026-11-01T05:00Z",
            ["2026-11-01T01:30-04:00", "2026-11-01T01:00-05:00", "2026-11-01T01:30-05:00", "2026-11-01T02:00-05:00"],
        ),
        ("America/New_York", "*/30 1-3 * * *", "2026-11-01T05:00Z", ["2026-11-01T01:30-04:00", "2026-11-01T02:00-05:00"]),
        # 4 October 2026: 02:00 becomes 02:30. 5 April: 02:00 becomes 01:30.
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T13:00Z", ["2026-10-04T02:45+11:00", "2026-10-05T02:15+11:00"]),
        ("Australia/Lord_Howe", "*/20 * * * *", "2026-10-03T15:05Z",
            ["2026-10-04T01:40+10:30", *(f"2026-10-04T{time}+11:00" for time in ("02:30", "02:40", "02:50", "03:00"))]),
        ("Australia/Lord_Howe", "21 * * * *", "2026-10-03T15:00Z", ["2026-10-04T02:51+11:00", "2026-10-04T03:21+11:00"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T13:00Z", ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]),
        # There was no 30 December 2011.
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T15:00Z", ["2011-12-29T12:00-10:00", "2011-12-31T12:00+14:00"]),
        ("Pacific/Apia", "0 12 30 12 *", "2011-12-29T15:00Z", ["2011-12-31T12:00+14:00", "2012-12-30T12:00+14:00"]),
        ("Pacific/Apia", "0 * 30 12 *", "2011-12-29T15:00Z", ["2011-12-31T00:00+14:00", "2011-12-31T01:00+14:00"]),
        # 15 February 2026, Ramadan: 03:00 becomes 02:00. 22 March: 02:00 becomes 03:00.
        ("Africa/Casablanca", "30 2 * * *", "2026-02-14T12:00Z", ["2026-02-15T02:30+01:00", "2026-02-16T02:30+00:00"]),
        ("Africa/Casablanca", "30 2 * * *", "2026-03-21T12:00Z", ["2026-03-22T03:30+01:00", "2026-03-23T02:30+01:00"]),
        # 21 October 2012: midnight became 01:00.
        ("America/Sao_Paulo", "0 0 * * *", "2012-10-20T12:00Z", ["2012-10-21T01:00-02:00", "2012-10-22T00:00-02:00"]),
    ],
)  # fmt: skip
def test_the_examples_of_the_page_are_true(zone, line, after, due):
    times = crontab.from_string(line, tz=zone).upcoming(datetime.fromisoformat(after), len(due))
    assert [at.isoformat(timespec="minutes") for at in times] == due
