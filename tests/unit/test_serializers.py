"""Serializers, what is accepted, and compression."""

import bz2
import gzip
import lzma
import os
import pickle
import sys
import zlib
from contextlib import suppress
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.exceptions import ContentDisallowed, DecodeError, EncodeError, SerializerNotInstalled
from umbel.wire import serializers
from umbel.wire.serializers import compress, content_types, decode, decompress, encode

ALL = content_types(["json", "yaml", "msgpack", "pickle"])
NONE: frozenset[str] = frozenset()
METHODS = ["zlib", "gzip", "bzip2", "bzip", "lzma", "xz", "zstd", "zstandard"]


@pytest.mark.parametrize("name", ["json", "yaml", "msgpack", "pickle"])
def test_each_serializer_reads_what_it_wrote(name):
    value = [[1, "é", None, 1.5], {"a": True}, {"chain": []}]
    content_type, content_encoding, body = encode(name, value)
    assert decode(body, content_type, content_encoding, content_types([name])) == value


@pytest.mark.parametrize("name", ["json", "yaml", "msgpack", "pickle"])
def test_what_is_not_accepted_is_not_read(name):
    content_type, content_encoding, body = encode(name, [1])
    with pytest.raises(ContentDisallowed, match=name):
        decode(body, content_type, content_encoding, ALL - {content_type})


def test_a_pickle_that_is_not_accepted_does_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(ContentDisallowed):
        decode(pickle.dumps(Bomb()), "application/x-python-serialize", "binary", content_types(["json"]))
    assert not (tmp_path / "ran").exists()


def test_text_and_bytes_pass_without_a_serializer():
    assert encode(None, "é") == ("text/plain", "utf-8", "é".encode())
    assert encode(None, b"\xff") == ("application/data", "binary", b"\xff")
    assert decode("é".encode(), "text/plain", "UTF-8", NONE) == "é"
    assert decode(b"\xe9", "text/plain", "iso-8859-1", NONE) == "é"
    assert decode(b"\xff", "application/data", "binary", NONE) == b"\xff"
    with pytest.raises(EncodeError, match="only str and bytes"):
        encode(None, [1])


def test_an_unknown_serializer_is_refused_with_those_known():
    with pytest.raises(SerializerNotInstalled, match=r"'jsn'.*json, msgpack, pickle, yaml"):
        encode("jsn", 1)
    with pytest.raises(SerializerNotInstalled, match="'jsn'"):
        content_types(["jsn"])


def test_content_types_may_be_named_themselves():
    assert content_types(["application/x-foo", "json"]) == {"application/x-foo", "application/json"}


def test_a_content_type_nobody_reads_is_a_decode_error_even_if_accepted():
    with pytest.raises(DecodeError, match="register"):
        decode(b"", "application/x-foo", "utf-8", frozenset(["application/x-foo"]))


def test_a_registered_serializer_is_used(monkeypatch):
    monkeypatch.setattr(serializers, "_BY_NAME", serializers._BY_NAME.copy())
    monkeypatch.setattr(serializers, "_BY_TYPE", serializers._BY_TYPE.copy())
    serializers.register("csv", ",".join, lambda text: text.split(","), "text/csv")
    assert encode("csv", ["a", "b"]) == ("text/csv", "utf-8", b"a,b")
    assert decode(b"a,b", "text/csv", "utf-8", content_types(["csv"])) == ["a", "b"]


@pytest.mark.parametrize("value", [datetime(2024, 1, 1), {1, 2}, object(), [{"a": 1j}]])
def test_msgpack_refuses_what_other_msgpack_libraries_would_not_read(value):
    with pytest.raises(EncodeError, match="msgpack cannot write"):
        encode("msgpack", value)


@pytest.mark.parametrize(("name", "value"), [("msgpack", 2**70), ("yaml", object()), ("pickle", lambda: None), ("json", {1})])
def test_what_a_serializer_cannot_write_is_an_encode_error(name, value):
    with pytest.raises(EncodeError):
        encode(name, value)


@given(
    st.binary(),
    st.sampled_from(sorted(ALL - {"application/x-python-serialize"})),
    st.sampled_from(["utf-8", "binary", "utf-16", "rot13", ""]),
)
def test_random_bytes_are_read_or_refused(body, content_type, content_encoding):
    with suppress(DecodeError):
        decode(body, content_type, content_encoding, ALL)


def test_yaml_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    for call in (lambda: encode("yaml", [1]), lambda: decode(b"[1]", "application/x-yaml", "utf-8", ALL)):
        with pytest.raises(SerializerNotInstalled, match=r"pip install 'umbel\[yaml\]'"):
            call()


@pytest.mark.parametrize("body", [b"[" * 100_000, b"!!python/object/apply:os.getcwd []", b"a: 2024-99-99", b"{[1]: 2}"])
def test_hostile_yaml_is_a_decode_error(body):
    with pytest.raises(DecodeError):
        decode(body, "application/x-yaml", "utf-8", ALL)


def test_hostile_msgpack_is_a_decode_error():
    with pytest.raises(DecodeError):
        decode(b"\x91" * 100_000, "application/x-msgpack", "binary", ALL)


def test_a_broken_pickle_is_a_decode_error():
    with pytest.raises(DecodeError, match="pickle"):
        decode(b"\x80\x04nonsense", "application/x-python-serialize", "binary", ALL)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("body", [b"", b"x" * 10_000, os.urandom(5000)])
def test_what_is_compressed_is_unpacked(name, body):
    mime, packed = compress(body, name)
    assert decompress(packed, mime) == body
    assert decompress(packed, name) == body


def test_the_methods_have_the_formats_of_kombu():
    assert compress(b"a", "gzip") == ("application/x-gzip", zlib.compress(b"a"))
    assert compress(b"a", "bzip2") == ("application/x-bz2", bz2.compress(b"a"))
    assert compress(b"a", "xz") == ("application/x-lzma", lzma.compress(b"a"))
    assert compress(b"a", "zstd")[1][:4] == b"\x28\xb5\x2f\xfd"


def test_real_gzip_under_the_same_label_is_unpacked_too():
    assert decompress(gzip.compress(b"abc"), "application/x-gzip") == b"abc"


@pytest.mark.parametrize("name", METHODS)
def test_a_body_that_unpacks_to_too_much_is_refused(name):
    mime, packed = compress(bytes(1_000_000), name)
    with pytest.raises(DecodeError, match=r"unpacks to more than 999999 bytes.*pass a reference"):
        decompress(packed, mime, limit=999_999)
    assert len(decompress(packed, mime, limit=1_000_000)) == 1_000_000


@pytest.mark.parametrize("name", ["zlib", "bzip2", "lzma"])
def test_a_body_cut_short_is_refused(name):
    mime, packed = compress(b"x" * 1000, name)
    with pytest.raises(DecodeError, match="too early"):
        decompress(packed[:-5], mime)


@given(st.binary(), st.sampled_from(METHODS))
def test_random_bytes_are_unpacked_or_refused(body, name):
    with suppress(DecodeError):
        decompress(body, name)


def test_an_unknown_method_is_refused_with_those_known():
    with pytest.raises(EncodeError, match=r"'rar'.*bzip2"):
        compress(b"", "rar")
    with pytest.raises(DecodeError, match=r"'rar'.*bzip2"):
        decompress(b"", "rar")
