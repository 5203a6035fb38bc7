"""The message of a task: Celery's protocol 2, inside the JSON envelope that kombu puts on a Redis list.

What other clients leave out is filled in, and protocol 1 is turned into protocol 2, so that nothing else in umbel
knows of them. Bytes from outside only ever raise `DecodeError`, `ContentDisallowed` or `InvalidTaskError`.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from umbel.exceptions import DecodeError, EncodeError, InvalidTaskError
from umbel.wire import serializers
from umbel.wire.compression import decompress
from umbel.wire.headers import Glimpse, Headers, check_names
from umbel.wire.jsontypes import dumps, loads
from umbel.wire.saferepr import saferepr
from umbel.wire.size import DEFAULT_LIMIT

__all__ = ["Glance", "Message", "decode", "encode", "glance", "payload", "read_as", "unwrap"]

_READABLE_V1 = frozenset(("application/json", "application/x-msgpack"))  # harmless to read before anyone asked who accepts what
LARGEST_GLANCE = 1 << 20  # bytes: what is unpacked and read in a worker's parent, which renews a lease meanwhile
HIGHEST_PRIORITY = 255  # of AMQP; what is outside counts as the nearest
_EMBEDDED = {"callbacks": list, "errbacks": list, "chain": list, "chord": dict}

_T = TypeVar("_T")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message: where it goes and what it says are in the headers and properties, its arguments in the body."""

    headers: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    body: bytes = b""
    content_type: str = "application/json"
    content_encoding: str = "utf-8"


class Glance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a worker's parent reads of a message: enough to decide whether and where it runs, not its arguments."""

    task: str
    id: str
    retries: int
    eta: str | None
    expires: str | None
    priority: int
    ignore_result: bool | None
    group: str | None
    routing_key: str
    sent: float | None = None  # when, in seconds since the epoch by the producer's clock; None: it did not say
    flow: str | None = None  # its place in a workflow, as JSON
    copy: str | None = None  # what it is a copy of, and which; None: nobody sends it again
    root: str = ""  # the id of the first task of all from which it comes; empty: the message does not say


class _Envelope(msgspec.Struct, gc=False, rename={"content_type": "content-type", "content_encoding": "content-encoding"}):
    body: str
    headers: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    content_type: str | None = None
    content_encoding: str | None = None


class _Parts(msgspec.Struct, gc=False):
    headers: msgspec.Raw = msgspec.Raw()
    properties: msgspec.Raw = msgspec.Raw()


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_glimpse = msgspec.json.Decoder(Glimpse).decode
_read_parts = msgspec.json.Decoder(_Parts).decode


def encode(message: Message) -> bytes:
    """Write a message as kombu's Redis transport does, its body always in base64.

    Celery's workers need `delivery_tag` and `delivery_info` (`exchange`, `routing_key`) among the properties.

    Raises:
        EncodeError: a header or property is not JSON.
    """
    properties = message.properties
    if properties.get("body_encoding") != "base64":
        properties = {**properties, "body_encoding": "base64"}
    return dumps(
        {
            "body": b2a_base64(message.body, newline=False).decode("ascii"),
            "content-encoding": message.content_encoding,
            "content-type": message.content_type,
            "headers": message.headers,
            "properties": properties,
        },
    ).encode("ascii")


def unwrap(raw: bytes) -> Message:
    """Open an envelope whatever it carries: a task, an event, a control request.

    Raises:
        DecodeError: it is not an envelope; the text says why.
    """
    envelope = _convert(loads(raw), _Envelope) if b"__type__" in raw else read_as(raw, _read_envelope, _Envelope)
    properties = envelope.properties or {}
    return Message(
        headers=envelope.headers or {},
        properties=properties,
        body=_bytes_of(envelope.body, properties.get("body_encoding")),
        content_type=envelope.content_type or "application/json",
        content_encoding=envelope.content_encoding or "utf-8",
    )


def decode(raw: bytes, *, limit: int = DEFAULT_LIMIT, seen: bool = False) -> Message:
    """Read the message of a task, of protocol 2, 1 or a mixture, and return it as protocol 2.

    Args:
        raw: the envelope.
        limit: the most bytes that a compressed body of protocol 1 may unpack to.
        seen: `glance` has let this very envelope pass, so the types of its headers are known to be right.

    Raises:
        DecodeError: it is not such a message; the text says why.
        ContentDisallowed: it is of protocol 1 and in a serialization that is not safe to look into.
    """
    read = unwrap(raw)
    message = _as_protocol_2(read, limit)
    headers = message.headers
    if not seen or message is not read:  # of an older protocol: a glance may have taken its body for arguments only
        _check_types(message)
    if headers.get("retries") is None:
        headers["retries"] = 0
    if (priority := message.properties.get("priority")) is not None:
        message.properties["priority"] = possible_priority(priority)
    return message


