# ruff: noqa: D102 - the names are the sentences, the numbers are examples
"""Workflows: parts arrive at joins."""

from __future__ import annotations

import pytest

from umbel.backend import Arrival, Gone, JoinProgress, Over, ResultBackend
from umbel.testing.conformance.base import succeeds_in_child
from umbel.testing.conformance.flow_base import LIVES, FlowSuite, at_once, failed, part, values_of

__all__ = ["Arriving"]


class Arriving(FlowSuite):
    """Parts arrive; the last, or the first that failed, ends the join."""

    def test_the_last_part_gets_the_join_and_reads_its_values(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 3)
        assert self.arrive(backend, part(flow, 2)) == [None]
        assert self.arrive(other, part(flow, 0)) == [None]
        (over,) = self.arrive(other, part(flow, 1))
        assert over == Over(flow=flow, join=0, size=3, failed=None)
        assert values_of(backend, over) == [b"v0", b"v1", b"v2"]

    def test_values_cannot_be_read_before_it_is_over(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2)
        self.arrive(backend, part(flow, 0))
        assert backend.arrived(flow, 0) == []
        assert backend.arrived(flow, 1) == []
        assert backend.arrived(flow + "x", 0) == []

    def test_a_batch_is_decided_one_by_one(self, backend: ResultBackend, flow: str) -> None:
        for join in (0, 1):
            self.begin(backend, flow, 2, join=join)
        batch = [part(flow, 0), part(flow, 0, join=1), part(flow, 1, join=1), part(flow, 9, join=7), part(flow + "x", 0), part(flow, 1)]
        over = [Over(flow=flow, join=join, size=2, failed=None) for join in (0, 1)]
        assert self.arrive(backend, *batch) == [None, None, over[1], None, None, over[0]]
        assert backend.arrive([], expires=LIVES) == []

    def test_a_repeated_part_counts_once_and_keeps_its_first_value(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2)
        assert self.arrive(backend, part(flow, 0), part(flow, 0, value=b"again"), failed(flow, 0)) == [None] * 3
        assert self.arrive(backend, part(flow, 0, value=b"again")) == [None]
        assert backend.progress(flow)[0] == JoinProgress(size=2, done=1, failed=None, sent=False)
        (over,) = self.arrive(backend, part(flow, 1))
        assert over is not None
        assert values_of(backend, over) == [b"v0", b"v1"]

    def test_who_repeats_the_last_part_gets_the_join_again_until_it_is_sent(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2)
        first = self.arrive(backend, part(flow, 0), part(flow, 1))
        assert self.arrive(backend, part(flow, 1)) == [first[1]]
        assert self.arrive(backend, part(flow, 0)) == [None]
        assert first[1] is not None
        backend.sent([first[1]])
        assert self.arrive(backend, part(flow, 1), part(flow, 0)) == [None, None]

    def test_the_first_failure_ends_it_without_waiting_for_the_others(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 3)
        over = Over(flow=flow, join=0, size=3, failed="task-1", failure=b"\x00why")
        assert self.arrive(backend, part(flow, 0), failed(flow, 1, failure=b"\x00why")) == [None, over]
        assert self.arrive(backend, failed(flow, 2), part(flow, 2), failed(flow, 1, failure=b"other")) == [None, None, over]
        assert backend.arrived(flow, 0) == []
        assert backend.progress(flow)[0] == JoinProgress(size=3, done=1, failed="task-1", sent=False)
        backend.sent([over])
        assert self.arrive(backend, failed(flow, 1)) == [None]

    def test_a_position_that_there_is_not_is_no_part(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        assert self.arrive(backend, part(flow, 1), failed(flow, 2)) == [None, None]
        assert backend.progress(flow)[0] == JoinProgress(size=1, done=0, failed=None, sent=False)

    def test_a_join_that_there_is_not_is_gone(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        over = Over(flow=flow, join=0, size=1, failed=None)
        parts = [part(flow, 0, join=7), part(flow, 0), failed(flow + "x", 0), part(flow, 1, join=7)]
        assert backend.arrive(parts, expires=LIVES) == [Gone(), over, Gone(), Gone()]
        assert backend.progress(flow + "x") == {}

    def test_an_empty_value_is_a_value(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        (over,) = self.arrive(backend, Arrival(flow=flow, join=0, position=0, id="a", value=b""))
        assert over is not None
        assert backend.arrived(flow, 0) == [b""]

    def test_values_come_in_order_by_pages(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 10_000)
        positions = [position for offset in (1, 0) for position in range(offset, 10_000, 2)]
        overs = list[Over | None]()
        for start in range(0, 10_000, 500):
            overs += self.arrive(backend, *(part(flow, position) for position in positions[start : start + 500]))
        (over,) = filter(None, overs)
        assert values_of(backend, over) == [b"v%d" % position for position in range(10_000)]
        assert backend.arrived(flow, 0, start=9_998) == [b"v9998", b"v9999"]
        assert backend.arrived(flow, 0, start=9, limit=3) == [b"v9", b"v10", b"v11"]
        assert backend.arrived(flow, 0, start=10_000) == []
        backend.sent([over])
        assert backend.arrived(flow, 0) == []

    def test_large_values_are_read_whole(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 6)
        large = [bytes([position]) * 2_000_000 for position in range(6)]
        (*_, over) = self.arrive(backend, *(part(flow, position, value=value) for position, value in enumerate(large)))
        assert over is not None
        assert values_of(backend, over) == large

    def test_many_that_arrive_at_one_moment_end_it_once(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 16)
        overs = at_once([
            lambda each=each, position=position: self.arrive(each, part(flow, position))[0]  # type: ignore[misc]
            for position in range(16) for each in ([backend, other][position % 2],)
        ])  # fmt: skip
        assert [over for over in overs if over] == [Over(flow=flow, join=0, size=16, failed=None)]
        assert backend.arrived(flow, 0) == [b"v%d" % position for position in range(16)]

    def test_many_that_fail_at_one_moment_end_it_once(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 8)
        overs = at_once([
            lambda each=each, position=position: self.arrive(each, failed(flow, position))[0]  # type: ignore[misc]
            for position in range(8) for each in ([backend, other][position % 2],)
        ])  # fmt: skip
        (over,) = filter(None, overs)
        assert self.overs(backend, flow) == [over]

    def test_batches_that_have_the_same_joins_in_another_order_do_not_hold_each_other_up(
        self, backend: ResultBackend, other: ResultBackend, flow: str
    ) -> None:
        flows = [f"{flow}-{number}" for number in range(4)]
        for each in flows:
            self.begin(backend, each, 40)
        batches = [[part(each, position) for each in flows[:: 1 if position % 2 else -1]] for position in range(40)]

        def send(sender: ResultBackend, first: int) -> list[Over | None]:
            return [over for batch in batches[first::4] for over in self.arrive(sender, *batch)]

        done = at_once([lambda n=n: send([backend, other][n % 2], n) for n in range(4)])  # type: ignore[misc]
        overs = [over.flow for some in done for over in some if over]  # type: ignore[attr-defined]
        assert sorted(overs) == flows

    def test_the_same_last_part_from_two_gives_it_to_both_and_is_sent_once(
        self, backend: ResultBackend, other: ResultBackend, flow: str
    ) -> None:
        self.begin(backend, flow, 1)
        overs = at_once([lambda each=each: self.arrive(each, part(flow, 0))[0] for each in (backend, other)])  # type: ignore[misc]
        assert overs == [Over(flow=flow, join=0, size=1, failed=None)] * 2
        backend.sent([over for over in overs if isinstance(over, Over)])
        assert self.overs(other, flow) == []

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_parent_and_child_may_both_arrive_after_a_fork(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2)

        def child() -> None:
            assert self.arrive(backend, part(flow, 0)) == [None]
            backend.close()

        assert succeeds_in_child(child)
        shared = backend.progress(flow)[0].done == 1  # not in the memory of one process
        (over,) = self.arrive(backend, part(flow, 1))
        assert (over is not None) == shared
