"""Writing the record of a flow, and publishing what starts it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import structs

from umbel import publish
from umbel.canvas.compile import Compiler, Start
from umbel.canvas.fresh import flow_of
from umbel.canvas.launch import OwnCall, arguments_of, call_of
from umbel.canvas.records import encode_join, encode_members, encode_node
from umbel.canvas.signatures import as_signature
from umbel.flow import Follow, Node
from umbel.moments import moment
from umbel.result import AsyncResult, GroupResult

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["CHUNK", "begin", "drafts_of", "has_id", "name_flow", "publish_as", "refuse_unsendable", "send"]

CHUNK = publish.CHUNK  # messages or nodes in one step of a broker or backend


# --- which flow it is
#
# The id of a flow is that of its result, if that is new. An id that was given may come again, and must not find what is left of the
# flow before: that one gets an id of its own, and is named under the id that was given, for those who look at it.


def has_id(sig: Any, options: Mapping[str, Any]) -> bool:
    """Whether the id of the result of *sig* is given."""
    if options.get("task_id"):
        return True
    while not sig.options.get("task_id"):
        if sig.subtask_type == "chain" and sig.tasks:
            sig = as_signature(sig.tasks[-1])
        elif sig.subtask_type == "chord" and sig.body is not None:
            sig = as_signature(sig.body)
        else:
            return False
    return True


def name_flow(app: Umbel, task_id: str, compiled: Compiler) -> None:
    """Let the flow be found by the id of its result."""
    if compiled.nodes or compiled.joins:
        GroupResult(flow_of(task_id), [AsyncResult(compiled.flow, app=app)], app=app).save()


# --- writing and publishing


def begin(app: Umbel, compiled: Compiler) -> None:
    """Write the flow, in steps of 500 nodes; nothing, if it has none.

    Raises:
        BackendUnavailable: the backend did not take it in time.
        NotImplementedError: the backend keeps no workflows.
    """
    if not compiled.nodes and not compiled.joins and not any(member.part for member in compiled.members):
        return
    written = app.conf.task_serializer
    nodes = {number: encode_node(node, written) for number, node in compiled.nodes.items()}
    joins = {number: (join.size, encode_join(join)) for number, join in compiled.joins.items()}
    members = iter(compiled.members)
    while some := list(islice(members, CHUNK)):
        nodes[compiled.next_number()] = encode_members(some)
    expires = _expires(app, compiled)
    numbers = iter(nodes.items())
    app.backend.begin_flow(compiled.flow, dict(islice(numbers, CHUNK)), joins, expires=expires)
    while part := dict(islice(numbers, CHUNK)):
        app.backend.begin_flow(compiled.flow, part, {}, expires=expires)


def _expires(app: Umbel, compiled: Compiler) -> float | None:
    """Return for how many seconds the flow is kept: longer, if one of its tasks is to start late."""
    expires: float | None = app.conf.umbel_flow_expires
    if expires is None:
        return None
    return expires + max(
        (delay_of(app, node.signature.get("options") or {}) for node in (*compiled.nodes.values(), *compiled.late)), default=0.0
    )


def delay_of(app: Umbel, options: Mapping[str, Any]) -> float:
    """Return in how many seconds a call with these options is to start."""
    when = options.get("countdown") or options.get("eta")
    if when is None:
        return 0.0
    now = time.time()
    return max(0.0, moment(when, now, app.timezone).at - now)


def send(app: Umbel, compiler: Compiler, starts: Iterable[Start], how: Mapping[str, Any]) -> None:
    """Write the flow, and publish what starts it."""
    drafts = drafts_of(app, starts)  # before anything is written: what cannot be sent is refused whole
    begin(app, compiler)
    publish_as(app, drafts, how)


def publish_as(app: Umbel, calls: Sequence[publish.Draft | OwnCall], how: Mapping[str, Any]) -> None:
    """Publish the drafts as the options of the call say, and then make the other calls, one by one."""
    said = [how.get(name) for name in ("retry", "retry_policy", "using")]
    drafts = [call for call in calls if isinstance(call, publish.Draft)]
    if drafts or not calls:
        publish.publish(app, drafts, *said)
    if len(drafts) < len(calls):
        for call in calls:
            if isinstance(call, OwnCall):
                call.send(retry=said[0], retry_policy=said[1], using=said[2])


def refuse_unsendable(app: Umbel, frozen: Any) -> None:
    """Raise what `send` would raise of a canvas, and send nothing."""
    compiler = Compiler("")
    for node, _ in list(compiler.starts(frozen)):
        _check_arguments(app, node)
        task, options = app.known_task(node.signature["task"]), node.signature["options"]
        serializer = options.get("serializer") or (app.conf.task_serializer if task is None else task.serializer)
        encode_node(structs.replace(node, signature={**node.signature, "options": {}}, follow=Follow()), serializer)
    for node in compiler.nodes.values():
        encode_node(node, app.conf.task_serializer)


def drafts_of(app: Umbel, starts: Iterable[Start]) -> list[publish.Draft | OwnCall]:
    """Check the arguments of what starts, and build its messages."""
    return list(_drafts(app, starts))


def _drafts(app: Umbel, starts: Iterable[Start]) -> Iterator[publish.Draft | OwnCall]:
    for node, place in starts:
        _check_arguments(app, node)
        yield call_of(app, node, place)


def _check_arguments(app: Umbel, node: Node) -> None:
    task = app.known_task(node.signature["task"])
    if task is not None:
        task.checked(arguments_of(node.signature, ()), node.signature.get("kwargs") or {})
