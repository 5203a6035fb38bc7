"""A canvas as nodes and joins."""

from typing import NamedTuple

import pytest

from umbel import Umbel, chain, chord, group
from umbel.canvas.compile import Compiler, Start
from umbel.canvas.spread import spread
from umbel.flow import Follow, Join, Node, Part


@pytest.fixture
def app():
    with Umbel("canvas", broker="memory://compile", backend="memory://compile", set_as_current=False) as app:
        yield app


@pytest.fixture
def t(app):
    @app.task(name="t", typing=False)
    def t(*args):
        return args

    return t


class Compiled(NamedTuple):
    starts: list[Start]
    nodes: dict[int, Node]
    joins: dict[int, Join]


def compiled(sig):
    copied = sig.clone()
    spread(copied)
    copied.freeze()
    compiler = Compiler("flow")
    return Compiled(list(compiler.starts(copied)), compiler.nodes, compiler.joins)


def test_a_chain_starts_with_its_first_step_and_each_step_names_the_next(t):
    found = compiled(chain(t.s(1), t.s(2), t.s(3)))
    (start,) = found.starts
    assert start.node.signature["args"] == [1]
    second = found.nodes[start.node.follow.steps[0]]
    third = found.nodes[second.follow.steps[0]]
    assert (second.signature["args"], third.signature["args"], third.follow.steps) == ([2], [3], ())


def test_members_of_a_header_with_nothing_but_the_join_behind_them_have_no_nodes(t):
    found = compiled(chord([t.s(i) for i in range(1000)], t.s()))
    assert len(found.nodes) == 1
    assert [start.place.part.position for start in found.starts] == list(range(1000))
    assert [join.size for join in found.joins.values()] == [1000]


def test_a_group_with_nothing_behind_it_needs_no_flow(t):
    found = compiled(group(t.s(i) for i in range(10)))
    assert (found.nodes, found.joins) == ({}, {})
    assert all(start.place is None for start in found.starts)


def test_groups_in_a_header_are_flattened_in_order(t):
    found = compiled(chord([t.s(0), group(t.s(1), group(t.s(2), t.s(3))), t.s(4)], t.s()))
    assert [start.node.signature["args"] for start in found.starts] == [[0], [1], [2], [3], [4]]
    assert [start.place.part.position for start in found.starts] == [0, 1, 2, 3, 4]


def test_an_empty_header_starts_the_body_with_an_empty_list(t):
    found = compiled(chain(t.s(1), chord([], t.s(2))))
    (start,) = found.starts
    body = found.nodes[start.node.follow.steps[0]]
    assert body.signature["args"] == [[], 2]
    assert body.signature["immutable"]
    assert found.joins == {}


def test_a_member_that_ends_with_a_group_has_one_part_and_a_join_of_its_own(t):
    found = compiled(chord([t.s(1) | group(t.s(2), t.s(3)), t.s(4)], t.s()))
    outer, inner = sorted(found.joins.items(), key=lambda pair: pair[1].follow.parts)
    assert (outer[1].size, inner[1].size) == (2, 2)
    assert inner[1].follow == Follow(parts=(Part(outer[0], 0),))
    assert [node.follow.parts for node in found.nodes.values() if node.follow.parts] == [(Part(inner[0], 0),), (Part(inner[0], 1),)]
    assert found.starts[1].place.part == Part(outer[0], 1)


def test_callbacks_are_nodes_and_errbacks_are_signatures(t):
    sig = t.s(1)
    sig.link(t.s(2) | t.s(3))
    sig.on_error(t.s("failed"))
    (start,) = compiled(sig).starts
    assert len(start.node.follow.links) == 1
    assert [errback["args"] for errback in start.node.follow.errbacks] == [["failed"]]
