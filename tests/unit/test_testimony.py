"""What a child leaves behind, and how frames travel."""

import errno
import os
import resource

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


def test_a_large_frame_for_which_no_file_can_be_opened_is_no_empty_one():
    ours, theirs = frames.pair()
    with ours, theirs:
        frames.send(ours, b"f" * 200_000)
        pid = os.fork()
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            try:
                frames.receive(theirs)
            except OSError as exc:
                os._exit(exc.errno or 0)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EMFILE


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


def test_what_starts_while_the_parent_looks_does_not_seem_to_run_since_the_one_before():
    """The parent would end it at once for its time limit."""
    testimony = shared.Testimony()
    testimony.start(7)
    words = testimony._words

    class Slowly:
        def __getitem__(self, at: int) -> int:
            value = words[at]
            if value == 7:
                testimony._words = words
                testimony.rest()
                testimony.start(8)
            return value

    testimony._words = Slowly()
    assert testimony.running() == (0, 0.0)
    assert testimony.running()[0] == 8


def test_a_number_is_never_seen_in_parts():
    """While it is written a hundred thousand times, the other process sees no zero that nobody wrote."""
    testimony = shared.Testimony()
    testimony.ask(1, shared.HARD)
    pid = os.fork()
    if pid == 0:
        for tag in range(1, 100_000):
            testimony.ask(tag, shared.HARD)
        os._exit(0)
    seen = set()
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        seen.update(testimony.asked() for _ in range(100))
    assert {why for tag, why in seen if tag} == {shared.HARD}