def _check_types(message: Message) -> Glimpse:
    """Return what `glance` reads of *message*, after every check that `decode` relies on."""
    headers = message.headers
    for name in ("task", "id"):
        if not isinstance(headers.get(name), str) or not headers[name]:
            raise DecodeError(f"The header {name!r} of a task message is {saferepr(headers.get(name), 60)}, not a text.")
    glimpse = _convert({"headers": headers, "properties": message.properties}, Glimpse)
    _check(glimpse.headers)
    return glimpse


def _check(headers: Headers) -> None:
    """Refuse what the types of the headers let pass and must not be."""
    if headers.timelimit is not None and len(headers.timelimit) == 1:
        raise DecodeError(f"The header 'timelimit' is {saferepr(headers.timelimit, 60)}. It must be [hard, soft], in seconds or null.")
    if not (headers.task.isprintable() and headers.id.isprintable()):
        check_names(headers.task, headers.id)  # which says what is wrong


def glance(raw: bytes, *, limit: int = DEFAULT_LIMIT) -> Glance:
    """Read what a worker's parent needs of a message, without touching its body; of protocol 1 there is only the body.

    Raises:
        DecodeError: it is not the message of a task, or more than a mebibyte would have to be read to tell.
        ContentDisallowed: as `decode` does.
    """
    limit = min(limit, LARGEST_GLANCE)
    if len(raw) > LARGEST_GLANCE:
        _check_headers(raw)
    if _may_be_v1(raw):
        return _glance_slowly(raw, limit)
    try:
        glimpse = _read_glimpse(raw)
    except (ValueError, RecursionError):
        return _glance_slowly(raw, limit)
    return _glance(glimpse)


def _check_headers(raw: bytes) -> None:
    """Refuse a large envelope of which not the body is what is large: the small values in it may be millions."""
    parts = read_as(raw, _read_parts, _Parts)
    size = len(parts.headers) + len(parts.properties)
    if size > LARGEST_GLANCE:
        raise DecodeError(f"Its headers and properties have {size} bytes; {LARGEST_GLANCE} are read. Put large data into the arguments.")


def _may_be_v1(raw: bytes) -> bool:
    """Tell, without decoding, whether the body may be an object, as in protocol 1; in base64 that starts with "ey"."""
    if raw.startswith(b'{"body": "'):  # where kombu's and our own envelopes have it
        return raw.startswith((b"ey", b'{\\"'), 10)
    return b'"ey' in raw or b'"{\\"' in raw


def _glance(glimpse: Glimpse) -> Glance:
    _check(glimpse.headers)
    headers, properties = glimpse.headers, glimpse.properties
    priority, routing_key = 0, ""
    if properties is not None:
        priority = possible_priority(properties.priority or 0)
        if properties.delivery_info is not None:
            routing_key = properties.delivery_info.routing_key or ""
    return Glance(
        task=headers.task,
        id=headers.id,
        retries=headers.retries or 0,
        eta=headers.eta,
        expires=headers.expires,
        priority=priority,
        ignore_result=headers.ignore_result,
        group=headers.group,
        routing_key=routing_key,
        sent=headers.umbel_sent,
        flow=headers.umbel_flow,
        copy=headers.umbel_copy,
        root=headers.root_id or "",
    )


def possible_priority(given: int) -> int:
    """Return the nearest priority that there is: a retry carries it on, and not every store has numbers of any size."""
    return given if 0 <= given <= HIGHEST_PRIORITY else 0 if given < 0 else HIGHEST_PRIORITY


def _glance_slowly(raw: bytes, limit: int) -> Glance:
    return _glance(_check_types(decode(raw, limit=limit)))


