"""How a child hands over what it has finished."""

import asyncio
import socket
import threading

import pytest

from umbel.execution.outcome import Action, Job, Outcome, decode_outcomes, encode_jobs
from umbel.pools import frames, testimony
from umbel.pools.child import ENOUGH, ChildSlot, Outbox, serve


@pytest.fixture
def slot():
    ours, theirs = frames.pair()
    memory = testimony.Testimony()
    with ours, theirs:
        yield ChildSlot(theirs, memory), ours
    memory.close()


def outcome(tag: int) -> Outcome:
    return Outcome(tag, Action.ACK, "SUCCESS", 0.001)


def received(end: socket.socket) -> list[list[int]]:
    found = []
    try:
        while True:
            found.append([each.tag for each in decode_outcomes(frames.receive(end, socket.MSG_DONTWAIT))])
    except BlockingIOError:
        return found


def test_when_many_end_in_one_turn_of_a_loop_the_first_are_sent_before_the_turn_is_over(slot):
    child, parent = slot

    async def turn():
        outbox = Outbox(child)
        for tag in range(ENOUGH + 5):
            outbox.add(outcome(tag))
        in_this_turn = received(parent)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return in_this_turn, received(parent)

    assert asyncio.run(turn()) == ([list(range(ENOUGH))], [list(range(ENOUGH, ENOUGH + 5))])


class Quick:
    """Runs everything at once."""

    left_behind = False

    def run(self, job: Job, guard: object = None) -> Outcome:
        return outcome(job.tag)


def test_outcomes_of_packets_that_are_there_already_are_sent_together(slot):
    child, parent = slot
    for first in (1, 11, 21):
        frames.send(parent, encode_jobs([Job(first + n, 1, b"") for n in range(10)]))
    frames.send(parent, encode_jobs([]))
    serve(Quick(), child)
    assert received(parent) == [list(range(1, 31))]
    assert child.testimony.read() == (0, [])


def test_an_outcome_does_not_wait_for_a_packet_that_is_not_there(slot):
    child, parent = slot
    serving = threading.Thread(target=serve, args=(Quick(), child))
    serving.start()
    parent.settimeout(10)
    for tag in (1, 2):
        frames.send(parent, encode_jobs([Job(tag, 1, b"")]))
        assert [each.tag for each in decode_outcomes(frames.receive(parent))] == [tag]
    frames.send(parent, encode_jobs([]))
    serving.join(10)
    assert not serving.is_alive()
