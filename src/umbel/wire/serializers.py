"""Choosing how a body is written, and refusing to read what was not asked for.

`yaml` and `pickle` are imported when they are first used.
"""

from __future__ import annotations

import importlib
import math
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from umbel.exceptions import ContentDisallowed, DecodeError, EncodeError, SerializerNotInstalled
from umbel.wire import jsontypes
from umbel.wire.compression import compress, decompress
from umbel.wire.saferepr import saferepr

__all__ = ["compress", "content_types", "decode", "decompress", "encode", "register"]

PICKLE_PROTOCOL = 4
_FEW_NODES = 10_000
TRUSTED = frozenset(("text/plain", "application/data"))  # read as they are: bytes that nothing interprets

_UTF8 = frozenset(("utf-8", "utf8", "us-ascii", "ascii", "binary"))  # PHP labels its JSON "binary"
_TEXT = {"latin-1": "latin-1", "iso-8859-1": "latin-1", "utf-16": "utf-16", "utf-32": "utf-32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serializer:
    """One way to write values as bytes."""

    name: str
    encoder: Callable[[Any], str | bytes]
    decoder: Callable[[Any], Any]
    content_type: str
    content_encoding: str


_BY_NAME: dict[str, Serializer] = {}
_BY_TYPE: dict[str, Serializer] = {}


def register(
    name: str,
    encoder: Callable[[Any], str | bytes],
    decoder: Callable[[Any], Any],
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Add a serializer, or replace the one of that name.

    Args:
        name: what settings and options call it.
        encoder: makes str or bytes of a value.
        decoder: undoes that; it is given text, or bytes if the content encoding is "binary".
        content_type: its name on the wire.
        content_encoding: the character set of its text, or "binary".
    """
    serializer = Serializer(
        name=name,
        encoder=encoder,
        decoder=decoder,
        content_type=content_type,
        content_encoding=content_encoding,
    )
    _BY_NAME[name] = _BY_TYPE[content_type] = serializer


def encode(name: str | None, obj: Any) -> tuple[str, str, bytes]:
    """Write a value by the serializer of that name; with None, text and bytes as they are.

    Returns:
        content type, content encoding, body

    Raises:
        SerializerNotInstalled: there is no such serializer.
        EncodeError: it cannot write the value.
    """
    if name == "json":
        return "application/json", "utf-8", jsontypes.dumps(obj).encode("ascii")
    if name is None or name == "raw":
        return _encode_raw(obj)
    serializer = _BY_NAME.get(name)
    if serializer is None:
        raise SerializerNotInstalled(f"No serializer called {name!r}. Known: {', '.join(sorted(_BY_NAME))}.")
    try:
        body = serializer.encoder(obj)
    except (EncodeError, SerializerNotInstalled):
        raise
    except Exception as exc:  # pickling runs methods of the user's objects
        raise EncodeError(f"A value cannot be written as {name}: {exc}") from exc
    if isinstance(body, str):
        body = body.encode("utf-8" if serializer.content_encoding == "binary" else serializer.content_encoding)
    return serializer.content_type, serializer.content_encoding, body


def _encode_raw(obj: Any) -> tuple[str, str, bytes]:
    if isinstance(obj, bytes):
        return "application/data", "binary", obj
    if isinstance(obj, str):
        return "text/plain", "utf-8", obj.encode()
    raise EncodeError(f"Without a serializer only str and bytes can be sent, not {type(obj).__name__}. Name one, such as 'json'.")


def decode(body: bytes, content_type: str, content_encoding: str, accept: frozenset[str]) -> Any:
    """Read a body if its content type is accepted; plain text and bytes always are.

    Raises:
        ContentDisallowed: the content type is not in `accept`.
        DecodeError: the body is not what its content type says.
    """
    if content_type in accept:
        if content_type == "application/json" and content_encoding in _UTF8:
            return jsontypes.loads(body)
        return _decode_other(body, content_type, content_encoding)
    if content_type in TRUSTED:
        return body if content_type == "application/data" else _text(body, content_encoding)
    serializer = _BY_TYPE.get(content_type)
    if serializer is None:
        raise ContentDisallowed(f"Refusing to deserialize untrusted content of the unknown type {saferepr(content_type, 60)}. Send json.")
    raise ContentDisallowed(
        f"Refusing to deserialize untrusted content of type {serializer.name} ({content_type}). "
        f"If you trust everyone who can send here, add {serializer.name!r} to accept_content.",
    )


def _decode_other(body: bytes, content_type: str, content_encoding: str) -> Any:
    serializer = _BY_TYPE.get(content_type)
    if serializer is None:
        raise DecodeError(f"Content type {content_type!r} is accepted but no serializer reads it. Call register() for it.")
    try:
        return serializer.decoder(body if serializer.content_encoding == "binary" else _text(body, content_encoding))
    except (DecodeError, SerializerNotInstalled):
        raise
    except Exception as exc:  # whatever the bytes made it do
        raise DecodeError(f"A body of {len(body)} bytes is not valid {serializer.name}: {exc}") from exc


def _text(body: bytes, content_encoding: str) -> str:
    label = content_encoding.lower()
    # Not Python's own table of codecs: it has slow and surprising ones, and the label comes from outside.
    codec = "utf-8" if label in _UTF8 else _TEXT.get(label)
    if codec is None:
        raise DecodeError(f"Text in the encoding {saferepr(content_encoding, 60)} is not read here. Send utf-8.")
    try:
        return body.decode(codec)
    except ValueError as exc:
        raise DecodeError(f"A body of {len(body)} bytes is not {codec} text: {exc}") from exc


def content_types(names: Iterable[str]) -> frozenset[str]:
    """Turn serializer names, or content types themselves, into the content types that `decode` accepts.

    Raises:
        SerializerNotInstalled: there is no such serializer.
    """
    return frozenset(name if "/" in name else _named(name) for name in names)


def _named(name: str) -> str:
    if name not in _BY_NAME:
        raise SerializerNotInstalled(f"accept_content names {name!r}, which is no serializer. Known: {', '.join(sorted(_BY_NAME))}.")
    return _BY_NAME[name].content_type


def _pickle(obj: Any) -> bytes:
    return pickle.dumps(obj, protocol=PICKLE_PROTOCOL)


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ModuleNotFoundError as exc:
        raise SerializerNotInstalled("YAML needs a package that is not installed (PyYAML). Run: pip install 'umbel[yaml]'.") from exc


def _to_yaml(obj: Any) -> str:
    text: str = _yaml().safe_dump(obj)
    return text


def _from_yaml(text: str) -> Any:
    yaml = _yaml()
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        # Aliases name a part again. Written out, as whoever copies or shows the value does, they can grow without bound.
        if _written_out(root, {}) > len(text) + _FEW_NODES:
            raise DecodeError("A YAML body whose aliases repeat too much. Send the values themselves, or use json.")
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _written_out(node: Any, known: dict[int, float]) -> float:
    """Count the nodes below *node* as if every alias were a copy; endless for one that contains itself."""
    count = known.get(id(node))
    if count is None:
        known[id(node)] = math.inf
        parts = node.value if isinstance(node.value, list) else ()
        inner = (each for part in parts for each in (part if isinstance(part, tuple) else (part,)))
        count = known[id(node)] = 1 + sum(_written_out(each, known) for each in inner)
    return count


def _to_msgpack(obj: Any) -> bytes:
    _refuse_foreign(obj)
    return msgspec.msgpack.encode(obj)


def _refuse_foreign(obj: Any) -> None:
    """Let only what every msgpack library reads pass: msgspec alone would write dates and sets in its own way."""
    if isinstance(obj, dict):
        for key, value in obj.items():
            _refuse_foreign(key)
            _refuse_foreign(value)
    elif isinstance(obj, (list, tuple)):
        for item in obj:
            _refuse_foreign(item)
    elif obj is not None and type(obj) not in {str, int, float, bool, bytes}:
        raise EncodeError(f"msgpack cannot write a {type(obj).__name__}: {saferepr(obj, 60)}. Send a str or a number, or use json.")


register("json", jsontypes.dumps, jsontypes.loads, "application/json")
register("msgpack", _to_msgpack, msgspec.msgpack.decode, "application/x-msgpack", "binary")
register("yaml", _to_yaml, _from_yaml, "application/x-yaml")
register("pickle", _pickle, pickle.loads, "application/x-python-serialize", "binary")
