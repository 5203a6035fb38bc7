"""What holds of every schedule, and what each kind says."""

import json
import pickle
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.beat.expressions import FIELDS, ZONES, crontab_fields, matches

from umbel import Celery
from umbel.cron import Pattern, in_words
from umbel.schedules import BaseSchedule, ParseException, clocked, crontab, every, from_dict, maybe_schedule, schedstate, schedule, solar

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 5, 13, 12, tzinfo=UTC)
SOME = settings(max_examples=200, deadline=None, derandomize=True, database=None)

moments = st.datetimes(datetime(1971, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from(ZONES)
distances = st.timedeltas(timedelta(milliseconds=1), timedelta(days=40))


@st.composite
def crontabs(draw):
    return crontab(**crontab_fields(random.Random(draw(st.integers(0, 2**32)))), tz=draw(zones))


@st.composite
def zoned(draw, of):
    """A schedule whose app is in some zone."""
    made = draw(of)
    made.tz = ZoneInfo(draw(zones))
    return made


grids = st.builds(every, distances, start=st.none() | moments)
intervals = st.builds(schedule, distances, st.booleans())
schedules = crontabs() | zoned(grids) | zoned(intervals) | zoned(st.builds(clocked, moments))


@SOME
@given(schedules, moments)
def test_the_next_time_is_after_the_moment_and_in_the_zone(each, moment):
    found = each.next_after(moment)
    assert found is None or (found.astimezone(UTC) > moment and found.tzinfo == each.tz)


@SOME
@given(crontabs() | zoned(grids), moments, st.floats(0, 1))
def test_nothing_is_between_a_moment_and_the_next_time(each, moment, share):
    found = each.next_after(moment)
    between = moment + (found.astimezone(UTC) - moment) * share * 0.999
    assert each.next_after(between) == found


@SOME
@given(schedules, moments, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_a_later_moment_has_no_earlier_next_time(each, moment, later):
    first, second = each.next_after(moment), each.next_after(moment + later)
    assert second is None or first.astimezone(UTC) <= second.astimezone(UTC)


@SOME
@given(crontabs(), moments)
def test_a_crontab_is_due_at_times_that_match_or_were_skipped(each, moment):
    found = each.next_after(moment)
    skipped = {found.replace(tzinfo=None) - timedelta(minutes=size) for size in (30, 60, 1440)}
    assert matches(each, found) or any(matches(each, wall) and wall != there_and_back(wall, each.tz) for wall in skipped)


def there_and_back(wall, zone):
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None)


@SOME
@given(schedules, moments)
def test_the_next_times_are_those_that_asking_again_gives(each, moment):
    times = each.upcoming(moment, 4)
    assert each.upcoming(moment, 2) == times[:2]
    for before, after in pairwise(times):
        assert each.next_after(before) == after


@SOME
@given(schedules, moments)
def test_the_zone_in_which_the_moment_is_told_changes_nothing(each, moment):
    told = [moment.astimezone(ZoneInfo("Asia/Kolkata")), moment.replace(tzinfo=None), moment.astimezone(timezone(timedelta(hours=-3)))]
    assert {each.next_after(other) for other in told} == {each.next_after(moment)}


@SOME
@given(crontabs() | grids | intervals | st.builds(clocked, moments))
def test_json_and_pickles_give_an_equal_schedule_back(each):
    document = json.loads(json.dumps(each.to_dict()))
    for again in (from_dict(document), pickle.loads(pickle.dumps(each))):
        assert type(again) is type(each)
        assert again == each
        assert again.to_dict() == each.to_dict()
        assert again.describe() == each.describe()


NAMED = st.sampled_from([*FIELDS, "kind", "tz", "run_every", "relative", "start", "at", "event", "lat", "lon"])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["*/5", "sunset", "UTC", "2026-01-01T00:00Z"])
)
KINDS = st.sampled_from(["clocked", "crontab", "every", "schedule", "solar"])


@SOME
@given(KINDS | VALUES, st.dictionaries(NAMED, VALUES | st.lists(VALUES, max_size=3) | st.just({}), max_size=4))
def test_json_that_is_no_schedule_is_a_value_error(kind, said):
    try:
        made = from_dict({**said, "kind": kind})
    except (ValueError, ParseException):
        return
    assert isinstance(made.next_after(NOON), datetime | None)


