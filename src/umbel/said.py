"""States that are stored outside of settling: what a running task says of itself, that a call was sent, what an eager call came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from umbel import states
from umbel.backend import Record
from umbel.meta import build_meta, encode_meta
from umbel.wire.size import limit_of

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.task import Task

__all__ = ["store_eager", "store_pending", "store_state"]


def store_state(task: Task[..., Any], task_id: str | None, state: str, said: Any) -> None:
    """Store a state of the running call of *task*, or of *task_id*, with what goes with it."""
    app, request = task.app, task.request
    document = build_meta(task_id or request.id or "", state, said, request=request, extended=app.conf.result_extended, fence=request.fence)
    app.backend.store([_record(app, document, request.fence, request.reply_to or "")])


def store_pending(app: Umbel, ids: Sequence[str]) -> None:
    """Store that calls are about to be sent, so that who asks for another id is told honestly that it is unknown.

    Invariant: before they are sent. A worker may be fast, and what it stores must not be written over.

    Raises:
        BackendUnavailable: then nothing is sent.
    """
    app.backend.store([_record(app, build_meta(task_id, states.PENDING, None)) for task_id in ids])


def store_eager(task: Task[..., Any], task_id: str, state: str, result: Any, traceback: str | None) -> None:
    """Store how an eager call of *task* ended that has no outcome of its own: another ran in its place, or what is before it failed."""
    if task.store_eager_result and state in states.READY_STATES:
        task.app.backend.store([_record(task.app, build_meta(task_id, state, result, traceback=traceback, now=task.app.now()))])


def _record(app: Umbel, document: dict[str, Any], fence: int = 0, reply_to: str = "") -> Record:
    conf = app.conf
    data = encode_meta(
        document, serializer=conf.result_serializer, compression=conf.result_compression, limit=limit_of(conf.result_max_size)
    )
    return Record(id=document["task_id"], state=document["status"], meta=data, fence=fence, expires=app.result_expires, reply_to=reply_to)
