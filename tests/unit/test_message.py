"""The envelope, its glance, its payload and its marks."""

import base64
import json
import pickle
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.exceptions import ContentDisallowed, DecodeError, EncodeError, InvalidTaskError
from umbel.wire import message
from umbel.wire.marks import mark, marks
from umbel.wire.message import Message, decode, encode, glance, payload, unwrap
from umbel.wire.serializers import content_types

JSON = content_types(["json"])
ALL = content_types(["json", "msgpack", "yaml", "pickle"])
REFUSALS = (DecodeError, ContentDisallowed, InvalidTaskError)
PROPERTIES = {"delivery_info": {"exchange": "", "routing_key": "q"}, "priority": 3, "body_encoding": "base64", "delivery_tag": "t"}


def task_message(body: bytes = b"[[1], {}, {}]", **headers) -> Message:
    return Message(headers={"task": "app.add", "id": "i1", "retries": 0, **headers}, properties=PROPERTIES, body=body)


def envelope(**fields) -> bytes:
    made = {"body": "W1tdLCB7fSwgbnVsbF0=", "headers": {"task": "t", "id": "i"}, "properties": {"body_encoding": "base64"}}
    return json.dumps({**made, **fields}).encode()


def v1(**fields) -> bytes:
    body = json.dumps({"task": "t", "id": "i", "args": [1], "kwargs": {"a": 2}, **fields}).encode()
    return envelope(headers={}, body=base64.b64encode(body).decode())


def test_an_encoded_message_decodes_to_itself():
    original = task_message()
    assert decode(encode(original)) == original


def test_a_body_is_always_written_in_base64_and_says_so():
    written = json.loads(encode(Message(properties={"body_encoding": "utf-8", "delivery_tag": "t"}, body=b"\xff")))
    assert written["body"] == "/w=="
    assert written["properties"] == {"body_encoding": "base64", "delivery_tag": "t"}


def test_a_header_that_is_not_json_cannot_be_sent():
    with pytest.raises(EncodeError):
        encode(task_message(custom=object()))


def test_a_header_may_hold_a_marked_value():
    aware = message.loads('{"__type__": "decimal", "__value__": "1.10"}')
    assert decode(encode(task_message(price=aware))).headers["price"] == aware


def test_an_envelope_without_a_task_can_be_unwrapped_but_not_decoded():
    raw = envelope(headers={"hostname": "w1"}, body="e30=")
    assert unwrap(raw).headers == {"hostname": "w1"}
    with pytest.raises(DecodeError, match="names no task"):
        decode(raw)


