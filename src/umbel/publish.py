"""From a call to a message on the broker: plan, draft, publish.

A plan holds what all calls of one task share until a setting changes. A draft is one call, encoded. Only `publish` does I/O.

`_letter` alone decides the fields of a message. Calls without options differ only in a few values: the plan has `_letter` write one of
them and cuts it into a stencil, which the others fill.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from umbel.attempts import deliver
from umbel.broker import Item
from umbel.current import current_frame, worker_frame
from umbel.exceptions import BrokerUnavailable, EncodeError
from umbel.ids import LONGEST_NAME, anon_nodename, is_name, reply_oid, uuid, uuids
from umbel.joining import may_join
from umbel.moments import Moment, moment
from umbel.once import key_of
from umbel.priorities import checked, turned, turns
from umbel.routing import Destination
from umbel.said import store_pending
from umbel.signals import after_task_publish, before_task_publish
from umbel.wire import message as wire
from umbel.wire.jsontypes import dumps
from umbel.wire.saferepr import saferepr
from umbel.wire.serializers import compress, encode
from umbel.wire.size import check_written, limit_of
from umbel.wire.stencil import Slip, Stencil

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.task import Task

__all__ = ["Draft", "Plan", "announce", "draft", "drafts", "filled", "form_of", "is_followed", "plan_of", "publish"]

logger = logging.getLogger("celery.publish")

# Options of a call that a task can set for all its calls, as attributes.
CALL_ATTRIBUTES = ("queue", "exchange", "routing_key", "priority", "delivery_mode", "expires")
DELIVERY_MODES = {"persistent": 2, "transient": 1}
CHUNK = 500  # messages in one call of the broker
NOTHING_EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
NOTHING_EMBEDDED_TEXT = dumps(NOTHING_EMBEDDED)


def is_followed(options: Mapping[str, Any]) -> bool:
    """Whether something follows a call with these options."""
    return bool(options.get("link") or options.get("link_error") or options.get("chain"))


class Draft(msgspec.Struct, frozen=True, gc=False):
    """One call, ready to be sent."""

    name: str
    item: Item
    ignored: bool
    told: Mapping[str, Any] | None = None  # to `after_task_publish`; None: nobody listened


@dataclass(frozen=True, slots=True)
class Form:
    """What the calls without options have in common: all but what fills the stencil."""

    stencil: Stencil
    queue: str
    priority: int
    ignored: bool
    largest: int  # bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What all calls of one task have in common."""

    app: Umbel
    task: Task[..., Any] | None
    generation: int  # of the settings that it was made from
    defaults: Mapping[str, Any]  # options that the task's attributes give to each call
    destination: Destination | None  # None: it depends on the call
    serializer: str
    compression: str | None
    headers: dict[str, Any]  # copied for each call
    delivery_mode: int
    inherits_priority: bool
    turns: bool  # are priorities not those of the broker?
    delays_in_broker: bool
    depth: int  # of nested values in argsrepr
    largest: int  # bytes of a message
    form: Form | None = None  # None: calls differ in more than their arguments, or are not JSON


def plan_of(app: Umbel, name: str, task: Task[..., Any] | None) -> Plan:
    """Return the plan for *name*; it is made anew after a change of settings."""
    plan = app.plans.get(name)
    if plan is None or plan.generation != app.conf.generation or plan.task is not task:
        plan = app.plans[name] = _with_form(_make_plan(app, name, task), name)
    return plan


def _with_form(plan: Plan, name: str) -> Plan:
    if plan.destination is None or "expires" in plan.defaults or plan.serializer != "json" or plan.compression:
        return plan
    return replace(plan, form=form_of(plan, name, {}))


def form_of(plan: Plan, name: str, options: Mapping[str, Any], run: str = "") -> Form:
    """Make the form of calls with the same options; *run* stands in their headers where each says the name of its run."""
    slip = msgspec.structs.replace(Slip(*(uuid() for _ in Slip.__struct_fields__)), sent="1764180000.123", run=run)
    args = (uuid(),)
    # In a context of its own, where no task runs from which it could inherit.
    example = Context().run(_letter, plan, name, args, {}, options, slip, tell=False)
    stencil = Stencil(example.item.raw, slip, _plain_body(args, {}))
    return Form(stencil, example.item.queue, example.item.priority, example.ignored, plan.largest)


