# ruff: noqa: PLR2004 - the names are the sentences, the numbers are examples
"""The suite that defines what a result backend keeps of workflows."""

from __future__ import annotations

import pytest

from umbel.backend import Gone, JoinProgress, Over, ResultBackend
from umbel.testing.conformance.answering import Answering, Growing
from umbel.testing.conformance.flow_base import LIVES, ODD_IDS, SHORT, FlowSuite, at_once, failed, part
from umbel.testing.conformance.joining import Arriving

__all__ = ["FlowConformance"]


GROUP = b'{"result": [["g", null], [[["a", null], null]]]}'


class Writing(FlowSuite):
    """What is written at the begin, and read."""

    def test_nodes_are_read_by_others_in_the_order_they_are_asked_for(
        self, backend: ResultBackend, other: ResultBackend, flow: str
    ) -> None:
        backend.begin_flow(flow, {0: b"zero", 7: b"\x00\xff", 2: b""}, {}, expires=LIVES)
        assert other.nodes([(flow, 7), (flow, 1), (flow + "x", 0), (flow, 0), (flow, 2), (flow, 7)]) == [
            b"\x00\xff", None, None, b"zero", b"", b"\x00\xff",
        ]  # fmt: skip
        assert other.nodes([]) == []

    def test_the_nodes_of_a_flow_are_found_by_its_id_alone(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        assert backend.node_numbers(flow) == []
        backend.begin_flow(flow, {7: b"seven", 10: b"ten"}, {3: (2, b"join"), 0: (2, b"join")}, expires=LIVES)
        backend.begin_flow(flow, {0: b"zero"}, {}, expires=LIVES)
        backend.begin_flow(flow + "x", {1: b"other"}, {}, expires=LIVES)
        self.arrive(backend, failed(flow, 0))
        backend.grow(flow, 3, 1, key="5")
        assert other.node_numbers(flow) == [0, 7, 10]

    def test_what_is_known_of_joins_is_read_in_order(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        backend.begin_flow(flow, {}, {0: (1, b"zero"), 3: (2, b"three")}, expires=LIVES)
        assert other.join_data([(flow, 3), (flow, 1), (flow + "x", 3), (flow, 0)]) == [b"three", None, None, b"zero"]
        assert other.join_data([]) == []

    def test_a_node_and_a_join_may_have_one_number(self, backend: ResultBackend, flow: str) -> None:
        backend.begin_flow(flow, {1: b"node"}, {1: (1, b"join")}, expires=LIVES)
        assert (backend.nodes([(flow, 1)]), backend.join_data([(flow, 1)])) == ([b"node"], [b"join"])

    @pytest.mark.parametrize("number", [2**31, 2**53 - 1])
    def test_numbers_of_nodes_and_joins_may_be_large(self, backend: ResultBackend, other: ResultBackend, flow: str, number: int) -> None:
        backend.begin_flow(flow, {number: b"node"}, {number - 1: (2, b"join")}, expires=LIVES)
        assert (other.nodes([(flow, number)]), other.join_data([(flow, number - 1)])) == ([b"node"], [b"join"])
        self.arrive(backend, part(flow, 0, join=number - 1))
        assert other.grow(flow, number - 1, 1, key="a") == 2
        (over,) = self.arrive(backend, failed(flow, 1, join=number - 1))
        assert over == Over(flow=flow, join=number - 1, size=3, failed="task-1", failure=over.failure if over else b"")
        assert self.overs(other, flow) == [over]
        backend.sent([over])
        assert backend.progress(flow)[number - 1].sent

    def test_a_large_flow_is_written_in_parts(self, backend: ResultBackend, flow: str) -> None:
        for start in range(0, 1500, 500):
            nodes = {number: b"node %d" % number for number in range(start, start + 500)}
            backend.begin_flow(flow, nodes, {start: (2, b"")}, expires=LIVES)
        assert backend.nodes([(flow, number) for number in range(1500)]) == [b"node %d" % number for number in range(1500)]
        assert sorted(backend.progress(flow)) == [0, 500, 1000]

    def test_a_repeated_begin_changes_nothing(self, backend: ResultBackend, flow: str) -> None:
        backend.begin_flow(flow, {0: b"first"}, {0: (2, b"first")}, expires=LIVES)
        self.arrive(backend, part(flow, 0))
        backend.begin_flow(flow, {0: b"second", 1: b"new"}, {0: (5, b"second"), 1: (1, b"new")}, expires=LIVES)
        assert backend.nodes([(flow, 0), (flow, 1)]) == [b"first", b"new"]
        assert backend.join_data([(flow, 0), (flow, 1)]) == [b"first", b"new"]
        assert backend.progress(flow)[0] == JoinProgress(size=2, done=1, failed=None, sent=False)
        assert self.arrive(backend, part(flow, 1)) == [Over(flow=flow, join=0, size=2, failed=None)]

    def test_a_begin_after_the_join_was_sent_does_not_open_it_again(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 1)
        (over,) = self.arrive(backend, part(flow, 0))
        assert over is not None
        backend.sent([over])
        self.begin(backend, flow, 1)
        assert self.arrive(backend, part(flow, 0)) == [None]
        assert self.overs(backend, flow) == []

    def test_a_join_of_no_parts_is_over_at_once(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 0)
        (over,) = self.overs(backend, flow)
        assert over == Over(flow=flow, join=0, size=0, failed=None)
        assert backend.arrived(flow, 0) == []
        backend.sent([over])
        assert self.overs(backend, flow) == []
        assert backend.progress(flow)[0] == JoinProgress(size=0, done=0, failed=None, sent=True)

    @pytest.mark.parametrize("odd", ODD_IDS)
    def test_ids_may_have_any_characters(self, backend: ResultBackend, other: ResultBackend, flow: str, odd: str) -> None:
        flow = flow + odd
        backend.begin_flow(flow, {0: b"node"}, {0: (2, b"join")}, expires=LIVES)
        assert (other.nodes([(flow, 0)]), other.join_data([(flow, 0)])) == ([b"node"], [b"join"])
        self.arrive(other, part(flow, 0, id=odd))
        assert other.grow(flow, 0, 1, key=odd) == 2
        (over,) = self.arrive(other, failed(flow, 2))
        assert over is not None
        assert self.overs(backend, flow) == [over]
        backend.sent([over])
        assert backend.progress(flow) == {0: JoinProgress(size=3, done=1, failed="task-2", sent=True)}
        assert backend.bind([(flow, odd), (flow, odd + "x")], expires=LIVES) == [True, False]
        backend.save_group(flow, GROUP, expires=LIVES)
        assert other.saved_group(flow) == GROUP
        backend.delete_group(flow)
        backend.forget_flows([flow])
        assert other.nodes([(flow, 0)]) == [None]


class Living(FlowSuite):
    """How long it is kept."""

    def test_a_flow_expires_and_may_be_begun_again(self, backend: ResultBackend, flow: str) -> None:
        backend.begin_flow(flow, {0: b"old"}, {0: (2, b"old"), 1: (1, b"old")}, expires=SHORT)
        self.arrive(backend, part(flow, 0), expires=SHORT)
        self.pass_time(SHORT * 2)
        assert (backend.nodes([(flow, 0)]), backend.join_data([(flow, 0)]), backend.progress(flow)) == ([None], [None], {})
        assert backend.node_numbers(flow) == []
        assert backend.arrive([part(flow, 1), failed(flow, 0)], expires=LIVES) == [Gone(), Gone()]
        assert backend.grow(flow, 0, 1, key="a") is None
        backend.begin_flow(flow, {1: b"new"}, {0: (2, b"new")}, expires=LIVES)
        assert backend.nodes([(flow, 0), (flow, 1)]) == [None, b"new"]
        assert backend.progress(flow) == {0: JoinProgress(size=2, done=0, failed=None, sent=False)}
        self.arrive(backend, part(flow, 1, value=b"new"), part(flow, 0, value=b"new"))
        assert backend.arrived(flow, 0) == [b"new", b"new"]
        self.finish(backend, flow)

    def test_each_write_lets_all_of_the_flow_live_on(self, backend: ResultBackend, flow: str) -> None:
        backend.begin_flow(flow, {0: b"node"}, {0: (2, b"join"), 1: (4, b"other")}, expires=0.6)
        self.arrive(backend, part(flow, 0), expires=0.6)
        for position in range(3):
            self.pass_time(0.4)
            self.arrive(backend, part(flow, position, join=1), expires=0.6)
        assert (backend.nodes([(flow, 0)]), backend.join_data([(flow, 0)])) == ([b"node"], [b"join"])
        self.arrive(backend, part(flow, 1), expires=LIVES)
        assert backend.arrived(flow, 0) == [b"v0", b"v1"]
        self.finish(backend, flow)

    def test_a_write_that_asks_for_less_does_not_shorten_its_life(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2, expires=LIVES)
        self.arrive(backend, part(flow, 0), expires=SHORT)
        backend.begin_flow(flow, {0: b"node"}, {}, expires=SHORT)
        self.pass_time(SHORT * 2)
        (over,) = self.arrive(backend, part(flow, 1), expires=SHORT)
        assert over is not None
        self.pass_time(SHORT * 2)
        assert (backend.arrived(flow, 0), backend.nodes([(flow, 0)])) == ([b"v0", b"v1"], [b"node"])
        self.finish(backend, flow)

    def test_a_flow_lives_on_without_anything_new(self, backend: ResultBackend, flow: str) -> None:
        backend.begin_flow(flow, {0: b"node"}, {0: (1, b"join")}, expires=SHORT)
        backend.begin_flow(flow, {}, {}, expires=LIVES)
        self.pass_time(SHORT * 2)
        backend.begin_flow(flow + "x", {}, {}, expires=LIVES)  # which there is not
        assert backend.nodes([(flow, 0), (flow + "x", 0)]) == [b"node", None]
        assert backend.progress(flow)[0].size == 1
        assert backend.node_numbers(flow + "x") == []
        backend.forget_flows([flow + "x"])

    def test_a_flow_may_live_for_ever(self, backend: ResultBackend, flow: str) -> None:
        self.begin(backend, flow, 2, expires=SHORT)
        self.arrive(backend, part(flow, 0), expires=None)
        self.arrive(backend, part(flow, 1), expires=SHORT)
        self.pass_time(SHORT * 2)
        backend.prune()
        assert backend.arrived(flow, 0) == [b"v0", b"v1"]
        self.finish(backend, flow)

    def test_what_is_forgotten_is_gone_and_may_be_begun_again(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        backend.begin_flow(flow, {0: b"old"}, {0: (2, b"old")}, expires=LIVES)
        self.arrive(backend, part(flow, 0))
        assert backend.grow(flow, 0, 1, key="a") == 2
        other.forget_flows([flow])
        assert (backend.nodes([(flow, 0)]), backend.progress(flow)) == ([None], {})
        backend.begin_flow(flow, {}, {0: (2, b"new")}, expires=LIVES)
        assert backend.grow(flow, 0, 2, key="a") == 2
        assert backend.progress(flow)[0] == JoinProgress(size=4, done=0, failed=None, sent=False)

    def test_pruning_deletes_what_has_expired_and_nothing_else(self, backend: ResultBackend, flow: str) -> None:
        for each, expires in ((flow, SHORT), (flow + "x", LIVES)):
            backend.begin_flow(each, {0: b"node"}, {0: (2, b"join")}, expires=expires)
            self.arrive(backend, part(each, 0), expires=expires)
            backend.bind([(each, "copy")], expires=expires)
            backend.save_group(each, GROUP, expires=expires)
        self.pass_time(SHORT * 2)
        assert backend.prune() >= 0
        assert backend.prune() == 0
        assert backend.nodes([(flow, 0), (flow + "x", 0)]) == [None, b"node"]
        assert backend.progress(flow + "x")[0].done == 1
        assert backend.bind([(flow, "other"), (flow + "x", "other")], expires=LIVES) == [True, False]
        assert [backend.saved_group(each) for each in (flow, flow + "x")] == [None, GROUP]


class Binding(FlowSuite):
    """Of two copies of a message one starts; and documents of groups."""

    def test_the_copy_that_starts_first_is_the_only_one(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        assert backend.bind([(flow, "a"), (flow + "x", "b")], expires=LIVES) == [True, True]
        assert other.bind([(flow, "b"), (flow + "x", "b"), (flow, "a")], expires=LIVES) == [False, True, True]
        assert backend.bind([], expires=LIVES) == []

    def test_two_copies_in_one_batch_are_bound_in_their_order(self, backend: ResultBackend, flow: str) -> None:
        assert backend.bind([(flow, "a"), (flow, "b"), (flow, "a")], expires=LIVES) == [True, False, True]

    def test_of_copies_that_start_at_one_moment_one_is_bound(self, backend: ResultBackend, other: ResultBackend, flow: str) -> None:
        ids = [f"{flow}-{number}" for number in range(10)]

        def start(each: ResultBackend, copy: str) -> list[bool]:
            return each.bind([(id, copy) for id in (ids if copy < "5" else ids[::-1])], expires=LIVES)  # noqa: A001

        done = at_once([lambda n=n: start([backend, other][n % 2], str(n)) for n in range(8)])  # type: ignore[misc]
        straight = [flags if n < 5 else flags[::-1] for n, flags in enumerate(done)]  # type: ignore[index]
        assert [sum(each[number] for each in straight) for number in range(10)] == [1] * 10  # type: ignore[index]

    def test_a_binding_expires_and_the_copy_that_is_bound_renews_it(self, backend: ResultBackend, flow: str) -> None:
        assert backend.bind([(flow, "a"), (flow + "x", "a")], expires=0.6) == [True, True]
        self.pass_time(0.4)
        assert backend.bind([(flow, "a"), (flow + "x", "b")], expires=0.6) == [True, False]
        self.pass_time(0.4)
        assert backend.bind([(flow, "b"), (flow + "x", "b")], expires=0.6) == [False, True]

    def test_a_binding_may_be_for_ever(self, backend: ResultBackend, flow: str) -> None:
        assert backend.bind([(flow, "a")], expires=None) == [True]
        self.pass_time(SHORT)
        backend.prune()
        assert backend.bind([(flow, "b")], expires=SHORT) == [False]
        assert backend.bind([(flow, "a")], expires=SHORT) == [True]  # and so ends

    def test_the_document_of_a_group_is_read_by_others_until_it_is_deleted(
        self, backend: ResultBackend, other: ResultBackend, flow: str
    ) -> None:
        assert backend.saved_group(flow) is None
        document = b'{"result": [["%b", null], [[["a", null], null]]]}' % flow.encode()
        backend.save_group(flow, document, expires=LIVES)
        assert other.saved_group(flow) == document
        document = document.replace(b'"a"', b'"b"')
        backend.save_group(flow, document, expires=LIVES)
        assert other.saved_group(flow) == document
        other.delete_group(flow)
        other.delete_group(flow)
        assert backend.saved_group(flow) is None

    def test_the_document_of_a_group_expires(self, backend: ResultBackend, flow: str) -> None:
        document = b'{"result": [["%b", null], []]}' % flow.encode()
        backend.save_group(flow, document, expires=SHORT)
        backend.save_group(flow + "x", document, expires=None)
        self.pass_time(SHORT * 2)
        assert [backend.saved_group(flow), backend.saved_group(flow + "x")] == [None, document]
        backend.delete_group(flow + "x")

    def test_the_result_of_a_task_is_apart_from_all_this(self, backend: ResultBackend, flow: str) -> None:
        backend.begin_flow(flow, {0: b"node"}, {}, expires=LIVES)
        backend.bind([(flow, "a")], expires=LIVES)
        backend.save_group(flow, b'{"result": [["%b", null], []]}' % flow.encode(), expires=LIVES)
        assert backend.get([flow]) == [None]
        backend.forget([flow])
        assert backend.nodes([(flow, 0)]) == [b"node"]
        assert backend.saved_group(flow) is not None


class FlowConformance(Writing, Arriving, Answering, Growing, Living, Binding):
    """Inherit it, and give `make_backend`; and `pass_time` if the time comes from a fake clock."""