@SOME
@given(crontabs(), crontabs())
def test_other_times_are_told_with_other_words(one, other):
    same = all(getattr(one, field) == getattr(other, field) for field in FIELDS)
    assert (told(one) == told(other)) == same


def told(each):
    return in_words(
        Pattern(*(tuple(sorted(getattr(each, field))) for field in ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")))
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("*/5 9-17 * * mon-fri", "every 5 minutes from 09:00 to 17:59, Monday to Friday"),
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("5 * * * *", "at minute 5 of every hour"),
        ("0,30 8,9,17 * * *", "at 08:00, 08:30, 09:00, 09:30, 17:00 and 17:30 every day"),
        ("0 4 * * *", "at 04:00 every day"),
        ("0 */2 * * *", "every 2 hours from 00:00 to 22:00"),
        ("30 9-17 * * 1-5", "every hour from 09:30 to 17:30, Monday to Friday"),
        ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("0 9 1,15 * *", "at 09:00, on days 1 and 15 of the month"),
        ("0 0 13 * fri", "at 00:00, on day 13 of the month if it is Friday"),
        ("0 0 * 12 mon,sat,sun", "at 00:00, on Monday, Saturday and Sunday, in December"),
        ("0 12 */2 jun-aug *", "at 12:00, on every 2nd day of the month from day 1 in June to August"),
        ("1-30 3 * * *", "at minutes 1 to 30 of every hour from 03:00 to 03:59"),
        ("*/20 0,4,5 * * *", "at 00:00, 00:20, 00:40, 04:00, 04:20, 04:40, 05:00, 05:20 and 05:40 every day"),
        ("* 0,4,5,6 * * *", "every minute in the hours 0 and 4 to 6"),
    ],
)
def test_a_crontab_is_told_in_english(line, words):
    assert crontab.from_string(line).describe() == words
    assert crontab.from_string(line, tz="Europe/Berlin").describe() == f"{words} (Europe/Berlin)"


def test_the_others_are_told_in_english():
    assert schedule(90).describe() == "every 1 minute 30 seconds"
    assert schedule(3600, relative=True).describe() == "every hour, at the beginning of a full hour"
    assert every(minutes=5).describe() == "every 5 minutes"
    assert every(1.5, start=NOON).describe() == "every 1.5 seconds from 2026-05-13 12:00:00+00:00"
    assert clocked(NOON).describe() == "once, at 2026-05-13 12:00:00+00:00"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (every, "every() needs a distance above zero"),
        (lambda: every(seconds=-1), "every() needs a distance above zero"),
        (lambda: every(minutes=1, start=datetime(2026, 1, 1)), "without a zone"),
        (lambda: clocked(datetime(2026, 1, 1)), "without a zone"),
        (lambda: crontab(day_of_week=7), "Allowed: 0-6"),
        (lambda: crontab(day_of_week="7"), "Sunday is 0"),
        (lambda: crontab(minute="5/15"), "as in 5-59/15"),
        (lambda: crontab(minute=[]), "would never match"),
        (lambda: crontab(day_of_month=31, month_of_year="feb,apr"), "would never run"),
        (lambda: crontab(tz="Europe/Berlim"), "no such time zone"),
        (lambda: crontab.from_string("* * * *"), "has 4 fields. Write five: minute, hour, day of month, month, day of week"),
        (lambda: from_dict({"kind": "moon"}), "Known: clocked, crontab, every, schedule, solar"),
        (lambda: from_dict({"kind": "crontab", "second": 5}), "is no crontab"),
        (lambda: from_dict({"kind": "crontab", "nowfun": "x"}), "cannot have nowfun"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(make, said):
    with pytest.raises(ValueError) as caught:
        make()
    assert said in str(caught.value)


class Tides(BaseSchedule):
    """As a class written for Celery: it looks at the clock."""

    def remaining_estimate(self, last_run_at):
        return self.maybe_make_aware(last_run_at) + timedelta(hours=12) - self.now()

    def is_due(self, last_run_at):
        left = self.remaining_estimate(last_run_at).total_seconds()
        return schedstate(left <= 0, max(left, 0))


class ZonedCrontab(crontab):
    """As that of django-celery-beat: the zone is set before the rest, and is_due is overridden."""

    def __init__(self, minute="*", hour="*", tz=None, app=None):
        self.tz = tz
        super().__init__(minute=minute, hour=hour, nowfun=self.in_zone, app=app)

    def in_zone(self):
        return NOON.astimezone(self.tz)

    def is_due(self, last_run_at):
        left = self.remaining_estimate(last_run_at.astimezone(self.tz)).total_seconds()
        return schedstate(left <= 0, max(left, 0))

    def __reduce__(self):
        return type(self), (self._orig_minute, self._orig_hour, self.tz), None


class Pure(crontab):
    def next_after(self, moment):
        return super().next_after(moment)

    def is_due(self, last_run_at):
        return super().is_due(last_run_at)


def test_a_schedule_written_for_celery_decides_by_its_own_methods():
    tides = Tides(nowfun=lambda: NOON)
    assert tides.is_custom()
    assert tides.is_due(NOON - timedelta(hours=13)) == (True, 0)
    assert tides.next_after(NOON - timedelta(hours=2)) == NOON + timedelta(hours=10)
    assert not any(each.is_custom() for each in (crontab(), schedule(1), every(1), clocked(NOON), Pure()))


def test_a_subclass_of_crontab_that_sets_its_zone_first_keeps_it():
    here = ZonedCrontab(0, 14, tz=BERLIN)
    assert here.is_custom()
    assert here.is_due(NOON - timedelta(days=1)) == (True, 0)
    assert here.is_due(NOON) == (False, 86400)
    assert pickle.loads(pickle.dumps(here)).tz == BERLIN
    assert here.next_after(NOON).isoformat() == "2026-05-14T14:00:00+02:00"


def test_what_json_would_leave_out_is_not_written():
    for each in (ZonedCrontab(tz=BERLIN), Tides(), crontab(nowfun=datetime.now), crontab(tz=timezone(timedelta(hours=1)))):
        with pytest.raises(TypeError):
            each.to_dict()
    relative = schedule(3600, relative=True)
    relative.tz = BERLIN
    with pytest.raises(TypeError, match="zone of its own, Europe/Berlin"):
        relative.to_dict()
    assert pickle.loads(pickle.dumps(relative)).tz == BERLIN


def test_many_crontabs_share_what_is_large():
    one, other = crontab.from_string("*/5 9-17 * * mon-fri"), crontab.from_string("*/5 9-17 * * mon-fri", tz="Europe/Berlin")
    assert all(getattr(one, field) is getattr(other, field) for field in FIELDS)
    assert one.next_after(NOON) != other.next_after(NOON + timedelta(minutes=5))
    other.minute = {7}
    assert other.next_after(NOON).minute == 7
    assert one.next_after(NOON).minute == 5


def test_the_zone_of_the_app_is_that_of_a_schedule_without_its_own():
    app = Celery("zoned", set_as_current=False)
    app.conf.timezone = "Asia/Tokyo"
    each = maybe_schedule(crontab(0, 9), app=app)
    assert each.next_after(NOON).isoformat() == "2026-05-14T09:00:00+09:00"
    app.conf.timezone = "Europe/Berlin"
    assert each.next_after(NOON).isoformat() == "2026-05-14T09:00:00+02:00"
    assert crontab(0, 9, tz="UTC", app=app).next_after(NOON).isoformat() == "2026-05-14T09:00:00+00:00"


def test_a_rare_day_is_found_in_few_steps():
    looked = []

    class Counting(Pattern):
        def _days_of(self, year, month):
            looked.append((year, month))
            return super()._days_of(year, month)

    pattern = Counting((0,), (0,), (1,), (29,), (2,))
    assert pattern.at_or_after(datetime(2073, 1, 1)) == datetime(2112, 2, 29)
    assert len(looked) <= 40


def test_there_is_no_time_after_the_last_year():
    for each in (crontab(0, 0, tz="UTC"), every(days=1), schedule(86400), clocked(NOON)):
        assert each.next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert crontab(tz="Pacific/Apia").next_after(datetime.min.replace(tzinfo=UTC)) is not None
    assert len(clocked(NOON).upcoming(datetime.min, 5)) == 1


def test_the_grid_of_every_is_the_same_for_all_who_ask():
    assert [at.isoformat() for at in every(hours=6).upcoming(NOON + timedelta(minutes=7), 2)] == [
        "2026-05-13T18:00:00+00:00", "2026-05-14T00:00:00+00:00",
    ]  # fmt: skip
    late = every(minutes=10, start=NOON + timedelta(minutes=3))
    assert late.next_after(NOON - timedelta(days=1)) == NOON + timedelta(minutes=3)
    assert late.next_after(NOON + timedelta(minutes=3)) == NOON + timedelta(minutes=13)


@pytest.mark.parametrize(
    ("run_every", "last", "due"),
    [
        (86400, "2026-05-13T10:00", "2026-05-14T00:00+02:00"),
        (86400, "2026-10-24T23:30", "2026-10-25T00:00+02:00"),  # the day after has 25 hours
        (86400, "2026-10-25T00:00", "2026-10-26T00:00+01:00"),
        (3600, "2026-10-25T02:20", "2026-10-25T02:00+01:00"),  # the second 02:00
        (3600, "2026-05-13T10:00", "2026-05-13T11:00+02:00"),
        (90, "2026-05-13T10:00:20", "2026-05-13T10:01+02:00"),
    ],
)
def test_a_relative_schedule_is_due_when_a_unit_begins_on_the_clock(run_every, last, due):
    each = schedule(run_every, relative=True)
    each.tz = BERLIN
    assert each.next_after(datetime.fromisoformat(last).replace(tzinfo=BERLIN)).isoformat(timespec="minutes") == due


def test_a_one_off_is_due_once():
    each = clocked(NOON, nowfun=lambda: NOON + timedelta(seconds=1))
    assert each.is_due(NOON - timedelta(days=1)) == (True, None)
    assert each.is_due(NOON) == (False, None)


def test_the_sun_sets_once_a_day_and_not_where_it_does_not():
    pytest.importorskip("ephem")
    paris = solar("sunset", 48.85, 2.35)
    times = paris.upcoming(NOON, 400)
    assert {round((after - before) / timedelta(hours=24), 2) for before, after in pairwise(times)} <= {0.99, 1.0, 1.01}
    assert paris.next_after(times[0] - timedelta(seconds=1)) == times[0]
    assert paris.next_after(times[0]) == times[1]
    assert solar("sunset", 70, 20).next_after(NOON + timedelta(days=30)).isoformat() == "2026-07-27T22:19:01+00:00"
    assert solar("dusk_astronomical", 48.85, -2.5).describe() == "at astronomical dusk at 48.85° N 2.5° W"
    assert from_dict(paris.to_dict()) == paris == pickle.loads(pickle.dumps(paris))


@pytest.mark.parametrize("lat", [0, 48.6, 60, 66.5, 69])
@pytest.mark.parametrize("lon", [-179.9, -74, 0, 120, 180])
def test_the_sun_gives_the_same_second_to_all_who_ask(lat, lon):
    pytest.importorskip("ephem")
    for event in ("sunrise", "dusk_astronomical", "solar_noon"):
        each, chance = solar(event, lat, lon), random.Random(event)
        for at in each.upcoming(NOON, 60):
            assert each.next_after(at - timedelta(seconds=chance.randint(1, 3600))) == at


def test_without_ephem_the_sun_says_what_to_install():
    program = "import sys; sys.modules['ephem'] = None; from umbel.schedules import solar, crontab; crontab(); solar('sunset', 1, 2)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert "ImproperlyConfigured: solar() needs the package ephem. Install it with: pip install 'umbel[solar]'" in done.stderr


def test_an_interval_is_due_at_the_very_microsecond_at_which_it_ends():
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    when = schedule(10, nowfun=lambda: moment + timedelta(seconds=10))
    assert when.remaining_estimate(moment) == timedelta()
    assert when.is_due(moment) == (True, 10)
