"""What is counted, as it is written and as it is read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import states
from umbel.broker import Delivery, Tally
from umbel.execution.outcome import Action, Outcome
from umbel.execution.verdict import Request, admit
from umbel.tally import LOST, Row, rows_of, tally_of, upper_bound
from umbel.task import Task
from umbel.wire.message import Message, encode
from umbel.worker.counting import Counting

times = st.none() | st.floats()
ends = st.sampled_from([*sorted(states.ALL_STATES), states.IGNORED, states.REJECTED, LOST])
names = st.text(st.characters(exclude_categories=("C", "Zl", "Zp", "Zs"), include_characters=" "), min_size=1)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (None, "-"), (-5.0, "0"), (0, "0"), (0.000999, "0"), (0.001, "1"), (0.0019, "1"), (0.002, "2"), (0.0039, "2"), (0.004, "3"),
        (1, "10"), (60, "16"), (86400, "27"), (1e7, "31"), (math.inf, "31"), (-math.inf, "0"),
    ],
)  # fmt: skip
def test_a_time_falls_into_the_bucket_of_its_bits(seconds, bucket):
    assert tally_of("app.add", "SUCCESS", seconds, seconds) == f"SUCCESS {bucket} {bucket} app.add"


@given(names, ends, times, times)
def test_whatever_the_numbers_are_a_tally_is_read_as_it_was_written(task, end, waited, ran):
    (row,) = rows_of({"q": [Tally(0, tally_of(task, end, waited, ran), 3)]})
    assert (row.queue, row.task, row.ends, row.total) == ("q", task, {end: 3}, 3)
    assert (row.waits.total(), row.runs.total()) == (0 if waited is None else 3, 0 if ran is None else 3)


@given(st.floats(0, 2e6))
def test_no_time_is_above_the_bound_of_its_bucket_and_none_far_below(seconds):
    (row,) = rows_of({"q": [Tally(0, tally_of("t", "SUCCESS", seconds, 0.0), 1)]})
    assert seconds <= row.wait(0.5) <= max(0.001, 2 * seconds + 0.001)


def test_rows_add_up_minutes_and_keep_queues_and_tasks_apart():
    tallies = [Tally(0, "SUCCESS 1 0 a", 5), Tally(60, "SUCCESS 1 0 a", 2), Tally(60, "FAILURE 3 - a", 1), Tally(60, "LOST - - b c", 4)]
    found = rows_of({"two": tallies, "one": tallies[:1]})
    assert [(row.queue, row.task, dict(row.ends)) for row in found] == [
        ("one", "a", {"SUCCESS": 5}), ("two", "a", {"SUCCESS": 7, "FAILURE": 1}), ("two", "b c", {"LOST": 4}),
    ]  # fmt: skip


def test_percentiles_are_upper_bounds_of_what_is_known():
    row = Row("q", "t")
    assert (row.wait(0.5), row.run(0.95)) == (None, None)
    row.waits.update({0: 50, 4: 45, 10: 5})
    assert [row.wait(share) for share in (0.5, 0.51, 0.95, 0.96, 1.0)] == [0.001, 0.016, 0.016, upper_bound(10), 1.024]


@pytest.mark.parametrize("tally", ["", "SUCCESS", "SUCCESS 1 2", "SUCCESS x 2 t", "SUCCESS 1 99 t", "SUCCESS -1 2 t", "of others"])
def test_what_is_written_otherwise_is_passed_over(tally):
    assert rows_of({"q": [Tally(0, tally, 1)]}) == []


class Add(Task):
    name = "app.add"


def request(**headers) -> Request:
    raw = encode(Message(headers={"task": Add.name, "id": "a", **headers}, body=b"[[], {}, {}]"))
    found = admit(Delivery(queue="q", tag="1", owner="w", raw=raw, fence=1), {Add.name: Add()}, 1000.0)
    assert isinstance(found, Request)
    return found


def outcome(state=states.SUCCESS, *, action=Action.ACK, runtime=0.0, kind="") -> Outcome:
    return Outcome(1, action, state, runtime, kind=kind)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, "-"),
        ({"umbel_sent": 100}, "12"),  # from 100 to 103 s
        ({"umbel_sent": 102.999}, "1"),
        ({"umbel_sent": 102.999, "eta": ""}, "1"),
        ({"umbel_sent": 500.0}, "0"),  # its clock is ahead
        ({"umbel_sent": 100.0, "eta": "1970-01-01T00:01:42.9965+00:00"}, "2"),  # it could not start before 102.9965
        ({"umbel_sent": 100.0, "eta": "1970-01-01T00:00:00+00:00"}, "12"),
        ({"eta": "1970-01-01T00:00:00+00:00"}, "-"),
    ],
)
def test_a_task_waits_from_when_it_was_sent_or_could_start_to_its_start(headers, wait):
    assert Counting(on=True).ended(request(**headers), outcome(runtime=0.5), 103.5) == f"SUCCESS {wait} 9 app.add"


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (outcome(states.FAILURE), "FAILURE"),
        (outcome(states.FAILURE, action=Action.BURY, kind="failed"), "FAILURE"),
        (outcome(states.FAILURE, action=Action.BURY, kind="rejected"), "REJECTED"),
        (outcome("", action=Action.REQUEUE), "REJECTED"),
        (outcome(states.RETRY, action=Action.RETRY), "RETRY"),
        (outcome(states.IGNORED), "IGNORED"),
        (outcome("", action=Action.BURY, kind="unreadable"), "FAILURE"),
    ],
)
def test_every_outcome_is_an_end(given, end):
    assert Counting(on=True).ended(request(), given, 1.0) == f"{end} - 0 app.add"


def test_a_start_is_counted_with_its_wait_and_other_ends_without():
    counting = Counting(on=True)
    assert counting.began(request(umbel_sent=100.0), 101.0) == "STARTED 10 - app.add"
    assert counting.began(request(), 101.0) == "STARTED - - app.add"
    assert counting.of("app.add", LOST) == "LOST - - app.add"
    assert counting.of("", LOST) == ""


def test_who_does_not_want_counters_counts_nothing():
    counting, asked = Counting(on=False), request(umbel_sent=1.0)
    assert [counting.ended(asked, outcome(), 2.0), counting.began(asked, 2.0), counting.of("app.add", LOST)] == ["", "", ""]
