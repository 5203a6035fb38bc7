# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""Workflows: who answers for what follows a join, and joins that grow."""

from __future__ import annotations

from umbel.backend import JoinProgress, Over, ResultBackend
from umbel.testing.conformance.flow_base import LIVES, SHORT, FlowSuite, at_once, failed, part

__all__ = ["Answering", "Growing"]


class Answering(FlowSuite):
    """What follows a join is published by somebody, also when who was to do it has died."""

    def test_what_is_over_and_not_sent_is_found_when_it_is_old_enough(
        self, backend: ResultBackend, other: ResultBackend, flow: str
    ) -> None:
        self.begin(backend, flow, 2)
        self.arrive(backend, part(flow, 0))
        assert self.overs(other, flow) == []
        (over,) = self.arrive(backend, part(flow, 1))
        assert self.overs(other, flow, older=30) == []
        self.pass_time(0.2)
        assert self.overs(other, flow, older=0.1) == [over]
        self.finish(backend, flow)

    def test_a_failed_one_is_found_with_its_failure(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2)
        self.arrive(backend, failed(flow, 1, failure=b"\xffwhy"))
        assert self.overs(other, flow) == [Over(flow=flow, join=0, size=2, failed="task-1", failure=b"\xffwhy")]
        self.finish(backend, flow)

    def test_who_found_one_answers_for_it_and_others_find_it_when_it_is_old_again(
        self, backend: ResultBackend, other: ResultBackend, flow: str
    ) -> None:
        self.begin(backend, flow, 1)
        (over,) = self.arrive(backend, part(flow, 0))
        self.pass_time(0.7)
        assert self.overs(backend, flow, older=0.5) == [over]
        assert self.overs(other, flow, older=0.5) == []
        self.pass_time(0.7)
        assert self.overs(other, flow, older=0.5) == [over]
        self.finish(backend, flow)

    def test_two_that_look_at_one_moment_do_not_both_find_it(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        (over,) = self.arrive(backend, part(flow, 0))
        self.pass_time(0.7)
        found = at_once([lambda each=each: self.overs(each, flow, older=0.5) for each in (backend, other)])  # type: ignore[misc]
        assert [each for some in found for each in some] == [over]  # type: ignore[attr-defined]
        self.finish(backend, flow)

    def test_what_was_sent_is_found_no_more(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        self.begin(backend, flow, 1, join=1)
        first, second = self.arrive(backend, part(flow, 0), part(flow, 0, join=1))
        assert first is not None
        other.sent([first])
        assert self.overs(backend, flow) == [second]
        assert second is not None
        other.sent([second, first])
        other.sent([])
        assert self.overs(backend, flow) == []
        assert [join.sent for join in backend.progress(flow).values()] == [True, True]

    def test_at_most_as_many_are_returned_as_are_asked_for(self, backend: ResultBackend, flow: str) -> None:
        for join in range(5):
            self.begin(backend, flow, 0, join=join)
        assert len(backend.overs(older=0, limit=2)) == 2
        assert len(self.overs(backend, flow)) == 5
        self.finish(backend, flow)

    def test_a_join_that_is_not_over_cannot_be_sent(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2)
        self.arrive(backend, part(flow, 0))
        backend.sent([Over(flow=flow, join=join, size=2, failed=None) for join in (0, 1)])
        assert backend.progress(flow) == {0: JoinProgress(size=2, done=1, failed=None, sent=False)}
        (over,) = self.arrive(backend, part(flow, 1))
        assert over is not None

    def test_the_values_of_one_join_stay_when_another_was_sent(self, backend: ResultBackend, flow: str) -> None:
        for join in range(2):
            self.begin(backend, flow, 2, join=join)
        overs = self.arrive(backend, *(part(flow, position, join=join) for join in (0, 1) for position in (0, 1)))
        assert overs[1] is not None
        backend.sent([overs[1]])
        assert (backend.arrived(flow, 0), backend.arrived(flow, 1)) == ([], [b"v0", b"v1"])
        self.finish(backend, flow)

    def test_what_expired_or_was_forgotten_is_found_no_more(self, backend: ResultBackend, flow: str) -> None:
        for each, expires in ((flow, SHORT), (flow + "x", LIVES)):
            self.begin(backend, each, 1, expires=expires)
            self.arrive(backend, part(each, 0), expires=expires)
        backend.forget_flows([flow + "x", flow + "unknown"])
        backend.forget_flows([])
        self.pass_time(SHORT * 2)
        assert [over for over in backend.overs(older=0, limit=1000) if over.flow in {flow, flow + "x"}] == []


class Growing(FlowSuite):
    """A running part lets its join wait for more."""

    def test_a_join_that_grows_waits_for_what_was_added(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2)
        assert other.grow(flow, 0, 2, key="a") == 2
        assert other.grow(flow, 0, 1, key="b") == 4
        assert self.arrive(backend, *(part(flow, position) for position in (0, 1, 4, 3))) == [None] * 4
        assert backend.progress(flow)[0] == JoinProgress(size=5, done=4, failed=None, sent=False)
        (over,) = self.arrive(backend, part(flow, 2))
        assert over == Over(flow=flow, join=0, size=5, failed=None)
        assert backend.arrived(flow, 0) == [b"v0", b"v1", b"v2", b"v3", b"v4"]

    def test_it_grows_once_for_each_key(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        self.begin(backend, flow, 1, join=1)
        assert [backend.grow(flow, 0, 2, key=key) for key in ("a", "b", "a")] == [1, 3, 1]
        assert other.grow(flow, 0, 2, key="b") == 3
        assert other.grow(flow, 1, 2, key="a") == 1
        assert [join.size for join in backend.progress(flow).values()] == [5, 3]

    def test_what_is_over_or_unknown_does_not_grow(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        self.begin(backend, flow, 2, join=1)
        assert backend.grow(flow, 1, 1, key="a") == 2
        self.arrive(backend, part(flow, 0), failed(flow, 0, join=1))
        assert [backend.grow(flow, join, 1, key="a") for join in (0, 1, 2)] == [None, None, None]
        assert backend.grow(flow + "x", 0, 1, key="a") is None
        assert [join.size for join in backend.progress(flow).values()] == [1, 3]
        self.finish(backend, flow)

    def test_growing_against_the_last_part_either_comes_first(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        for number in range(20):
            each = f"{flow}-{number}"
            self.begin(backend, each, 1)
            grown, arrived = at_once(
                [
                    lambda each=each: other.grow(each, 0, 1, key="a"),  # type: ignore[misc]
                    lambda each=each: self.arrive(backend, part(each, 0))[0],  # type: ignore[misc]
                ]
            )
            assert (grown, arrived) in [(1, None), (None, Over(flow=each, join=0, size=1, failed=None))]
            self.finish(backend, each)

    def test_many_that_grow_at_one_moment_get_positions_of_their_own(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        first = at_once([lambda n=n: [backend, other][n % 2].grow(flow, 0, 2, key=f"k{n}") for n in range(8)])  # type: ignore[misc]
        assert sorted(first) == list(range(1, 17, 2))  # type: ignore[type-var]
        assert backend.progress(flow)[0].size == 17
