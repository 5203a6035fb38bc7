"""What is due of an entry, and when the next is."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.beat.entry import Entry, entry_of
from umbel.beat.planning import begin, fire_time, plan, slot_id, slot_of
from umbel.exceptions import ImproperlyConfigured
from umbel.schedules import BaseSchedule, crontab, every, schedstate, schedule

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp()


def entry(when=60, **said) -> Entry:
    return entry_of("report", {"task": "reports.make", "schedule": when, **said})


def test_a_new_entry_is_not_due_at_once():
    assert plan(entry(60), begin(entry(60), NOON), 0, NOON) == ([], NOON, NOON + 60)


def test_an_entry_that_says_when_it_ran_last_goes_on_from_there():
    old = entry(60, last_run_at=NOON - 90)
    assert plan(old, begin(old, NOON), 0, NOON).slots == [NOON - 30]


def test_an_interval_does_not_drift_though_it_is_looked_at_late():
    planned = plan(entry(60), NOON, 0, NOON + 60.7)
    assert planned == ([NOON + 60], NOON + 60, NOON + 120)


def test_once_runs_one_time_for_all_that_were_missed_and_bears_the_name_of_the_first():
    planned = plan(entry(60), NOON, 0, NOON + 630)
    assert planned == ([NOON + 60], NOON + 600, NOON + 660)
    assert plan(entry(crontab()), NOON, 0, NOON + 630) == ([NOON + 60], NOON + 630, NOON + 660)


def test_once_with_a_grace_runs_only_if_one_of_the_missed_is_young_enough():
    hourly = entry(crontab(minute=0), grace=600)
    assert plan(hourly, NOON - 5 * 3600, 0, NOON + 300).slots == [NOON - 4 * 3600]
    assert plan(hourly, NOON - 5 * 3600, 0, NOON + 1200).slots == []
    assert plan(hourly, NOON - 5 * 3600, 0, NOON + 1200).looks_at == NOON + 3600


def test_skip_leaves_out_what_is_older_than_the_grace():
    planned = plan(entry(60, misfire="skip", grace=130), NOON, 0, NOON + 630)
    assert planned == ([NOON + 540, NOON + 600], NOON + 600, NOON + 660)
    assert plan(entry(crontab(), misfire="skip"), NOON, 0, NOON + 630).slots == [NOON + 600]


def test_all_runs_each_that_was_missed_in_bounded_steps():
    planned = plan(entry(1, misfire="all"), NOON, 0, NOON + 2500)
    assert planned.slots == [NOON + second for second in range(1, 1001)]
    assert planned.looks_at == NOON + 1001
    again = plan(entry(1, misfire="all"), planned.handled, 1000, NOON + 2500)
    assert again.slots[0] == NOON + 1001


def test_an_entry_that_must_not_run_beside_itself_is_planned_one_run_at_a_time():
    assert plan(entry(1, misfire="all", overlap="queue"), NOON, 0, NOON + 10).slots == [NOON + 1]


def test_it_is_over_after_its_last_run_its_end_or_its_most_runs():
    assert plan(entry(60, one_off=True), NOON, 0, NOON + 60).slots == [NOON + 60]
    assert plan(entry(60, one_off=True), NOON + 60, 1, NOON + 600) == ([], NOON + 60, None)
    assert plan(entry(60, ends=NOON + 90), NOON, 0, NOON + 500).slots == [NOON + 60]
    assert plan(entry(60, ends=NOON + 90), NOON + 60, 1, NOON + 500) == ([], NOON + 60, None)
    assert plan(entry(1, misfire="all", max_runs=3), NOON, 1, NOON + 60).slots == [NOON + 1, NOON + 2]


def test_its_first_moment_is_when_it_starts():
    starts = datetime.fromtimestamp(NOON + 7200, UTC)
    assert plan(entry(60, starts=starts), NOON, 0, NOON) == ([], NOON, NOON + 7200)
    assert plan(entry(crontab(minute=0), starts=starts), NOON, 0, NOON) == ([], NOON, NOON + 7200)
    assert plan(entry(60, starts=starts), NOON + 7200, 1, NOON + 7200).looks_at == NOON + 7260


def test_what_was_missed_while_it_was_off_is_not_made_up_for():
    assert plan(entry(60, enabled=False), NOON, 0, NOON + 600) == ([], NOON, None)
    assert plan(entry(60, since=NOON + 600), NOON, 0, NOON + 600) == ([], NOON + 600, NOON + 660)


def test_jitter_is_the_same_for_a_slot_and_another_for_the_next():
    late = entry(crontab(), jitter=30)
    times = [fire_time(late, NOON + 60 * n) - (NOON + 60 * n) for n in range(200)]
    assert all(0 <= each <= 30 for each in times)
    assert len(set(times)) == 200
    assert max(times) - min(times) > 20
    first = fire_time(late, NOON + 60)
    assert plan(late, NOON, 0, first - 0.001) == ([], NOON, first)
    assert plan(late, NOON, 0, first).slots == [NOON + 60]


@given(
    st.sampled_from([schedule(1), schedule(7), crontab(), crontab(minute="*/7"), every(seconds=11)]),
    st.sampled_from(["once", "skip", "all"]), st.sampled_from([0, 3, 40]),
    st.lists(st.floats(0.1, 200), min_size=1, max_size=30),
)  # fmt: skip
def test_no_slot_runs_twice_and_none_before_its_time_however_it_is_looked_at(when, misfire, jitter, pauses):
    periodic = entry(when, misfire=misfire, jitter=jitter)
    handled, now, runs, seen = NOON, NOON, 0, []
    for pause in pauses:
        now += pause
        planned = plan(periodic, handled, runs, now)
        assert planned.handled >= handled
        assert planned.looks_at is None or planned.looks_at > handled
        assert all(fire_time(periodic, slot) <= now for slot in planned.slots)
        seen += planned.slots
        handled, runs = planned.handled, runs + len(planned.slots)
    assert seen == sorted(set(seen))
    if misfire == "all":
        every_slot = [slot for slot in slots_between(when, NOON, now) if slot <= handled]
        assert seen == every_slot


def slots_between(when, start, end) -> list[float]:
    found = []
    while (slot := when.next_after(datetime.fromtimestamp(found[-1] if found else start, UTC)).timestamp()) <= end:
        found.append(slot)
    return found


def test_two_who_look_at_different_times_name_the_run_alike():
    for misfire in ("once", "all"):
        first, second = (plan(entry(crontab(), misfire=misfire), NOON, 0, NOON + seconds) for seconds in (65, 400))
        assert first.slots[0] == second.slots[0]


def test_a_run_is_named_by_its_entry_and_its_moment():
    assert slot_id("report", datetime(2026, 3, 29, 2, 30, tzinfo=UTC).timestamp()) == "report@2026-03-29T02:30:00Z"
    assert slot_of("an@odd@2026-03-29T02:30:00.250000Z") == datetime(2026, 3, 29, 2, 30, 0, 250_000, tzinfo=UTC).timestamp()


class OwnSchedule(BaseSchedule):
    """As users of Celery write them."""

    def is_due(self, last_run_at):
        passed = NOON + 100 - last_run_at.timestamp()
        return schedstate(passed >= 30, 30.0)

    def remaining_estimate(self, last_run_at):
        return timedelta(seconds=30)


def test_a_schedule_that_overrides_is_due_is_asked():
    assert plan(entry(OwnSchedule()), NOON, 0, NOON + 100) == ([NOON], NOON + 100, NOON + 130)
    assert plan(entry(OwnSchedule()), NOON + 80, 0, NOON + 100) == ([], NOON + 80, NOON + 130)


@pytest.mark.parametrize("name", ["", "a" * 1000, "a\nb"])
def test_a_name_is_a_text_that_leaves_room_for_the_moment_of_a_run(name):
    with pytest.raises(ImproperlyConfigured, match="no name of a periodic task"):
        entry_of(name, {"task": "a", "schedule": 5})


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        ({"schedule": 5}, ImproperlyConfigured, "has no 'task'"),
        ({"task": "a"}, ImproperlyConfigured, "has no 'schedule'"),
        ({"task": "a", "schedule": 5, "crontab": 1}, TypeError, "says crontab"),
        ({"task": "a", "schedule": 5, "misfire": "twice"}, ImproperlyConfigured, "misfire='twice'"),
        ({"task": "a", "schedule": 5, "overlap": "never"}, ImproperlyConfigured, "overlap='never'"),
        ({"task": "a", "schedule": 0}, ImproperlyConfigured, "every 0"),
    ],
)
def test_what_an_entry_cannot_say_is_refused_with_its_name(said, error, text):
    with pytest.raises(error, match=text) as raised:
        entry_of("report", said)
    assert "report" in str(raised.value)