def test_python_json_that_msgspec_refuses_is_read():
    raw = encode(task_message(ratio=float("inf"), text="\ud800"))
    assert decode(raw).headers["ratio"] == float("inf")
    assert glance(raw).task == "app.add"
    assert marks(mark(raw, attempts=1, suspect=False)) == (1, False)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "is not JSON"),
        (b"[]", "envelope"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "too deeply"),
        (b'{"headers": {"a":' + b'{"a":' * 100_000, "too deeply"),
        (b"9" * 5000, "not JSON"),
        (envelope(body=5), "Expected `str`"),
        (envelope(headers=[]), r"\$\.headers"),
        (envelope(properties="x"), r"\$\.properties"),
        (envelope(body="a"), "is not base64"),
        (envelope(body="é"), "is not base64"),
        (envelope(properties={"body_encoding": "rot13"}), "unknown body_encoding, 'rot13'"),
        (envelope(properties={"body_encoding": ["base64"]}), "unknown body_encoding"),
        (b'{"body": "\\ud800", "headers": {"task": "t", "id": "i"}}', "is not text"),
        (envelope(headers={"task": "t"}), "'id'"),
        (envelope(headers={"task": "t", "id": 5}), "'id'"),
        (envelope(headers={"task": ["t"], "id": "i"}), "'task'"),
        (envelope(headers={"task": "t", "id": "i", "a": {"__type__": "x", "__value__": 1}}), "Unsupported type 'x'"),
        (v1(id=None), "protocol 1"),
        (v1(task=5), "names no task"),
        (v1(args=["\ud800"] * 2).replace(b'"body": "ey', b'"body": "!'), "base64|not JSON|names no"),
    ],
)
def test_an_undecodable_message_is_refused_with_its_reason(raw, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(raw)


def test_a_glance_says_what_decides_where_and_whether_a_task_runs():
    seen = glance(encode(task_message(retries=2, eta="2030-01-01T00:00:00", expires=None, group="g", ignore_result=True)))
    assert (seen.task, seen.id, seen.retries, seen.eta, seen.expires) == ("app.add", "i1", 2, "2030-01-01T00:00:00", None)
    assert (seen.priority, seen.ignore_result, seen.group, seen.routing_key) == (3, True, "g", "q")


@pytest.mark.parametrize("sent", [None, 7, 7.5])
def test_a_glance_says_when_a_message_was_sent_if_its_producer_said_so(sent):
    assert glance(encode(task_message(umbel_sent=sent))).sent == sent
    assert glance(encode(task_message())).sent is None


def test_a_glance_fills_in_what_foreign_clients_leave_out():
    seen = glance(envelope(headers={"task": "t", "id": "i", "retries": None}, properties={"priority": None, "body_encoding": "base64"}))
    assert (seen.retries, seen.eta, seen.priority, seen.ignore_result, seen.routing_key) == (0, None, 0, None, "")


@pytest.mark.parametrize(
    "headers",
    [{"retries": "x"}, {"eta": 5}, {"expires": []}, {"ignore_result": "no"}, {"id": ""}, {"task": 1}, {"umbel_sent": "now"}],
)
def test_a_glance_refuses_headers_of_a_wrong_type(headers):
    with pytest.raises(DecodeError):
        glance(envelope(headers={"task": "t", "id": "i", **headers}))


@pytest.mark.parametrize("separators", [None, (",", ":")])
def test_a_glance_of_protocol_1_looks_into_the_body(separators):
    raw = json.dumps(json.loads(v1(eta="2030-01-01T00:00:00", retries=4, taskset="g")), separators=separators).encode()
    seen = glance(raw)
    assert (seen.task, seen.id, seen.retries, seen.eta, seen.group) == ("t", "i", 4, "2030-01-01T00:00:00", "g")


def test_protocol_1_becomes_protocol_2():
    decoded = decode(v1(callbacks=[{"task": "next"}], timelimit=[30, 20]))
    assert decoded.headers["task"] == "t"
    assert decoded.headers["timelimit"] == [30, 20]
    embed = {"callbacks": [{"task": "next"}], "errbacks": None, "chain": None, "chord": None}
    assert payload(decoded, JSON) == ([1], {"a": 2}, embed)
    assert decode(encode(decoded)) == decoded


def test_protocol_1_may_be_compressed():
    body = zlib.compress(b'{"task": "t", "id": "i", "args": [1]}')
    raw = envelope(headers={"compression": "application/x-gzip"}, body=base64.b64encode(body).decode())
    assert payload(decode(raw), JSON)[0] == [1]


def test_protocol_1_in_a_pickle_is_not_looked_into():
    body = base64.b64encode(pickle.dumps({"task": "t", "id": "i"})).decode()
    with pytest.raises(ContentDisallowed):
        decode(envelope(**{"headers": {}, "body": body, "content-type": "application/x-python-serialize"}))


def test_where_headers_and_body_disagree_the_headers_decide():
    raw = v1(retries=1, eta="2030-01-01T00:00:00")
    mixed = {**json.loads(raw), "headers": {"task": "t2", "id": "i2", "retries": 7}}
    decoded = decode(json.dumps(mixed).encode())
    assert (decoded.headers["task"], decoded.headers["id"], decoded.headers["retries"]) == ("t2", "i2", 7)
    assert decoded.headers["eta"] == glance(json.dumps(mixed).encode()).eta == "2030-01-01T00:00:00"
    assert payload(decoded, JSON)[:2] == ([1], {"a": 2})


def test_a_compressed_body_of_protocol_1_below_headers_of_protocol_2_is_read():
    body = zlib.compress(b'{"args": [1], "kwargs": {"a": 2}}')
    assert payload(task_message(body, compression="zlib"), JSON)[:2] == ([1], {"a": 2})


def test_a_pickled_tuple_of_arguments_comes_as_a_list():
    sent = Message(
        headers={}, body=pickle.dumps(((1, 2), {}, None)), content_type="application/x-python-serialize", content_encoding="binary"
    )
    assert payload(sent, ALL) == ([1, 2], {}, {})
    with pytest.raises(ContentDisallowed, match="pickle"):
        payload(sent, JSON)


@pytest.mark.parametrize(
    "body",
    [
        b"5",
        b"null",
        b'"abc"',
        b"[1]",
        b"[[], {}, {}, {}]",
        b'{"a": 1, "b": 2, "c": 3}',
        b"[5, {}, {}]",
        b'["ab", {}, {}]',
        b"[[], [], {}]",
        b"[[], null, {}]",
        b"[[], {}, []]",
        b"[[], {}, 5]",
        b'[[], {}, {"callbacks": 5}]',
        b'[[], {}, {"chain": {"task": "t"}}]',
        b'[[], {}, {"chain": [5]}]',
        b'[[], {}, {"chord": [1]}]',
    ],
)
def test_a_body_that_is_not_arguments_is_an_invalid_task(body):
    with pytest.raises(InvalidTaskError, match="must"):
        payload(task_message(body), JSON)


def test_keyword_names_must_be_text():
    sent = Message(body=pickle.dumps(((), {1: 2}, None)), content_type="application/x-python-serialize")
    with pytest.raises(InvalidTaskError, match="text keys"):
        payload(sent, ALL)


def test_a_compression_that_is_no_text_is_refused():
    with pytest.raises(DecodeError, match="compression"):
        payload(task_message(compression=5), JSON)


def test_a_fresh_message_has_no_marks():
    assert marks(encode(task_message())) == (0, False)


@pytest.mark.parametrize(
    "raw", [encode(task_message()), v1(), envelope(properties=None), envelope(headers={"a": {"__type__": "x", "__value__": 1}})]
)
@pytest.mark.parametrize("attempts", [0, 2])
@pytest.mark.parametrize("suspect", [False, True])
def test_marks_are_read_as_they_were_written(raw, attempts, suspect):
    once = mark(raw, attempts=1, suspect=True)
    marked = mark(once, attempts=attempts, suspect=suspect)
    assert marks(marked) == (attempts, suspect)
    written = json.loads(marked)
    assert written["headers"]["redelivered"] is True
    assert written["properties"]["delivery_info"]["redelivered"] is True
    assert ("umbel_attempts" in written["headers"], "umbel_suspect" in written["headers"]) == (attempts > 0, suspect)


def test_a_marked_message_carries_the_same_task():
    raw = encode(task_message())
    again = decode(mark(raw, attempts=1, suspect=True))
    assert again.body == decode(raw).body
    assert decode(mark(v1(), attempts=1, suspect=True)).headers["task"] == "t"


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"[]", b"\xff", b"[" * 100_000, envelope(headers=[1]), envelope(properties="x")])
def test_what_cannot_be_read_is_not_changed_by_marking(raw):
    assert mark(raw, attempts=1, suspect=True) == raw
    assert marks(raw) == (0, False)


