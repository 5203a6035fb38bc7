"""From a node of a flow and a value to a message; and its place in the flow as the text that travels.

A client uses it for what starts a flow, a worker for what follows. It does no I/O, but in what users have overridden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from umbel import publish
from umbel.exceptions import DecodeError
from umbel.flow import Node, Place

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.task import Task

__all__ = [
    "FLOW_HEADER",
    "NO_VALUE",
    "OwnCall",
    "arguments_of",
    "call_of",
    "decode_place",
    "draft_of",
    "encode_place",
    "launch",
    "launch_options",
    "routed",
]

FLOW_HEADER = "umbel_flow"
NO_VALUE: tuple[Any, ...] = ()  # what the first tasks of a flow start with

_write_place = msgspec.json.Encoder().encode
_read_place = msgspec.json.Decoder(Place).decode


def encode_place(place: Place) -> str:
    """Write the header `umbel_flow`."""
    return _write_place(place).decode("ascii")


def decode_place(text: str) -> Place:
    """Read the header `umbel_flow`.

    Raises:
        DecodeError: it is none.
    """
    try:
        return _read_place(text)
    except (msgspec.DecodeError, TypeError, UnicodeError) as exc:
        raise DecodeError(f"The header {FLOW_HEADER!r} is {text!r:.60}: {exc}") from exc


def arguments_of(signature: Mapping[str, Any], value: Sequence[Any]) -> list[Any]:
    """Return the positional arguments of a task that starts with *value*: it stands first, unless the signature is immutable."""
    own = list(signature.get("args") or ())
    return own if signature.get("immutable") else [*value, *own]


def launch_options(
    app: Umbel,
    node: Node,
    place: Place | None,
    *,
    root_id: str | None = None,
    parent_id: str | None = None,
    parent_priority: int | None = None,
) -> dict[str, Any]:
    """Return the options of the call that starts a node: its own, its id, and its place as a header."""
    signature = node.signature
    options = {**(signature.get("options") or {}), "task_id": node.id}
    if root_id is not None:
        options["root_id"] = root_id
    if parent_id is not None:
        options["parent_id"] = parent_id
    if parent_priority is not None and app.conf.task_inherit_parent_priority:
        options["parent_priority"] = parent_priority
    if place is not None:
        options["headers"] = {**(options.get("headers") or {}), FLOW_HEADER: encode_place(place)}
    return routed(app, options)


def routed(app: Umbel, options: dict[str, Any]) -> dict[str, Any]:
    """Return *options* with the queue of the name that the option `route_name` says to route by; a queue that is named goes before."""
    if options.get("route_name") is None:
        return {key: value for key, value in options.items() if key != "route_name"}
    further = dict(options)
    route_name = further.pop("route_name")
    if not further.get("queue") and not further.get("exchange"):
        further["queue"] = app.router.route(route_name, (), {}, {}, app.known_task(route_name)).queue
    return further


def launch(
    app: Umbel,
    node: Node,
    place: Place | None,
    value: Sequence[Any] = NO_VALUE,
    *,
    root_id: str | None = None,
    parent_id: str | None = None,
    parent_priority: int | None = None,
) -> publish.Draft:
    """Build the message of a node that starts with *value*: a sequence of none or one, as `(result,)`.

    Args:
        app: whose task it is.
        node: which.
        place: what its header says; None: nothing follows it.
        value: what the task before it returned, or the list of the values of a join.
        root_id: of the message before it.
        parent_id: the id of the message before it.
        parent_priority: its priority, as the broker has it, for `task_inherit_parent_priority`.

    Raises:
        EncodeError: the arguments cannot be written.
        QueueNotFound: it names a queue that must exist and does not.
    """
    options = launch_options(app, node, place, root_id=root_id, parent_id=parent_id, parent_priority=parent_priority)
    args, kwargs = arguments_of(node.signature, value), dict(node.signature.get("kwargs") or {})
    name = node.signature["task"]
    task = app.known_task(name)
    if task is not None:
        return task.draft(args, kwargs, options)
    return publish.draft(publish.plan_of(app, name, None), name, args, kwargs, options)


class OwnCall(NamedTuple):
    """A call that the task's own `apply_async` makes: what users override is what runs. What it returns is of no interest."""

    task: Task[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]

    def send(self, **how: Any) -> None:
        """Make it; raises what the override does."""
        self.task.apply_async(self.args, self.kwargs, **self.options, **{name: value for name, value in how.items() if value is not None})


def call_of(
    app: Umbel,
    node: Node,
    place: Place | None,
    value: Sequence[Any] = NO_VALUE,
    *,
    root_id: str | None = None,
    parent_id: str | None = None,
    parent_priority: int | None = None,
) -> publish.Draft | OwnCall:
    """Do as `launch` does; of a task that has an `apply_async` of its own, return the call of that."""
    task = app.known_task(node.signature["task"])
    if task is None or not task._own_call:  # noqa: SLF001 - as a canvas is a friend of the task
        return launch(app, node, place, value, root_id=root_id, parent_id=parent_id, parent_priority=parent_priority)
    options = launch_options(app, node, place, root_id=root_id, parent_id=parent_id, parent_priority=parent_priority)
    options["add_to_parent"] = False
    return OwnCall(task, arguments_of(node.signature, value), dict(node.signature.get("kwargs") or {}), options)


def draft_of(call: publish.Draft | OwnCall) -> list[publish.Draft]:
    """Return a message that is to be published with others; a call of a task's own is made now, and there is none."""
    if isinstance(call, OwnCall):
        call.send()
        return []
    return [call]
