"""When a limited task starts, and what becomes of what must wait."""

import heapq
from itertools import pairwise

import pytest
from msgspec.structs import replace
from tests.unit.test_inflight import Slots

from umbel.broker import Delivery, Verb
from umbel.exceptions import ImproperlyConfigured
from umbel.execution.verdict import Request
from umbel.task import Task
from umbel.wire.marks import turn_of, with_turn
from umbel.wire.message import Message, encode, glance
from umbel.worker.inflight import Inflight
from umbel.worker.rate_limits import AHEAD, HORIZON, RateLimits, interval_of


class Limited(Task):
    name = "limited"
    rate_limit = "10/s"


class Free(Task):
    name = "free"
    rate_limit = None


def request(number: int, task: Task | None = None, raw: bytes | None = None) -> Request:
    task = task or TASK
    raw = raw or encode(Message(headers={"task": task.name, "id": str(number)}, properties={}, body=b"[[], {}, {}]"))
    return Request(Delivery(queue="q", tag=str(number), owner="w", raw=raw, fence=1), glance(raw), task)


TASK = Limited()


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [("10/s", 0.1), ("100/m", 0.6), ("5/h", 720), ("0.5/s", 2), ("4", 0.25), (" 2/s", 0.5), (20, 0.05), (0.5, 2), (None, None), (0, None),
     ("0/m", None), ("0", None)],
)  # fmt: skip
def test_a_rate_is_the_time_between_two_starts(rate, seconds):
    assert interval_of(rate) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("rate", ["often", "10/d", "-1/s", -1, "nan", "1/s/s", "/s", "inf"])
def test_what_is_no_rate_is_an_error(rate):
    with pytest.raises(ValueError, match="is not a rate limit"):
        interval_of(rate)


def test_a_wrong_rate_is_found_when_the_worker_starts():
    class Wrong(Task):
        name = "wrong"
        rate_limit = "10/d"

    with pytest.raises(ImproperlyConfigured, match=r"rate_limit of wrong: '10/d' is not a rate limit\. Write '10/s'"):
        RateLimits({"wrong": Wrong()})


def test_only_tasks_with_a_limit_are_covered_and_none_if_limits_are_disabled():
    limits = RateLimits({"limited": TASK})
    assert limits.covers(request(1))
    assert not limits.covers(request(1, Free()))
    assert not RateLimits({"limited": TASK}, disabled=True).covers(request(1))


def test_a_token_is_taken_at_the_start_and_never_saved_up():
    limits = RateLimits({"limited": TASK})
    for number in range(5):
        assert limits.hold(request(number), None, 100.0) is None
    assert len(limits.take(100.0, free=9)) == 1
    assert limits.take(100.09, free=9) == []
    assert limits.next_at() == pytest.approx(100.1)
    assert len(limits.take(105.0, free=9)) == 1, "five seconds without a start are worth one token"
    assert limits.take(105.05, free=9) == []


def test_no_token_is_taken_while_no_slot_is_free():
    limits = RateLimits({"limited": TASK})
    limits.hold(request(1), None, 100.0)
    assert limits.take(100.0, free=0) == []
    assert len(limits.take(100.5, free=1)) == 1


def test_what_waits_longer_than_the_horizon_is_put_off_with_a_turn_of_its_own():
    limits = RateLimits({"limited": TASK})
    waits = [limits.hold(request(number), None, 100.0) for number in range(7000)]
    here = [number for number, later in enumerate(waits) if later is None]
    assert here == list(range(11))
    later = waits[11:]
    assert [each.turn for each in later] == pytest.approx([101.1 + n / 10 for n in range(len(later))])
    assert later[100].seconds == pytest.approx(later[100].turn - 100.0), "it comes back when it may start"
    assert AHEAD < later[-1].seconds < 3 * AHEAD, "it asks again before"
    asks = [each.seconds for each in later]
    assert asks == sorted(asks)


def test_who_comes_new_waits_behind_those_who_have_a_turn():
    limits = RateLimits({"limited": TASK})
    for number in range(20):
        limits.hold(request(number), None, 100.0)
    limits.take(100.0, free=1)
    limits.take(100.1, free=1)
    late = limits.hold(request(21), None, 100.1)
    assert late is not None
    assert late.turn == pytest.approx(102.0)
    assert limits.hold(request(12), 101.1, 100.2) is None


def test_a_turn_that_another_worker_gave_is_kept_unless_there_is_an_earlier_one_here():
    limits = RateLimits({"limited": TASK})
    for number in range(20):
        limits.hold(request(number), None, 100.0)
    assert limits.hold(request(21), 101.5, 100.0).turn == 101.5
    assert limits.hold(request(22), 700.0, 100.0).turn == pytest.approx(102.0)
    idle = RateLimits({"limited": TASK})
    assert idle.hold(request(23), 700.0, 100.0) is None


def test_a_message_that_is_put_off_carries_its_turn_to_whoever_gets_it_next():
    limits = RateLimits({"limited": TASK})
    put_off = [limits.admit(request(number), 100.0, 1_800_000_000.0) for number in range(12)]
    assert put_off[:11] == [None] * 11
    last = put_off[11]
    assert (last.verb, last.due) == (Verb.DELAY, pytest.approx(1_800_000_001.1))
    assert turn_of(last.raw) == pytest.approx(1_800_000_001.1)
    other = RateLimits({"limited": TASK})
    assert other.admit(request(11, raw=last.raw), 50.0, last.due) is None


