"""Messages of runs that differ in their moments and arguments alone: forms that are filled in, as for calls without options."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from umbel import publish
from umbel.current import current_frame
from umbel.ids import anon_nodename, reply_oid, uuid
from umbel.signals import after_task_publish, before_task_publish
from umbel.task import Task
from umbel.wire.saferepr import saferepr
from umbel.wire.stencil import Slip

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.beat.entry import Entry

__all__ = ["Forms", "fill", "marked"]

MOST: Final = 10_000  # forms
SAME: Final = frozenset({"queue", "exchange", "routing_key", "priority", "ignore_result", "time_limit", "soft_time_limit"})


class Made(NamedTuple):
    """A form, and the plan that it was made from."""

    plan: publish.Plan
    form: publish.Form


def marked(options: Mapping[str, Any], run: str) -> dict[str, Any]:
    """Return the options of a run's call, with the headers that say that it is one."""
    return {**options, "headers": {**(options.get("headers") or {}), "celery_beat_task": True, "umbel_slot": run}}


class Forms:
    """Those that were made: one for each task and its options."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Made] = {}

    def find(self, app: Umbel, task: Task[..., Any] | None, entry: Entry) -> Made | None:
        """Return the form of the runs of an entry; None: more than the moment and the arguments differs, or somebody listens."""
        plan = publish.plan_of(app, entry.task, task)
        if plan.form is None or before_task_publish.receivers or after_task_publish.receivers or current_frame() is not None:
            return None
        if entry.runs_alone or not app.broker.features.once or (task is not None and type(task).shadow_name is not Task.shadow_name):
            return None
        if not all(name in SAME and isinstance(value, str | float | int | None) for name, value in entry.options.items()):
            return None
        key = (entry.task, *entry.options.items())
        made = self._made.get(key)
        if made is None or made.plan is not plan:
            if len(self._made) >= MOST:
                self._made.clear()
            run = uuid()
            made = self._made[key] = Made(plan, publish.form_of(plan, entry.task, marked(entry.options, run), run))
        return made


def fill(made: Made, call: tuple[str, Sequence[Any], Mapping[str, Any]], run: str, task_id: str, **once: Any) -> publish.Draft:
    """Write the message of a run: *call* is its task and arguments, *once* its key, as `Item` has it.

    Raises:
        EncodeError: the arguments cannot be written.
    """
    name, args, kwargs = call
    plan = made.plan
    slip = Slip(
        id=task_id, tag=uuid(), reply_to=reply_oid(id(plan.app)), origin=anon_nodename(), argsrepr=saferepr(args, 1024, plan.depth),
        kwargsrepr=saferepr(kwargs, 1024, plan.depth), sent=str(int(time.time() * 1000) / 1000), run=run,
    )  # fmt: skip
    return publish.filled(made.form, name, args, kwargs, slip, **once)