def _make_plan(app: Umbel, name: str, task: Task[..., Any] | None) -> Plan:
    conf = app.conf
    if not is_name(name):
        raise ValueError(f"The name of a task is {saferepr(name, 60)}. It must be a text of 1 to {LONGEST_NAME} printable characters.")
    defaults = {key: value for key in CALL_ATTRIBUTES if (value := getattr(task, key, None)) is not None}
    defaults.update({} if task is None else task.time_limits())
    return Plan(
        app=app,
        task=task,
        generation=conf.generation,
        defaults=defaults,
        destination=None if conf.task_routes else app.router.route(name, (), {}, defaults, task),
        serializer=conf.task_serializer if task is None else task.serializer,
        compression=conf.task_compression if task is None else task.compression,
        headers=_template(name, None if task is None else task.ignore_result),
        delivery_mode=_mode(conf.task_default_delivery_mode),
        turns=turns(conf),
        inherits_priority=conf.task_inherit_parent_priority,
        delays_in_broker=conf.task_delay_for != "celery",
        depth=conf.task_repr_maxlevels,
        largest=limit_of(conf.task_message_max_size),
    )


def _mode(mode: int | str) -> int:
    return DELIVERY_MODES[mode] if isinstance(mode, str) else mode


def draft(plan: Plan, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], tell: bool = True) -> Draft:
    """Build and encode the message of one call; *tell* says whether `before_task_publish` hears of it.

    Raises:
        EncodeError: the arguments cannot be written.
        QueueNotFound: it names a queue that must exist and does not.
    """
    return drafts(plan, name, ((args, kwargs),), options, tell)[0]


def drafts(
    plan: Plan, name: str, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]], options: Mapping[str, Any], tell: bool = True
) -> list[Draft]:
    """Do as `draft` does for many calls of one task."""
    reply_to, origin, depth, sent = reply_oid(id(plan.app)), anon_nodename(), plan.depth, str(int(time.time() * 1000) / 1000)
    listened = before_task_publish.receivers or after_task_publish.receivers
    form = None if options or listened or current_frame() is not None else plan.form
    found = []
    ids = iter(uuids(2 * len(calls)))
    for (args, kwargs), task_id, tag in zip(calls, ids, ids, strict=True):
        argsrepr = saferepr(args, 1024, depth) if args else repr(args)
        kwargsrepr = saferepr(kwargs, 1024, depth) if kwargs else repr(kwargs)
        slip = Slip(task_id, tag, reply_to, origin, argsrepr, kwargsrepr, sent)
        found.append(_letter(plan, name, args, kwargs, options, slip, tell) if form is None else filled(form, name, args, kwargs, slip))
    return found


def filled(form: Form, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], slip: Slip, **once: Any) -> Draft:
    """Build the message of a call for which there is a form, and of which nobody wants to hear."""
    try:
        raw = form.stencil.fill(slip, _plain_body(args, kwargs))
    except EncodeError as exc:
        raise _unsendable(name, exc) from exc
    if len(raw) > form.largest:
        _check_size(name, len(raw), form.largest)
    return Draft(name, Item(raw=raw, queue=form.queue, id=slip.id, priority=form.priority, **once), form.ignored)


