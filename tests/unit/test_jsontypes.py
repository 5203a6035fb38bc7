"""JSON with kombu's type markers."""

import json
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.exceptions import DecodeError, EncodeError
from umbel.wire import jsontypes
from umbel.wire.jsontypes import dumps, loads

MARKED = [
    (datetime(2024, 5, 6, 7, 8, 9, 123456), '{"__type__": "datetime", "__value__": "2024-05-06T07:08:09.123456"}'),
    (datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), '{"__type__": "datetime", "__value__": "2024-05-06T07:08:09+00:00"}'),
    (date(2024, 5, 6), '{"__type__": "date", "__value__": "2024-05-06"}'),
    (time(7, 8, 9, 5), '{"__type__": "time", "__value__": "07:08:09.000005"}'),
    (Decimal("1.10"), '{"__type__": "decimal", "__value__": "1.10"}'),
    (UUID(int=5), '{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}}'),
    (b"text", '{"__type__": "bytes", "__value__": "text"}'),
    (b"\xff\xfe", '{"__type__": "base64", "__value__": "//4="}'),
]

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
extended = st.recursive(
    plain | st.datetimes() | st.dates() | st.times() | st.decimals(allow_nan=False) | st.uuids() | st.binary(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(jsontypes, "_ENCODERS", jsontypes._ENCODERS.copy())
    monkeypatch.setattr(jsontypes, "_DECODERS", jsontypes._DECODERS.copy())


@pytest.mark.parametrize(("value", "text"), MARKED)
def test_a_marked_value_is_written_as_kombu_writes_it_and_comes_back(value, text):
    assert dumps(value) == text
    assert loads(text) == value
    assert type(loads(text)) is type(value)


@given(plain)
def test_plain_values_are_written_as_pythons_json_does(value):
    assert dumps(value) == json.dumps(value)


@given(extended)
def test_what_is_written_comes_back(value):
    text = dumps(value)
    assert loads(text) == loads(text.encode()) == value


def test_tuples_come_back_as_lists_and_keys_as_text():
    assert loads(dumps({1: (2, 3), None: ()})) == {"1": [2, 3], "null": []}


def test_subclasses_are_written_as_what_they_derive_from():
    class Shout(str):
        __slots__ = ()

    class Stamp(datetime):
        pass

    assert dumps([OrderedDict(a=1), Shout("x")]) == '[{"a": 1}, "x"]'
    assert dumps(Stamp(2024, 5, 6)) == '{"__type__": "datetime", "__value__": "2024-05-06T00:00:00"}'


def test_an_object_may_say_its_own_json():
    class Order:
        def __json__(self):
            return {"order": 7}

    assert dumps([Order()]) == '[{"order": 7}]'


def test_a_lazy_string_of_django_is_written_as_text():
    lazystr = pytest.importorskip("django.utils.functional").lazystr
    assert dumps({"a": lazystr("b")}) == '{"a": "b"}'


def test_nan_and_infinity_are_written_bare_and_read():
    text = dumps([float("nan"), float("inf"), float("-inf")])
    assert text == "[NaN, Infinity, -Infinity]"
    assert repr(loads(text.encode())) == "[nan, inf, -inf]"


def test_large_integers_and_lone_surrogates_keep_their_value():
    value = [2**64, -(2**200), "\ud800"]
    assert loads(dumps(value).encode()) == value


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, [b"", {"a": Enum("Color", "RED")["RED"]}], {(1, 2): 3}])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(EncodeError):
        dumps(value)


def test_the_refusal_names_the_type_the_value_and_the_ways_out():
    with pytest.raises(EncodeError, match=r"builtins\.set is not a JSON type: \{1\}.*__json__.*register_type"):
        dumps([{1}])


def test_a_value_that_contains_itself_is_refused():
    value: list[object] = []
    value.append(value)
    with pytest.raises(EncodeError, match="contains itself"):
        dumps(value)


def test_a_registered_type_comes_back(registry):
    class Point:
        def __init__(self, x, y):
            self.x, self.y = x, y

    class Pixel(Point):
        pass

    jsontypes.register_type(Point, "point", lambda point: [point.x, point.y], lambda pair: Point(*pair))
    assert dumps(Pixel(1, 2)) == '{"__type__": "point", "__value__": [1, 2]}'
    assert vars(loads(dumps([Point(1, 2)]))[0]) == {"x": 1, "y": 2}


def test_a_type_registered_without_a_marker_is_written_bare(registry):
    jsontypes.register_type(complex, None, lambda value: [value.real, value.imag])
    assert dumps(1j) == "[0.0, 1.0]"


def test_an_object_with_more_keys_than_a_marker_is_a_plain_object():
    value = {"__type__": "datetime", "__value__": 1, "more": 2}
    assert loads(dumps(value)) == value


def test_parsing_leaves_marked_values_alone():
    assert jsontypes.parse('{"__type__": "x", "__value__": 1}') == {"__type__": "x", "__value__": 1}


@pytest.mark.parametrize(
    "text",
    [
        '{"__type__": "nobody", "__value__": 1}',
        '{"__type__": ["list"], "__value__": 1}',
        '{"__type__": "datetime", "__value__": 5}',
        '{"__type__": "datetime", "__value__": "yesterday"}',
        '{"__type__": "uuid", "__value__": {"int": 5}}',
        '{"__type__": "uuid", "__value__": "x"}',
        '{"__type__": "decimal", "__value__": "x"}',
        '{"__type__": "base64", "__value__": "x"}',
        '{"__type__": "bytes", "__value__": "\\ud800"}',
        '{"__type__": "bytes", "__value__": null}',
        '{"__type__": ',
        "",
        "[1,",
        "9" * 5000,
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"__type__":' * 200_000,
    ],
)
def test_bad_json_is_only_ever_a_decode_error(text):
    with pytest.raises(DecodeError):
        loads(text)
    with pytest.raises(DecodeError):
        loads(text.encode())


@given(st.binary() | st.text().map(str.encode) | st.binary().map(lambda tail: b'{"__type__": "' + tail))
def test_random_bytes_are_read_or_refused(data):
    with suppress(DecodeError):
        loads(data)
