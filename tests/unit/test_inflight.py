"""How much a worker claims, and which slot gets what."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from umbel.broker import Delivery
from umbel.execution.outcome import Action, Job, Outcome
from umbel.execution.verdict import Request
from umbel.pools.base import Listener, Pool, Running, Slot
from umbel.task import Task
from umbel.wire.message import Message, encode, glance
from umbel.worker.inflight import APART, HORIZON, MOST, Inflight


class Slots(Pool):
    """A pool that runs nothing."""

    name = "slots"

    def __init__(self, count: int, capacity: int = 1) -> None:
        self.slots = [Slot(number=n, capacity=capacity, pid=1) for n in range(count)]

    def fork(self) -> None: ...
    def start(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None: ...
    def send(self, slot: Slot, jobs: list[Job]) -> int: ...
    def runs(self) -> list[Running]: ...
    def interrupt(self, slot: Slot, tag: int, *, hard: bool) -> None: ...
    def terminate(self, slot: Slot, tag: int, number: int) -> bool: ...
    def end_task(self, slot: Slot, tag: int) -> None: ...
    def take_back(self, slot: Slot) -> list[Job]: ...
    def overheard(self, slot: Slot) -> list[Outcome]: ...
    def kill(self) -> None: ...
    def end(self) -> None: ...
    async def finish(self) -> None: ...
    def close(self) -> None: ...


class Short(Task):
    name = "short"


class Long(Task):
    name = "long"


def requests(task: type[Task], count: int, **marks) -> list[Request]:
    raw = encode(Message(headers={"task": task.name, "id": "1"}, properties={}, body=b"[[], {}, {}]"))
    return [Request(Delivery(queue="q", tag=str(n), owner="w", raw=raw, fence=1, **marks), glance(raw), task()) for n in range(count)]


def learn(inflight: Inflight, pool: Pool, task: type[Task], runtime: float) -> None:
    inflight.add(requests(task, 1))
    [packet] = inflight.assign()
    finish(inflight, packet.slot, [tag for tag, _ in packet.requests], runtime)


def finish(inflight: Inflight, slot: Slot, tags: Sequence[int], runtime: float) -> None:
    for tag in tags:
        assert inflight.finished(slot, Outcome(tag, Action.ACK, "SUCCESS", runtime))


def test_before_anything_is_known_one_message_is_claimed_for_each_free_slot():
    assert Inflight(Slots(4), cap=None, most=3).room() == 4


def test_an_unmeasured_task_goes_alone_to_a_free_slot_and_the_rest_waits():
    pool = Slots(2)
    inflight = Inflight(pool, cap=None, most=3)
    inflight.add(requests(Short, 5))
    packets = inflight.assign()
    assert [len(packet.requests) for packet in packets] == [1, 1]
    assert {packet.slot.number for packet in packets} == {0, 1}
    assert len(inflight.waiting) == 3
    assert inflight.room() == 0


def test_short_tasks_travel_in_packets_as_much_as_fits_into_the_horizon():
    pool = Slots(1)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.001)
    assert inflight.room() == HORIZON / 0.001
    inflight.add(requests(Short, 100))
    packets = inflight.assign()
    assert sum(len(packet.requests) for packet in packets) == HORIZON / 0.001
    assert max(len(packet.requests) for packet in packets) <= 6
    assert inflight.room() == 0


def test_behind_a_task_of_ten_milliseconds_one_more_waits_and_no_second_one():
    """Another worker may have a free slot; and a slot without the next one would wait for it a tenth of its time."""
    pool = Slots(2)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.01)
    assert inflight.room() == 4
    inflight.add(requests(Short, 7))
    packets = inflight.assign()
    assert sorted(packet.slot.number for packet in packets) == [0, 0, 1, 1]
    assert [len(packet.requests) for packet in packets] == [1] * 4, "each by itself, so that the one that waits can be taken back"
    assert (len(inflight.waiting), inflight.room(), inflight.assign()) == (3, 0, [])
    finish(inflight, packets[0].slot, [packets[0].requests[0][0]], 0.01)
    assert [packet.slot for packet in inflight.assign()] == [packets[0].slot]


def test_behind_a_task_that_runs_long_nothing_is_claimed():
    pool = Slots(4)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.01)
    inflight.add(requests(Long, 3))
    assert len(inflight.assign()) == 3
    assert inflight.room() == 2, "for the one slot that does not run a long one"


def test_no_claim_is_larger_than_its_bound():
    pool = Slots(8)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.00001)
    assert inflight.room() == MOST


def test_a_long_task_gets_a_slot_of_its_own_while_short_ones_go_on_in_the_other():
    pool = Slots(2)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.001)
    learn(inflight, pool, Long, 5)
    inflight.add([*requests(Long, 2), *requests(Short, 10)])
    sent = {(packet.slot.number, request.task.name) for packet in inflight.assign() for _, request in packet.requests}
    longs = {number for number, name in sent if name == "long"}
    shorts = {number for number, name in sent if name == "short"}
    assert longs == {0, 1}, "both slots were free"
    assert not shorts, "no short task is put behind a long one"


def test_one_slow_run_makes_a_task_travel_alone_for_a_while():
    pool = Slots(1)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.001)
    learn(inflight, pool, Short, 0.5)
    inflight.add(requests(Short, 3))
    assert [len(packet.requests) for packet in inflight.assign()] == [1]


def test_a_suspect_is_never_in_a_packet_with_others():
    pool = Slots(1)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.001)
    inflight.add([*requests(Short, 1, suspect=True), *requests(Short, 3)])
    assert [len(packet.requests) for packet in inflight.assign()] == [1]


def test_what_comes_back_waits_before_all_others_in_its_order():
    pool = Slots(1)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.001)
    inflight.add(requests(Short, 3))
    held = dict(entry for packet in inflight.assign() for entry in packet.requests)
    inflight.add(requests(Short, 1))
    inflight.back(reversed(held))
    assert [id(request) for _, request, _ in inflight.waiting][:3] == [id(request) for request in held.values()]
    assert not pool.slots[0].jobs


def test_what_is_sent_again_has_a_new_tag_so_that_nothing_left_of_the_first_sending_can_mean_it():
    pool = Slots(1)
    inflight = Inflight(pool, cap=None, most=3)
    inflight.add(requests(Long, 1))
    [first] = sent(inflight.assign())
    inflight.back([first])
    [second] = sent(inflight.assign())
    inflight.back([first])
    assert inflight.finished(pool.slots[0], Outcome(first, Action.ACK, "SUCCESS", 0.1)) is None
    assert list(inflight.sent) == [second] != [first]


def test_a_number_given_by_the_user_caps_what_is_held():
    pool = Slots(3)
    inflight = Inflight(pool, cap=2, most=3)
    learn(inflight, pool, Short, 0.001)
    assert inflight.room() == 6


def test_a_number_given_by_the_user_lets_nothing_be_claimed_that_cannot_start_soon():
    """It would be given back, and claimed again, for as long as the long ones run."""
    pool = Slots(1)
    inflight = Inflight(pool, cap=4, most=3)
    assert inflight.room() == 1
    inflight.add(requests(Long, 1))
    [packet] = inflight.assign()
    assert inflight.room() == 0
    finish(inflight, packet.slot, sent([packet]), 30)
    assert inflight.room() == 1


def test_a_slot_with_many_places_is_filled_and_no_more():
    inflight = Inflight(Slots(1, capacity=10), cap=None, most=3)
    assert inflight.room() == 10
    inflight.add(requests(Long, 12))
    assert sum(len(packet.requests) for packet in inflight.assign()) == 10
    assert len(inflight.waiting) == 2


def test_a_slot_whose_process_is_not_up_gets_nothing():
    pool = Slots(1)
    pool.slots[0].pid = 0
    inflight = Inflight(pool, cap=None, most=3)
    inflight.add(requests(Short, 1))
    assert inflight.room() == 0
    assert Inflight(pool, cap=2, most=3).room() == 0
    assert inflight.assign() == []


@pytest.mark.parametrize("old", [0.0, 60.0])
def test_what_waits_too_long_can_be_given_back(old):
    inflight = Inflight(Slots(1), cap=None, most=3)
    inflight.add(requests(Long, 2))
    inflight.assign()
    assert len(inflight.stuck(old)) == (1 if old == 0 else 0)


@pytest.mark.parametrize("how", ["ended by force", "forgotten", "came back", "finished"])
def test_a_slot_that_was_held_up_gets_more_when_that_is_over_however_it_ended(monkeypatch, how):
    pool = Slots(1)
    [slot] = pool.slots
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.001)
    inflight.add(requests(Short, 3))
    first, *rest = sent(inflight.assign())
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    assert inflight.overdue() == [slot]
    inflight.back(rest)
    assert slot.stalled, "what holds it up is still there"
    assert inflight.assign() == []
    match how:
        case "ended by force":
            inflight.take(first)
        case "forgotten":
            inflight.clear()
        case "came back":
            inflight.back([first])
        case "finished":
            finish(inflight, slot, [first], 1)
    inflight.add(requests(Long, 1))
    assert inflight.assign()


def sent(packets) -> list[int]:
    return [tag for packet in packets for tag, _ in packet.requests]


@pytest.mark.parametrize(("count", "capacity"), [(4, 1), (1, 4)])
@pytest.mark.parametrize("marks", [{"suspect": True}, {"attempts": 1}])
def test_one_suspect_runs_at_a_time_and_others_run_beside_it(count, capacity, marks):
    pool = Slots(count, capacity)
    inflight = Inflight(pool, cap=None, most=3)
    inflight.add(requests(Long, 3, **marks))
    [first] = inflight.assign()
    assert inflight.assign() == []
    inflight.add(requests(Short, 2))
    assert len(sent(inflight.assign())) == 2
    finish(inflight, first.slot, sent([first]), 0.001)
    assert len(sent(inflight.assign())) == 1


@pytest.mark.parametrize("marks", [{"suspect": True}, {"suspect": True, "attempts": 1}])
def test_a_suspect_that_has_run_for_a_while_lets_the_next_one_start(monkeypatch, marks):
    inflight = Inflight(Slots(2), cap=None, most=3)
    inflight.add(requests(Long, 2, **marks))
    assert len(sent(inflight.assign())) == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + APART - 0.2)
    assert inflight.assign() == []
    monkeypatch.setattr(time, "monotonic", lambda: now + APART + 0.2)
    assert len(sent(inflight.assign())) == 1


@pytest.mark.parametrize(("first", "second"), [(2, 0), (0, 2), (2, 2)])
@pytest.mark.parametrize(("count", "capacity"), [(3, 1), (1, 3)])
def test_whom_the_next_death_would_bury_runs_while_no_other_suspect_does_however_long(monkeypatch, first, second, count, capacity):
    inflight = Inflight(Slots(count, capacity), cap=None, most=3)
    inflight.add([*requests(Long, 1, suspect=True, attempts=first), *requests(Long, 1, suspect=True, attempts=second)])
    [packet] = inflight.assign()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    inflight.add(requests(Long, 1))
    assert [request.alone for packet in inflight.assign() for _, request in packet.requests] == [False]
    assert inflight.room() == 1, "others run beside it"
    inflight.add(requests(Long, 1))
    inflight.assign()
    assert inflight.stuck(-1) == [], "given back, it would be claimed again with each slot that is free"
    finish(inflight, packet.slot, sent([packet]), 3600)
    assert len(sent(inflight.assign())) == 1


def test_of_suspects_that_run_beside_one_another_the_one_that_came_last_is_named(monkeypatch):
    inflight = Inflight(Slots(3), cap=None, most=3)
    inflight.add(requests(Long, 2, suspect=True))
    [first] = sent(inflight.assign())
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * APART)
    inflight.add(requests(Long, 1))
    second, other = sent(inflight.assign())
    assert inflight.newest([second, first, other]) == second
    assert inflight.newest([other]) is None


def test_suspects_that_wait_for_one_another_stop_no_claim_and_are_not_given_back(monkeypatch):
    pool = Slots(3)
    inflight = Inflight(pool, cap=None, most=3)
    inflight.add(requests(Long, 10, suspect=True))
    inflight.assign()
    assert inflight.room() == 2
    assert inflight.stuck(-1) == []
    inflight.add(requests(Long, 2))
    inflight.assign()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * APART)
    assert len(inflight.stuck(-1)) == 9, "no slot is free: another worker may have one"


def test_as_many_suspects_as_one_claim_can_bring_are_held_and_no_more():
    inflight = Inflight(Slots(3), cap=None, most=3)
    inflight.add(requests(Long, MOST + 1, suspect=True))
    inflight.assign()
    assert inflight.room() == 0


def test_a_suspect_gets_a_slot_though_short_tasks_never_end():
    pool = Slots(2)
    inflight = Inflight(pool, cap=None, most=3)
    learn(inflight, pool, Short, 0.001)
    inflight.add(requests(Short, 60))
    busy = inflight.assign()
    inflight.add([*requests(Short, 200), *requests(Long, 1, suspect=True)])
    inflight.assign()
    for packet in busy:
        finish(inflight, packet.slot, sent([packet]), 0.001)
    assert any(request.alone for packet in inflight.assign() for _, request in packet.requests)


def test_what_was_not_sent_is_taken_out_in_its_order():
    inflight = Inflight(Slots(1), cap=None, most=3)
    inflight.add([*requests(Long, 2), *requests(Long, 1, suspect=True), *requests(Long, 1)])
    assert [request.alone for request in inflight.take_waiting()] == [False, False, True, False]
    assert len(inflight) == 0
