"""JSON as kombu writes and reads it: its separators, ASCII only, and objects that carry a type marker.

A value that JSON does not know travels as `{"__type__": marker, "__value__": …}`, an object with exactly these two keys.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from json import encoder as _stdlib
from typing import Any
from uuid import UUID

import msgspec

from umbel.exceptions import DecodeError, EncodeError
from umbel.wire.saferepr import saferepr

__all__ = ["dumps", "loads", "parse", "quote", "register_type"]

_Encoder = Callable[[Any], Any]

_ENCODERS: dict[type, tuple[str | None, _Encoder]] = {}
_DECODERS: dict[str, Callable[[Any], Any]] = {}
_MARKED = frozenset(("__type__", "__value__"))

_parse_fast = msgspec.json.Decoder().decode
quote: Callable[[str], str] = _stdlib.encode_basestring_ascii  # a text as JSON


def register_type(cls: type, marker: str | None, encoder: _Encoder, decoder: _Encoder | None = None) -> None:
    """Teach JSON a type; both sides of the wire must do it.

    Args:
        cls: the class; its subclasses are encoded alike unless they are registered too.
        marker: its name on the wire. None writes the encoder's value bare, so that it comes back as that.
        encoder: makes a JSON value of an instance.
        decoder: makes an instance of that JSON value.
    """
    _ENCODERS[cls] = (marker, encoder)
    if marker is not None and decoder is not None:
        _DECODERS[marker] = decoder


def dumps(obj: Any) -> str:
    """Write a value as JSON.

    Raises:
        EncodeError: it holds something that JSON cannot say.
    """
    try:
        return _write(obj)
    except RecursionError as exc:
        raise EncodeError("A value contains itself or nests too deeply for JSON. Send flatter values.") from exc
    except (TypeError, ValueError) as exc:
        raise EncodeError(f"A value cannot be written as JSON: {exc}") from exc


def loads(data: bytes | str) -> Any:
    """Read JSON and revive the marked values in it.

    Raises:
        DecodeError: it is not JSON, or a marked value is of an unknown type or has a wrong value.
    """
    # Reviving takes a Python call per object, so it is done only where the marker occurs.
    marked = b"__type__" in data if isinstance(data, bytes) else "__type__" in data
    return _parse_slowly(data, _revive) if marked else parse(data)


def parse(data: bytes | str) -> Any:
    """Read JSON and leave marked values as the plain objects that they are.

    Raises:
        DecodeError: it is not JSON.
    """
    try:
        return _parse_fast(data)
    except (ValueError, RecursionError):
        # msgspec is strict; NaN, Infinity and lone surrogates are what Python's own JSON writes.
        return _parse_slowly(data, None)


def _parse_slowly(data: bytes | str, hook: Callable[[dict[str, Any]], Any] | None) -> Any:
    try:
        return json.loads(data if isinstance(data, str) else data.decode(), object_hook=hook)
    except DecodeError:
        raise
    except RecursionError as exc:
        raise DecodeError(f"JSON of {len(data)} bytes nests too deeply to be read. Its sender must send flatter values.") from exc
    except ValueError as exc:
        raise DecodeError(f"{data[:60]!r} is not JSON: {exc}") from exc


def _revive(obj: dict[str, Any]) -> Any:
    if len(obj) != len(_MARKED) or obj.keys() != _MARKED:
        return obj
    marker, value = obj["__type__"], obj["__value__"]
    decoder = _DECODERS.get(marker) if isinstance(marker, str) else None
    if decoder is None:
        raise DecodeError(
            f"Unsupported type {saferepr(marker, 60)} in a JSON message. If it is yours, call register_type() in this process too.",
        )
    try:
        return decoder(value)
    except Exception as exc:
        raise DecodeError(f"{saferepr(value, 60)} is not a value of the JSON type {marker!r}: {exc}") from exc


def _default(obj: Any) -> Any:
    """Stand in for an object that plain JSON does not know."""
    entry = _ENCODERS.get(type(obj))
    if entry is None:
        reducer = getattr(obj, "__json__", None)
        if reducer is not None:
            return reducer()
        if _is_lazy_text(obj):
            return str(obj)
        entry = _entry_of_a_base(obj)
    marker, encoder = entry
    return encoder(obj) if marker is None else {"__type__": marker, "__value__": encoder(obj)}


def _entry_of_a_base(obj: Any) -> tuple[str | None, _Encoder]:
    for base in type(obj).__mro__:
        if base in _ENCODERS:
            return _ENCODERS[base]
    for base, entry in tuple(_ENCODERS.items()):
        if isinstance(obj, base):  # an abstract class, which is in nobody's __mro__
            return entry
    raise TypeError(
        f"{type(obj).__module__}.{type(obj).__qualname__} is not a JSON type: {saferepr(obj, 60)}. "
        "Send a plain value (an id, a list, a dict), give it a __json__() method, or call register_type().",
    )


def _is_lazy_text(obj: Any) -> bool:
    # Whoever holds a lazy string has imported the module of its class.
    functional = sys.modules.get("django.utils.functional")
    return functional is not None and isinstance(obj, functional.Promise)


def _bytes_marker(value: bytes) -> Any:
    try:
        return {"__type__": "bytes", "__value__": value.decode()}
    except UnicodeDecodeError:
        return {"__type__": "base64", "__value__": b64encode(value).decode()}


def _uuid_of(value: Any) -> UUID:
    return UUID(hex=value["hex"])


def _writer() -> Callable[[Any], str]:
    # The standard encoder makes a new C encoder for every call; one made beforehand halves the time of a small body.
    # Without a circularity check: what contains itself ends in RecursionError.
    make = getattr(_stdlib, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(default=_default, check_circular=False).encode
    chunks = make(None, _default, quote, None, ": ", ", ", False, False, True)
    return lambda obj: "".join(chunks(obj, 0))


_write = _writer()

register_type(datetime, "datetime", datetime.isoformat, datetime.fromisoformat)
register_type(date, "date", date.isoformat, date.fromisoformat)
register_type(time, "time", time.isoformat, time.fromisoformat)
register_type(Decimal, "decimal", str, Decimal)
register_type(UUID, "uuid", lambda value: {"hex": value.hex}, _uuid_of)
register_type(bytes, None, _bytes_marker)
_DECODERS["bytes"] = str.encode
_DECODERS["base64"] = b64decode