def test_a_turn_that_passed_while_there_was_no_room_is_given_anew():
    limits = RateLimits({"limited": TASK})
    for number in range(20):
        limits.hold(request(number), None, 100.0)
    assert limits.hold(request(21), 99.0, 100.0).turn == pytest.approx(102.0)


def test_a_limit_that_is_taken_away_lets_all_go():
    task = Limited()
    limits = RateLimits({"limited": task})
    for number in range(10):
        limits.hold(request(number, task), None, 100.0)
    task.rate_limit = None
    assert limits.hold(request(11, task), None, 100.0) is None
    limits.take(100.0, free=1)
    assert len(limits.take(100.2, free=99)) == 10
    assert not len(limits)


def test_who_waits_is_forgotten_and_the_token_is_not():
    limits = RateLimits({"limited": TASK})
    limits.hold(request(1), None, 100.0)
    limits.hold(request(2), None, 100.0)
    limits.take(100.0, free=1)
    assert [r.glance.id for r in limits.clear()] == ["2"]
    assert limits.next_at() is None
    limits.hold(request(3), None, 100.0)
    assert limits.take(100.05, free=1) == []


def test_who_has_a_token_but_no_slot_is_given_to_others():
    limits = RateLimits({"limited": TASK})
    for number in range(3):
        limits.hold(request(number), None, 100.0)
    limits.take(100.0, free=1)
    assert limits.stuck(101.0) == []
    assert [each.glance.id for each in limits.stuck(101.2)] == ["1", "2"]
    assert not len(limits)


def test_a_turn_is_written_into_a_message():
    raw = request(1).delivery.raw
    assert turn_of(raw) is None
    marked = with_turn(raw, 1_800_000_000.25)
    assert turn_of(marked) == 1_800_000_000.25
    assert turn_of(with_turn(marked, 7.0)) == 7.0
    assert glance(marked) == glance(raw)
    assert with_turn(b"rubbish", 1.0) == b"rubbish"
    for strange in (b'"soon"', b"NaN", b"Infinity", b"true", b"null"):
        assert turn_of(b'{"headers": {"umbel_turn": %b}}' % strange) is None


@pytest.mark.parametrize(("rate", "count"), [("10/s", 3000), ("300/s", 20_000), ("2/s", 600), ("10/s", 500)])
def test_a_long_queue_runs_at_its_rate_and_in_its_order(rate, count):
    """A worker with a broker that takes its time: what is put off comes back up to 0.1 s late."""
    task = Limited()
    task.rate_limit = rate
    interval, limits, now = interval_of(rate), RateLimits({"limited": task}), 1000.0
    end = now + min(count * interval, 250)
    asleep: list[tuple[float, int, int, float | None]] = [(now, number, number, None) for number in range(count)]
    requests = [request(number, task) for number in range(count)]
    started, asked = [], 0
    while now < end:
        while asleep and asleep[0][0] <= now:
            _, _, number, turn = heapq.heappop(asleep)
            asked += 1
            later = limits.hold(requests[number], turn, now)
            if later is not None:
                heapq.heappush(asleep, (now + later.seconds + (asked % 7) * 0.015, asked, number, later.turn))
        started += [(now, int(one.glance.id)) for one in limits.take(now, free=4)]
        soon = min(filter(None, (limits.next_at(), asleep[0][0] if asleep else None)), default=end)
        now = max(now + 0.0005, soon)
    times = [at for at, _ in started]
    assert all(later - earlier >= interval - 1e-9 for earlier, later in pairwise(times)), "the limit was exceeded"
    assert len(started) >= (end - 1000) / (interval + 0.0005) * 0.97, "tokens lay idle"
    assert len({number for _, number in started}) == len(started)
    strays = sorted(abs(place - number) for place, (_, number) in enumerate(started))
    assert strays[int(len(strays) * 0.98)] <= 5 + 2 * HORIZON / interval, "the order was lost"


def test_suspects_that_wait_for_one_another_use_up_no_tokens_and_do_not_start_all_at_once_then():
    """A node died with many of a limited task. The first of them runs for ten intervals."""
    pool = Slots(4)
    limits, inflight = RateLimits({TASK.name: TASK}), Inflight(pool, cap=None, most=3)
    for number in range(5):
        one = request(number)
        one.delivery = replace(one.delivery, suspect=True)
        assert limits.hold(one, None, 100.0) is None
    first = limits.take(100.0, 4, inflight.may_start)
    assert len(first) == 1
    inflight.add(first, first=True)
    assert len(inflight.assign()) == 1
    assert [limits.take(100.0 + 0.1 * step, 4, inflight.may_start) for step in range(1, 10)] == [[]] * 9
    (tag,) = inflight.sent
    inflight.take(tag)
    assert len(limits.take(101.0, 4, inflight.may_start)) == 1
    assert limits.take(101.09, 4, inflight.may_start) == []