@pytest.mark.parametrize("value", ["x", -1, None, [], 1.5])
def test_a_mark_of_a_wrong_type_counts_as_none(value):
    assert marks(envelope(headers={"umbel_attempts": value, "umbel_suspect": True})) == (0, False)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("base64") | st.just("application/json"),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["__type__", "__value__"]), inner, max_size=4)
    ),
    max_leaves=8,
)
bodies = anything | anything.map(lambda value: base64.b64encode(json.dumps(value).encode()).decode())
header_maps = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("task", "id", "retries", "eta", "expires", "group", "compression", "umbel_attempts"), anything),
) | st.fixed_dictionaries({"task": st.just("t"), "id": st.just("i")}, optional={"retries": anything, "compression": anything})
envelopes = st.fixed_dictionaries(
    {"body": bodies},
    optional={
        "headers": header_maps | anything,
        "properties": st.fixed_dictionaries({}, optional={"body_encoding": anything, "priority": anything, "delivery_info": anything})
        | anything,
        "content-type": st.sampled_from(sorted(JSON | {"text/plain", "application/x-msgpack", "application/x-yaml"})) | anything,
        "content-encoding": st.sampled_from(["utf-8", "binary", "rot13"]) | anything,
    },
).map(lambda value: json.dumps(value).encode())


@given(st.binary() | envelopes)
def test_hostile_bytes_raise_nothing_but_refusals(raw):
    with suppress(*REFUSALS):
        glance(raw)
    with suppress(*REFUSALS):
        payload(decode(raw), ALL - {"application/x-python-serialize"})
    attempts, suspect = marks(raw)
    assert attempts >= 0
    assert suspect in (True, False)
    assert isinstance(mark(raw, attempts=1, suspect=True), bytes)


@given(envelopes)
def test_what_can_be_decoded_can_be_sent_again(raw):
    with suppress(*REFUSALS):
        decoded = decode(raw)
        assert decode(encode(decoded)).headers.keys() == decoded.headers.keys()


@pytest.mark.parametrize(("given", "read"), [(2**63 + 5, 255), (10**40, 255), (-1, 0), (9, 9), (None, None)])
def test_a_priority_is_read_as_the_nearest_that_there_is(given, read):
    properties = {**PROPERTIES, "priority": given}
    raw = encode(Message(headers={"task": "app.add", "id": "i1"}, properties=properties, body=b"[[1], {}, {}]"))
    assert decode(raw).properties["priority"] == read
    assert glance(raw).priority == (read or 0)


def nested(size: int) -> bytes:
    return b"[" + b"[]," * (size // 3) + b"[]]"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("hybrid", [False, True])
def test_an_old_message_that_is_large_to_read_is_refused_by_the_parent_and_read_by_the_child(compressed, hybrid):
    body = b'{"task": "t", "id": "i", "args": ' + nested(message.LARGEST_GLANCE) + b"}"
    headers = {"task": "t", "id": "i"} if hybrid else {}
    if compressed and not hybrid:
        body, headers["compression"] = zlib.compress(body), "application/x-gzip"
    raw = envelope(headers=headers, body=base64.b64encode(body).decode())
    with pytest.raises(DecodeError, match="1048576"):
        glance(raw)
    assert decode(raw).headers["task"] == "t"


@pytest.mark.parametrize("part", ["headers", "properties"])
def test_the_parent_does_not_read_headers_of_many_megabytes(part):
    large = json.loads(nested(message.LARGEST_GLANCE))
    fields = {"headers": {"task": "t", "id": "i"}, "properties": {"body_encoding": "base64"}}
    fields[part]["stamps"] = {"x": large}
    with pytest.raises(DecodeError, match="Its headers and properties have"):
        glance(envelope(**fields))


def test_large_arguments_are_no_concern_of_the_parent():
    body = base64.b64encode(b"[[" + nested(2 * message.LARGEST_GLANCE) + b"], {}, null]").decode()
    assert glance(envelope(body=body)).task == "t"
