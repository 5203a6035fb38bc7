"""Messages and results that Celery 5.7 wrote, and messages shaped like those of clients in other languages."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from umbel.exceptions import ContentDisallowed, DecodeError, InvalidTaskError
from umbel.wire import failures, jsontypes, marks, message, serializers

FIXTURES = Path(__file__).parent / "fixtures"
PRODUCED: dict[str, list[str]] = json.loads((FIXTURES / "produced.json").read_text())
RESULTS: dict[str, list[Any]] = json.loads((FIXTURES / "results.json").read_text())
FOREIGN: dict[str, str] = json.loads((FIXTURES / "foreign.json").read_text())
RESTORED: dict[str, str] = json.loads((FIXTURES / "restored.json").read_text())

JSON = serializers.content_types(["json"])
ALL = serializers.content_types(["json", "pickle", "yaml", "msgpack"])
EMPTY_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

produced = [pytest.param(raw.encode(), id=f"{case}-{n}") for case, raws in PRODUCED.items() for n, raw in enumerate(raws)]
results = [pytest.param(raw, id=f"{case}-{n}") for case, raws in RESULTS.items() for n, raw in enumerate(raws)]


def readable(raw: bytes) -> bool:
    return b"application/x-brotli" not in raw


@pytest.mark.parametrize("raw", produced)
def test_an_envelope_of_celery_is_written_again_byte_for_byte(raw):
    assert message.encode(message.unwrap(raw)) == raw


@pytest.mark.parametrize("raw", produced)
def test_a_glance_sees_what_decoding_sees(raw):
    seen, decoded = message.glance(raw), message.decode(raw)
    for name in ("task", "id", "retries", "eta", "expires", "group"):
        assert getattr(seen, name) == decoded.headers[name]
    assert seen.ignore_result == decoded.headers.get("ignore_result")
    assert seen.priority == decoded.properties["priority"]
    assert seen.routing_key == decoded.properties["delivery_info"]["routing_key"]


@pytest.mark.parametrize("raw", [raw for raw in produced if readable(raw.values[0])])
def test_the_arguments_of_a_celery_message_are_read(raw):
    args, kwargs, embed = message.payload(message.decode(raw), ALL)
    assert isinstance(args, list)
    assert isinstance(kwargs, dict)
    assert set(EMPTY_EMBED) <= set(embed)


@pytest.mark.parametrize("raw", [raw for raw in produced if b'"compression"' not in raw.values[0] and b"python-s" not in raw.values[0]])
def test_a_body_of_celery_is_written_again_byte_for_byte(raw):
    unwrapped = message.unwrap(raw)
    name = {"application/json": "json", "application/x-msgpack": "msgpack", "application/x-yaml": "yaml"}[unwrapped.content_type]
    value = serializers.decode(unwrapped.body, unwrapped.content_type, unwrapped.content_encoding, ALL)
    assert serializers.encode(name, value) == (unwrapped.content_type, unwrapped.content_encoding, unwrapped.body)


def test_a_pickled_body_of_celery_is_written_again_byte_for_byte():
    unwrapped = message.unwrap(PRODUCED["serializer_pickle"][0].encode())
    value = serializers.decode(unwrapped.body, unwrapped.content_type, unwrapped.content_encoding, ALL)
    assert serializers.encode("pickle", value) == (unwrapped.content_type, unwrapped.content_encoding, unwrapped.body)


def test_the_simple_message_says_add_2_3():
    raw = PRODUCED["simple"][0].encode()
    assert message.glance(raw).task == "capapp.add"
    assert message.payload(message.decode(raw), JSON) == ([2, 3], {}, EMPTY_EMBED)


@pytest.mark.parametrize("case", ["compression_zlib", "compression_gzip", "compression_bzip2", "compression_lzma", "compression_zstd"])
def test_what_celery_compressed_is_unpacked(case):
    assert message.payload(message.decode(PRODUCED[case][0].encode()), JSON) == ([1, 2], {}, EMPTY_EMBED)


def test_what_celery_compressed_with_brotli_is_unpacked_where_brotli_is_installed():
    pytest.importorskip("brotli")
    assert message.payload(message.decode(PRODUCED["compression_brotli"][0].encode()), JSON) == ([1, 2], {}, EMPTY_EMBED)
    mime, packed = serializers.compress(bytes(1_000_000), "brotli")
    assert serializers.decompress(packed, mime, limit=1_000_000) == bytes(1_000_000)
    with pytest.raises(DecodeError, match="unpacks to more"):
        serializers.decompress(packed, mime, limit=999_999)
    with pytest.raises(DecodeError, match="too early"):
        serializers.decompress(packed[:-1], mime)


def test_celerys_extended_json_types_are_revived():
    args, _, _ = message.payload(message.decode(PRODUCED["json_types"][0].encode()), JSON)
    names = [type(arg).__name__ for arg in args]
    assert " ".join(names) == "datetime datetime date time Decimal UUID bytes bytes list dict float float dict str"


def test_protocol_1_becomes_protocol_2():
    decoded = message.decode(PRODUCED["protocol_v1"][0].encode())
    assert decoded.headers["task"] == "capapp.add"
    args, kwargs, embed = message.payload(decoded, JSON)
    assert (args, kwargs) == ([2, 3], {})
    assert [callback["task"] for callback in embed["callbacks"] or []] == [
        callback["task"] for callback in json.loads(message.unwrap(PRODUCED["protocol_v1"][0].encode()).body)["callbacks"] or []
    ]


def test_a_message_given_back_looks_as_celery_gives_it_back():
    assert marks.mark(RESTORED["taken"].encode(), attempts=0, suspect=False).decode() == RESTORED["given_back"]


@pytest.mark.parametrize("raw", [raw for raw in results if isinstance(raw.values[0], str) and raw.values[0].startswith("{")])
def test_a_result_of_celery_is_written_again_byte_for_byte(raw):
    assert jsontypes.dumps(jsontypes.loads(raw)) == raw


@pytest.mark.parametrize("raw", [raw for raw in results if isinstance(raw.values[0], str) and '"exc_type"' in raw.values[0]])
def test_a_failure_of_celery_is_rebuilt_and_describes_itself_again(raw):
    described = json.loads(raw)["result"]
    assert failures.describe(failures.rebuild(described)) == described


@pytest.mark.parametrize("case", ["conf_result_compression_zlib", "conf_result_compression_zstd"])
def test_a_compressed_result_of_celery_is_unpacked(case):
    _, label, mime, body = base64.b64decode(RESULTS[case][0]["__base64__"]).split(b"\0", 3)
    assert label == b"celery-compressed"
    assert json.loads(serializers.decompress(body, mime.decode()))["status"] == "SUCCESS"


@pytest.mark.parametrize("case", [case for case in FOREIGN if not case.startswith("malformed") and "null_retries" not in case])
def test_a_message_of_a_foreign_client_adds_2_and_3(case):
    raw = FOREIGN[case].encode()
    args, kwargs, embed = message.payload(message.decode(raw), JSON)
    assert sum(args) + sum(kwargs.values()) == 5
    assert not any(embed.values())
    assert message.glance(raw).task == "capapp.add"
    assert message.glance(raw).retries == 0


def test_retries_of_null_count_as_none():
    raw = FOREIGN["rusty_celery_null_retries_and_retry"].encode()
    assert message.decode(raw).headers["retries"] == 0
    assert message.glance(raw).retries == 0


def test_a_foreign_message_is_written_again_in_a_form_that_celery_reads():
    again = json.loads(message.encode(message.decode(FOREIGN["celery_php_redis"].encode())))
    assert again["properties"]["body_encoding"] == "base64"
    assert base64.b64decode(again["body"]) == b"[[2, 3], {}, null]"


@pytest.mark.parametrize(
    ("case", "error", "reason"),
    [
        ("malformed_bad_json_body", DecodeError, "is not JSON"),
        ("malformed_body_not_triple", InvalidTaskError, r"must be \[args, kwargs, embed\]"),
        ("malformed_kwargs_not_mapping", InvalidTaskError, "keyword arguments"),
        ("malformed_missing_id_header", DecodeError, "'id'"),
        ("malformed_no_task", DecodeError, "names no task"),
        ("malformed_raw_text_item", DecodeError, "is not JSON"),
        ("malformed_unknown_content_type", ContentDisallowed, "application/x-foo"),
    ],
)
def test_a_malformed_message_is_refused_with_its_reason(case, error, reason):
    with pytest.raises(error, match=reason):
        message.payload(message.decode(FOREIGN[case].encode()), JSON)