def payload(message: Message, accept: frozenset[str], *, limit: int = DEFAULT_LIMIT) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Read the body: positional arguments, keyword arguments, and the signatures embedded with them.

    Args:
        message: as `decode` returned it.
        accept: the content types that may be read.
        limit: the most bytes that a compressed body may unpack to.

    Raises:
        ContentDisallowed: its content type is not in `accept`.
        DecodeError: it is not what its content type says.
        InvalidTaskError: it is something else than arguments.
    """
    body = message.body
    if "compression" in message.headers:
        body = _decompressed(message, limit)
    value = serializers.decode(body, message.content_type, message.content_encoding, accept)
    if isinstance(value, dict) and "args" in value:
        value = _triple(value)
    if not isinstance(value, (list, tuple)) or len(value) != 3:  # noqa: PLR2004 - named in the text
        raise InvalidTaskError(f"The body must be [args, kwargs, embed]; it is {saferepr(value, 60)}.")
    args, kwargs, embed = value
    if not isinstance(args, (list, tuple)):
        raise InvalidTaskError(f"The positional arguments must be a list; they are {saferepr(args, 60)}.")
    if not isinstance(kwargs, dict) or (kwargs and not all(isinstance(key, str) for key in kwargs)):
        raise InvalidTaskError(f"The keyword arguments must be an object with text keys; they are {saferepr(kwargs, 60)}.")
    if embed is None:
        embed = {}
    if not isinstance(embed, dict) or (any(embed.values()) and not _embeds_well(embed)):
        raise InvalidTaskError(f"The embed must hold signatures: callbacks, errbacks, chain, chord. It is {saferepr(embed, 60)}.")
    return list(args), kwargs, embed


def _embeds_well(embed: dict[str, Any]) -> bool:
    if any(embed.get(name) is not None and not isinstance(embed[name], kind) for name, kind in _EMBEDDED.items()):
        return False
    return all(isinstance(signature, dict) for name in ("callbacks", "errbacks", "chain") for signature in embed.get(name) or ())


def read_as(raw: bytes, read: Callable[[bytes], _T], kind: type[_T]) -> _T:
    """Read an envelope by *read*, a decoder of *kind*.

    Raises:
        DecodeError: it is nothing of the kind.
    """
    try:
        return read(raw)
    except (ValueError, RecursionError):
        return _convert(loads(raw), kind)  # JSON of Python's kind (NaN), or an error that says more


def _convert(value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"Not the envelope of a message: {exc}. It starts {saferepr(value, 60)}") from exc


def _bytes_of(body: str, encoding: Any) -> bytes:
    """Undo the body's encoding; kombu says base64, node-celery utf-8, PHP nothing for plain text."""
    try:
        if encoding == "base64":
            return a2b_base64(body)
        if encoding is None or encoding == "utf-8":
            return body.encode()
    except ValueError as exc:
        raise DecodeError(f"The body {saferepr(body, 60)} is not {encoding or 'text'}: {exc}") from exc
    raise DecodeError(f"The body is in an unknown body_encoding, {saferepr(encoding, 60)}. Send base64 or utf-8.")


def _decompressed(message: Message, limit: int) -> bytes:
    compression = message.headers.get("compression")
    if not compression:
        return message.body
    if not isinstance(compression, str):
        raise DecodeError(f"The header 'compression' is {saferepr(compression, 60)}. It must be a MIME type.")
    return decompress(message.body, compression, limit=limit)


def _triple(fields: dict[str, Any]) -> list[Any]:
    return [fields.get("args") or [], fields.get("kwargs") or {}, {name: fields.get(name) for name in _EMBEDDED}]


def _as_protocol_2(message: Message, limit: int) -> Message:
    if not message.headers.get("task"):
        _check_old_body(message, limit)
        return _from_v1(message, limit)
    if message.body[:1] == b"{" and message.content_type == "application/json":
        _check_old_body(message, limit)
        return _from_hybrid(message)
    return message


def _check_old_body(message: Message, limit: int) -> None:
    if len(message.body) > limit:
        raise DecodeError(f"A message of protocol 1 with a body of {len(message.body)} bytes; {limit} are read. Send it by protocol 2.")


def _from_v1(message: Message, limit: int) -> Message:
    """Protocol 1: there are no headers, all is in the body."""
    fields = serializers.decode(_decompressed(message, limit), message.content_type, message.content_encoding, _READABLE_V1)
    if not isinstance(fields, dict) or not isinstance(fields.get("task"), str) or not fields["task"]:
        raise DecodeError(f"A message that names no task, in its headers or its body: {saferepr(fields, 60)}.")
    if not isinstance(fields.get("id"), str) or not fields["id"]:
        raise DecodeError(f"A message of protocol 1 for {saferepr(fields['task'], 60)} whose id is {saferepr(fields.get('id'), 60)}.")
    return _as_v2(message, fields)


def _from_hybrid(message: Message) -> Message:
    """Headers of protocol 2 over a body of protocol 1: what both say, the headers decide."""
    try:
        fields = loads(message.body)
    except DecodeError:
        return message  # it is known whose message this is; `payload` will say what is wrong with it
    return _as_v2(message, fields) if isinstance(fields, dict) and "args" in fields else message


def _as_v2(message: Message, fields: dict[str, Any]) -> Message:
    headers = {
        "lang": "py",
        "task": fields.get("task"),
        "id": fields.get("id"),
        "eta": fields.get("eta"),
        "expires": fields.get("expires"),
        "group": fields.get("taskset") or fields.get("group"),
        "group_index": fields.get("group_index"),
        "retries": fields.get("retries") or 0,
        "timelimit": fields.get("timelimit") or [None, None],
        "root_id": fields.get("id"),
        "parent_id": None,
        **message.headers,
    }
    headers.pop("compression", None)
    try:
        body = dumps(_triple(fields)).encode("ascii")
    except EncodeError as exc:
        raise DecodeError(f"A message of protocol 1 for {saferepr(headers['task'], 60)} cannot be read: {exc}") from exc
    return replace(message, headers=headers, body=body, content_type="application/json", content_encoding="utf-8")
