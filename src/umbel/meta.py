"""The document that a result backend keeps of a task."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from umbel import states
from umbel.wire import failures
from umbel.wire.serializers import compress, decode, decompress, encode

if TYPE_CHECKING:
    from umbel.context import Context

__all__ = ["build_meta", "decode_meta", "encode_meta", "result_of"]

COMPRESSED = b"\x00celery-compressed\x00"


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
        if extended:
            meta.update(_extended(request))
    meta["task_id"] = task_id
    if fence:
        meta["fence"] = fence
    return meta


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
        fields.update(request.stamps or {})
    return fields


def encode_meta(meta: Mapping[str, Any], *, serializer: str = "json", compression: str | None = None) -> bytes:
    """Write a document.

    Raises:
        EncodeError: its result cannot be written.
    """
    data = encode(serializer, meta)[2]
    if compression:
        mime, data = compress(data, compression)
        data = COMPRESSED + mime.encode() + b"\x00" + data
    return data


def decode_meta(data: bytes, *, content_type: str, content_encoding: str, accept: frozenset[str]) -> dict[str, Any]:
    """Read a document; a compressed one says so itself.

    Raises:
        DecodeError: it is not one.
        ContentDisallowed: its content type is not in *accept*.
    """
    if data.startswith(COMPRESSED):
        mime, _, packed = data[len(COMPRESSED) :].partition(b"\x00")
        data = decompress(packed, mime.decode())
    meta: dict[str, Any] = decode(data, content_type, content_encoding, accept)
    return meta


def result_of(meta: Mapping[str, Any]) -> Any:
    """Return the value of a document; for a state of exceptions that is an exception again."""
    value = meta.get("result")
    if meta.get("status") in states.EXCEPTION_STATES and isinstance(value, Mapping):
        return failures.rebuild(dict(value))
    return value