def _plain_body(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Write the body of a call without embedded signatures."""
    return f"{dumps((args, kwargs))[:-1]}, {NOTHING_EMBEDDED_TEXT}]".encode("ascii")


def _unsendable(name: str, exc: EncodeError) -> EncodeError:
    return EncodeError(f"The arguments of {name} cannot be sent: {exc}")


def _letter(
    plan: Plan, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], slip: Slip, tell: bool
) -> Draft:
    """Build the message of any call."""
    app = plan.app
    if plan.destination is not None and not options:
        destination, options = plan.destination, plan.defaults
    else:
        options = {**plan.defaults, **options}
        destination = app.router.route(name, args, kwargs, options, plan.task)
    if destination.options:
        options = {**destination.options, **options}
    if options.get("task_id"):
        if not is_name(options["task_id"]):
            raise ValueError(
                f"task_id is {saferepr(options['task_id'], 60)}. It must be a text of 1 to {LONGEST_NAME} printable characters."
            )
        slip = msgspec.structs.replace(slip, id=options["task_id"])
    due, expires = (None, None) if not options else _times(app, options)
    headers = _headers(plan, slip, options)
    if due:
        headers["eta"] = due.text
    if expires:
        headers["expires"] = expires.text
    properties = _properties(plan, slip, destination, options, expires)
    body = (args, kwargs, options.get("embed") or dict(NOTHING_EMBEDDED))
    if tell and before_task_publish.receivers:
        before_task_publish.send(
            sender=name, body=body, exchange=destination.exchange, routing_key=destination.routing_key,
            headers=headers, properties=properties, declare=[], retry_policy=app.conf.task_publish_retry_policy,
        )  # fmt: skip
    item = Item(
        raw=_encode(plan, headers, properties, body, options),
        queue=destination.queue,
        id=slip.id,
        priority=checked(properties["priority"] or 0),
        due=due.at if due and plan.delays_in_broker and due.at > time.time() else None,
        **key_of(options),
    )
    told = {"body": body, "headers": headers, "exchange": destination.exchange, "routing_key": destination.routing_key}
    return Draft(name, item, bool(headers["ignore_result"]), told)


def _times(app: Umbel, options: Mapping[str, Any]) -> tuple[Moment | None, Moment | None]:
    eta, expires = options.get("countdown") or options.get("eta"), options.get("expires")
    if eta is None and expires is None:
        return None, None
    now, zone = time.time(), app.timezone
    return (
        moment(eta, now, zone) if eta is not None else None,
        moment(expires, now, zone) if expires is not None else None,
    )


def _template(name: str, ignore_result: bool | None) -> dict[str, Any]:
    """Return the headers of a call without options, in the order in which Celery writes them; None: said at the call."""
    return {
        "lang": "py",
        "task": name,
        "id": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": None,
        "root_id": None,
        "parent_id": None,
        "argsrepr": None,
        "kwargsrepr": None,
        "origin": None,
        "ignore_result": ignore_result,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": None,
        "umbel_sent": None,
    }


def _headers(plan: Plan, slip: Slip, options: Mapping[str, Any]) -> dict[str, Any]:
    headers = plan.headers.copy()
    headers["id"] = headers["root_id"] = slip.id
    headers["timelimit"] = [options.get("time_limit"), options.get("soft_time_limit")]
    headers["origin"] = slip.origin
    headers["stamps"] = {}
    if current_frame() is not None and (frame := worker_frame()) is not None:
        headers["root_id"] = frame.request.root_id or frame.request.id
        headers["parent_id"] = frame.request.id
    if options:
        _say_options(headers, options)
    if headers["argsrepr"] is None:
        headers["argsrepr"] = slip.argsrepr
    if headers["kwargsrepr"] is None:
        headers["kwargsrepr"] = slip.kwargsrepr
    headers["umbel_sent"] = float(slip.sent)
    return headers


# Options that are headers, and their names as headers.
HEADER_OPTIONS = {
    "shadow": "shadow", "group_id": "group", "group_index": "group_index", "retries": "retries", "timelimit": "timelimit",
    "root_id": "root_id", "parent_id": "parent_id", "argsrepr": "argsrepr", "kwargsrepr": "kwargsrepr", "origin": "origin",
    "ignore_result": "ignore_result", "replaced_task_nesting": "replaced_task_nesting",
}  # fmt: skip


def _say_options(headers: dict[str, Any], options: Mapping[str, Any]) -> None:
    for option, header in HEADER_OPTIONS.items():
        if options.get(option) is not None:
            headers[header] = options[option]
    if stamped := options.get("stamped_headers"):
        headers["stamped_headers"] = sorted(stamped)
        headers["stamps"] = options.get("stamps") or {key: options[key] for key in stamped if key in options}
    headers.update(options.get("headers") or {})


def _properties(plan: Plan, slip: Slip, destination: Destination, options: Mapping[str, Any], expires: Moment | None) -> dict[str, Any]:
    mode = options.get("delivery_mode") or plan.delivery_mode
    properties: dict[str, Any] = {
        "correlation_id": options.get("correlation_id") or slip.id,
        "reply_to": options.get("reply_to") or slip.reply_to,
        "delivery_mode": _mode(mode),
    }
    if expires is not None:
        left = expires.at - time.time()
        if left < 0:
            logger.warning("%s[%s] expired %.3f s before it was sent.", options.get("shadow") or destination.queue, slip.id, -left)
        properties["expiration"] = str(max(0, round(left * 1000)))
    properties["delivery_info"] = {"exchange": destination.exchange, "routing_key": destination.routing_key}
    properties["priority"] = _priority(plan, destination, options)
    properties["body_encoding"] = "base64"
    properties["delivery_tag"] = slip.tag
    return properties


def _priority(plan: Plan, destination: Destination, options: Mapping[str, Any]) -> int:
    if plan.inherits_priority and options.get("priority") is None:
        inherited = options.get("parent_priority")  # which a worker's parent gives to what follows a task
        if inherited is None and (frame := worker_frame()) is not None:
            inherited = (frame.request.delivery_info or {}).get("priority")
        if inherited is not None:
            return int(inherited)
    return turned(plan.app.router, destination.queue, destination.priority or 0) if plan.turns else destination.priority or 0


def _encode(
    plan: Plan, headers: dict[str, Any], properties: dict[str, Any], body: tuple[Any, Any, Any], options: Mapping[str, Any]
) -> bytes:
    try:
        serializer = options.get("serializer") or plan.serializer
        if serializer == "json":
            content_type, content_encoding, data = "application/json", "utf-8", dumps(body).encode("ascii")
        else:
            content_type, content_encoding, data = encode(serializer, body)
    except EncodeError as exc:
        raise _unsendable(headers["task"], exc) from exc
    compression = options.get("compression") or plan.compression
    if compression:
        _check_size(headers["task"], len(data), plan.largest)
        headers["compression"], data = compress(data, compression)
    message = wire.Message(headers=headers, properties=properties, body=data, content_type=content_type, content_encoding=content_encoding)
    raw = wire.encode(message)
    _check_size(headers["task"], len(raw), plan.largest)
    return raw


def _check_size(name: str, size: int, largest: int) -> None:
    """Refuse a call whose message, or whose body before it is compressed, is too large."""
    check_written(f"The message of a call of {name}", size, largest, "task_message_max_size")


def publish(
    app: Umbel, drafts: Sequence[Draft], retry: bool | None = None, policy: Mapping[str, Any] | None = None, using: object = None
) -> None:
    """Send *drafts*, in order, and tell `after_task_publish`; *using* says through which connection (see `umbel.using`).

    Raises:
        BrokerUnavailable: the broker did not take them within `broker_publish_timeout`; `maybe_sent`, if it has perhaps the first of them.
    """
    if (replies := app.replies) is not None and may_join() and not all(each.ignored for each in drafts):
        replies.expect(reply_oid(id(app)))
    for start in range(0, len(drafts), CHUNK):
        if app.conf.result_honest_states:
            store_pending(app, [each.item.id for each in drafts[start : start + CHUNK] if not each.ignored])
        try:
            deliver(app, [each.item for each in drafts[start : start + CHUNK]], retry, policy, using)
        except BrokerUnavailable as exc:
            if start:
                exc.maybe_sent, exc.args = True, (f"{exc} The first {start} of {len(drafts)} messages were sent before.",)
            raise
    if after_task_publish.receivers:
        announce(drafts)


def announce(drafts: Sequence[Draft]) -> None:
    """Tell `after_task_publish` of *drafts*."""
    if after_task_publish.receivers:
        for each in drafts:
            if each.told is not None:
                after_task_publish.send(sender=each.name, **each.told)
