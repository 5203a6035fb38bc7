"""From a message to what its task may know of it."""

from __future__ import annotations

from typing import Any

from umbel.app import Umbel
from umbel.context import Context
from umbel.execution.outcome import Job
from umbel.task import Task
from umbel.wire import message as wire
from umbel.wire.message import Message
from umbel.wire.saferepr import one_line
from umbel.wire.size import DEFAULT_LIMIT

__all__ = ["context_of", "open_request"]

# What a header is called in the message, and what is not a header of the user's.
KNOWN = frozenset((
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id",
    "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "compression",
    "redelivered", "umbel_attempts", "umbel_suspect", "umbel_waited", "umbel_turn", "umbel_sent", "umbel_flow",
    "umbel_errback",
))  # fmt: skip


# What a message must not say of itself: whatever the request has beside headers, such as its methods and `fence`.
RESERVED = frozenset(dir(Context)) - KNOWN | {"entering"}
LONGEST_SHADOW = 200  # characters


def open_request(
    app: Umbel, job: Job, *, node: str, accept: frozenset[str], eager: bool = False, limit: int = DEFAULT_LIMIT
) -> tuple[Task[..., Any], Context]:
    """Read the message of *job*, of which no compressed part may unpack to more than *limit* bytes.

    Raises:
        DecodeError, InvalidTaskError: it is not a message of a task.
        ContentDisallowed: it is of a content type that `accept_content` does not list.
        NotRegistered: no task has its name.
    """
    message = wire.decode(job.raw, limit=limit, seen=not eager)  # the worker's parent admits nothing that it has not glanced at
    args, kwargs, embed = wire.payload(message, accept, limit=limit)
    task = app.tasks[message.headers["task"]]
    request = context_of(message, args, kwargs, embed)
    request.fence, request.hostname, request.is_eager, request.consumed_from = job.fence, node, eager, job.queue
    if job.redelivered:
        request.delivery_info = {**(request.delivery_info or {}), "redelivered": True}
    if request.ignore_result is None:
        request.ignore_result = bool(task.ignore_result)
    return task, request


def context_of(message: Message, args: list[Any], kwargs: dict[str, Any], embed: dict[str, Any]) -> Context:
    """Make the request of *message*."""
    headers, properties = message.headers, message.properties
    info = properties.get("delivery_info") or {}
    request = Context()
    if headers.keys() <= KNOWN:  # most messages have no header of the user's
        request.__dict__.update(headers)
    else:
        request.__dict__.update({name: value for name, value in headers.items() if name not in RESERVED})
        request.headers = {name: value for name, value in headers.items() if name not in KNOWN}
    request.args, request.kwargs = args, kwargs
    if any(embed.values()):
        request.callbacks, request.errbacks = embed.get("callbacks"), embed.get("errbacks")
        request.chain, request.chord = embed.get("chain"), embed.get("chord")
    request.retries = headers.get("retries") or 0
    if headers.get("shadow"):
        request.shadow = one_line(headers["shadow"], LONGEST_SHADOW)
    request.ignore_result = headers.get("ignore_result")
    request.correlation_id, request.reply_to = properties.get("correlation_id"), properties.get("reply_to")
    request.properties = properties
    request.delivery_info = {
        "exchange": info.get("exchange"),
        "routing_key": info.get("routing_key"),
        "priority": properties.get("priority"),
        "redelivered": bool(info.get("redelivered") or headers.get("redelivered")),
    }
    request.called_directly = False
    return request
