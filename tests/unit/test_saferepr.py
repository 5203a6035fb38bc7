"""A repr that is short and never raises."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.wire.saferepr import saferepr

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.frozensets(st.integers(), max_size=4)
    ),
    max_leaves=20,
)


class Silent:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        (2, 3),
        (1,),
        (),
        {},
        {"a": None, "b": 1.5},
        [[1, "é"], {"k": (True,)}],
        {1},
        frozenset({1}),
        set(),
        b"\xff",
        "it's",
        date(2024, 5, 6),
        list(range(40)),
    ],
)
def test_a_small_value_looks_as_in_python(value):
    assert saferepr(value) == repr(value)


@given(anything, st.integers(min_value=3, max_value=80), st.integers(min_value=0, max_value=5))
def test_the_text_is_never_longer_than_asked_for(value, maxlen, maxlevels):
    assert len(saferepr(value, maxlen, maxlevels)) <= maxlen


@given(anything)
def test_what_has_room_looks_as_in_python(value):
    assert saferepr(value, 100_000, 100) == repr(value)


def test_a_long_text_is_cut():
    text = saferepr(("x" * 5000,))
    assert len(text) <= 1024
    assert text.startswith("('xxx")
    assert "xxx..." in text


def test_a_long_list_is_cut():
    assert saferepr(list(range(100)), 20) == "[0, 1, 2, 3, 4, 5..."


def test_containers_deeper_than_the_limit_are_left_out():
    assert saferepr([[[[1]], {"a": {"b": 1}}]]) == "[[[[...]], {'a': {...}}]]"
    assert saferepr((1, [2]), maxlevels=1) == "(1, [...])"


def test_a_value_that_contains_itself_ends():
    value: list[object] = []
    value.append(value)
    assert saferepr(value) == "[[[[...]]]]"


def test_a_huge_value_costs_no_more_than_it_shows():
    seen = []

    class Counted:
        def __repr__(self):
            seen.append(1)
            return "counted"

    assert saferepr([Counted()] * 1_000_000).endswith("...")
    assert len(seen) < 1024


def test_a_repr_that_raises_is_told():
    assert "Silent" in saferepr((Silent(),))
    assert "its repr raised RuntimeError" in saferepr(Silent())


def test_an_integer_too_long_for_python_to_print_is_told():
    assert "its repr raised ValueError" in saferepr([10**5000])
