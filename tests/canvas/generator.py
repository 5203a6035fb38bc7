"""Strategies of hypothesis of *plans* of canvases; `tests.canvas.plans` says what a plan is and what it must come to."""

from __future__ import annotations

from hypothesis import strategies as st
from tests.canvas.plans import is_empty

SIMPLE = ("grow", "grow", "grow", "again", "instead", "fail")
ALL = (*SIMPLE, "grow", "unfold", "unfold_twice", "tire", "fail_instead")


def leaves(kinds=ALL):
    """Single tasks: their kind, and whether they are immutable."""
    return st.tuples(st.sampled_from(kinds), st.booleans())


def canvases(depth=5, kinds=ALL):
    """Plans of canvases that are nested at most *depth* deep."""
    plans = leaves(kinds)
    for _ in range(depth):
        below = plans
        plans = st.one_of(
            leaves(kinds),
            st.tuples(st.just("chain"), st.lists(below, min_size=1, max_size=3).map(tuple)),
            st.tuples(st.just("group"), st.lists(below, min_size=0, max_size=3).map(tuple)),
            st.tuples(st.just("chord"), st.lists(below, min_size=0, max_size=3).map(tuple), below.filter(lambda plan: not is_empty(plan))),
        )
    return plans
