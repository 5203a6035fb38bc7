"""The document that a result backend keeps of a task."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from umbel import states
from umbel.exceptions import DecodeError
from umbel.wire import failures
from umbel.wire.compression import MARK, unpacked_document
from umbel.wire.saferepr import one_line, saferepr
from umbel.wire.serializers import compress, decode, encode
from umbel.wire.size import DEFAULT_LIMIT, check_written

if TYPE_CHECKING:
    from umbel.context import Context

__all__ = ["build_meta", "decode_meta", "encode_meta", "result_of"]


class _Link(msgspec.Struct, array_like=True):
    """The result of a child, as `AsyncResult.as_tuple` writes it."""

    head: _Head
    children: Any = None


class _Head(msgspec.Struct, array_like=True):
    id: str
    parent: _Link | None = None


class _Place(msgspec.Struct, array_like=True):
    flow: str


_read_flow = msgspec.json.Decoder(_Place).decode


class _Document(msgspec.Struct):
    """What a reader relies on; who wrote the rest, and why, is not our business."""

    status: str
    traceback: str | None = None
    date_done: Any = None  # a text, or a time where the serializer knows times
    children: list[_Link] | None = None
    name: str | None = None
    worker: str | None = None
    queue: str | None = None
    retries: int | None = None
    flow: str | None = None


def build_meta(
    task_id: str,
    state: str,
    result: Any,
    *,
    traceback: str | None = None,
    request: Context | None = None,
    now: datetime | None = None,
    extended: bool = False,
    fence: int = 0,
) -> dict[str, Any]:
    """Build the document of one state.

    Args:
        task_id: whose it is.
        state: what is known of the task.
        result: its value, its exception, or what goes with another state.
        traceback: the text of it.
        request: the running task's; it names children, group, parent, and what `extended` adds.
        now: the time in the app's zone; kept if the state is final.
        extended: does `result_extended` hold?
        fence: the number of the delivery; 0: unknown.
    """
    if isinstance(result, BaseException):
        result = failures.describe(result)
    children = None if request is None else [child.as_tuple() for child in request.children]
    meta: dict[str, Any] = {
        "status": state,
        "result": result,
        "traceback": traceback,
        "children": children,
        "date_done": now.isoformat() if now is not None and state in states.READY_STATES else None,
    }
    if request is not None:
        if request.group:
            meta["group_id"] = request.group
        if request.parent_id:
            meta["parent_id"] = request.parent_id
        if request.umbel_flow and (flow := _flow_in(request.umbel_flow)):
            meta["flow"] = flow
        if extended:
            meta.update({name: value for name, value in _extended(request).items() if name not in meta})  # no stamp over a field of ours
    meta["task_id"] = task_id
    if fence:
        meta["fence"] = fence
    return meta


def _flow_in(header: str) -> str:
    """Return the id of the workflow that the header `umbel_flow` names."""
    try:
        return _read_flow(header).flow
    except (msgspec.DecodeError, TypeError, UnicodeError):
        return ""


def _extended(request: Context) -> dict[str, Any]:
    fields = {
        "name": request.task,
        "args": request.args,
        "kwargs": request.kwargs,
        "worker": request.hostname,
        "retries": request.retries,
        "queue": (request.delivery_info or {}).get("routing_key"),
    }
    if request.stamped_headers:
        fields["stamped_headers"] = request.stamped_headers
        fields = {**(request.stamps or {}), **fields}
    return fields


def encode_meta(meta: Mapping[str, Any], *, serializer: str = "json", compression: str | None = None, limit: int = DEFAULT_LIMIT) -> bytes:
    """Write a document of at most *limit* bytes.

    Raises:
        EncodeError: its result cannot be written, or is too large.
    """
    data = encode(serializer, meta)[2]
    if len(data) > limit:
        check_written(f"The result document of {saferepr(meta.get('task_id'), 60)}", len(data), limit, "result_max_size")
    if compression:
        mime, data = compress(data, compression)
        data = MARK + mime.encode() + b"\x00" + data
    return data


def decode_meta(
    data: bytes, *, content_type: str, content_encoding: str, accept: frozenset[str], limit: int = DEFAULT_LIMIT
) -> dict[str, Any]:
    """Read a document; a compressed one says so itself, and may unpack to *limit* bytes.

    Raises:
        DecodeError: it is not one.
        ContentDisallowed: its content type is not in *accept*.
    """
    meta = decode(unpacked_document(data, limit=limit), content_type, content_encoding, accept)
    try:
        done = msgspec.convert(meta, _Document).date_done
        if done is not None and not isinstance(done, datetime):
            datetime.fromisoformat(done)
    except (ValueError, TypeError, RecursionError) as exc:
        raise DecodeError(f"What is stored is not the document of a result: {one_line(exc)}. It starts {saferepr(meta, 60)}") from exc
    return dict(meta)


def result_of(meta: Mapping[str, Any]) -> Any:
    """Return the value of a document; for a state of exceptions that is an exception again."""
    value = meta.get("result")
    if meta.get("status") in states.EXCEPTION_STATES and isinstance(value, Mapping):
        return failures.rebuild(dict(value))
    return value
