"""What a child leaves behind, and how frames travel."""

import os

import pytest

from umbel.pools import frames
from umbel.pools import testimony as shared


def test_a_parent_reads_what_its_killed_child_had_started_and_finished():
    testimony = shared.Testimony()
    pid = os.fork()
    if pid == 0:
        testimony.start(7)
        testimony.record(b"outcome of 7")
        testimony.start(8)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert testimony.read() == (8, [b"outcome of 7"])
    testimony.reset()
    assert testimony.read() == (0, [])


def test_what_was_sent_is_cleared_and_what_does_not_fit_is_refused():
    testimony = shared.Testimony()
    assert testimony.record(b"x" * 40_000)
    assert not testimony.record(b"x" * 40_000)
    testimony.clear()
    assert testimony.record(b"y")
    assert testimony.read() == (0, [b"y"])


@pytest.mark.parametrize("size", [0, 1, 99_999, 100_000, 100_001, 5_000_000])
def test_a_frame_of_any_size_arrives_whole(size):
    ours, theirs = frames.pair()
    with ours, theirs:
        frames.send(ours, b"f" * size)
        assert frames.receive(theirs) == b"f" * size


def test_what_was_not_read_can_be_taken_back_from_the_other_end():
    ours, theirs = frames.pair()
    with ours, theirs:
        frames.send(ours, b"1")
        frames.send(ours, b"2")
        theirs.setblocking(False)
        assert [frames.receive(theirs), frames.receive(theirs)] == [b"1", b"2"]
        with pytest.raises(BlockingIOError):
            frames.receive(theirs)


def test_the_end_of_a_conversation_is_told():
    ours, theirs = frames.pair()
    with theirs:
        frames.send(ours, b"last")
        ours.close()
        assert frames.receive(theirs) == b"last"
        with pytest.raises(frames.Closed):
            frames.receive(theirs)
        with pytest.raises(frames.Closed):
            frames.send(theirs, b"nobody reads this")
