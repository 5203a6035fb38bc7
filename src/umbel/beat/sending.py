"""From what is due to messages on the broker: many runs in one step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import publish
from umbel.beat.entry import Entry
from umbel.beat.forms import Forms, fill, marked
from umbel.beat.planning import slot_id
from umbel.beat.watched import as_watched
from umbel.canvas.fresh import derived
from umbel.exceptions import OperationalError
from umbel.ids import uuid, uuid_of
from umbel.task import Task

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["REFUSED_AGAIN", "BeatLazyFunc", "Failed", "Run", "arguments_of", "memory", "problem_of", "run_id", "send", "send_now"]

logger = logging.getLogger("celery.beat")

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
DAY = 86400.0
KEPT = 3600.0  # seconds that the broker remembers a run: longer than any failover
REFUSED_AGAIN = 10.0  # seconds until a run is sent again that the broker has refused


class Run(NamedTuple):
    """One run of one entry."""

    entry: Entry
    slot: float


class BeatLazyFunc:
    """An argument of a periodic task that is made when it is sent: `BeatLazyFunc(function, *args, **kwargs)`."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func, self._args, self._kwargs = func, args, kwargs

    def __call__(self) -> Any:
        """Make it."""
        return self._func(*self._args, **self._kwargs)

    delay = __call__


def run_id(app: Umbel, run: str, options: Mapping[str, Any] = NO_OPTIONS) -> str:
    """Return the task id of a run: it follows from its name and its app's, unless the *options* of its entry give one."""
    return str(options.get("task_id") or uuid_of(f"umbel-beat:{app.main or ''}:{run}"))


def memory(app: Umbel) -> float:
    """Return for how many seconds a result is kept."""
    expires = app.conf.result_expires
    return expires.total_seconds() if isinstance(expires, timedelta) else float(expires or DAY)


@dataclass(frozen=True, slots=True)
class Failed:
    """What was not sent."""

    refused: dict[str, OperationalError] = field(default_factory=dict)  # by the broker, of these entries: to be sent again
    unsent: set[tuple[str, float]] = field(default_factory=set)  # names and slots of runs that cannot be sent, and have had their turn


def send(app: Umbel, runs: Sequence[Run], forms: Forms | None = None) -> Failed:
    """Send *runs*; return which were not sent: they hold up no other.

    One that the broker has refused is to be sent again. One that cannot be sent, as its arguments cannot be written, say, is logged.

    Raises:
        OperationalError: the broker did not take them, or perhaps it did: sent again, each takes effect once.
    """
    failed, forms = Failed(), forms or Forms()
    drafted: list[tuple[Run, publish.Draft]] = []
    for run in runs:
        with telling(run, failed):
            if (made := prepared(app, run, forms)) is not None:
                drafted.append((run, made))
    try:
        publish.publish(app, [each for _, each in drafted])
    except OperationalError as exc:
        if not getattr(exc, "refused", False):
            raise
        send_apart(app, [run for run, _ in drafted], forms, failed)
        if len(drafted) > 1 and all(run.entry.name in failed.refused for run, _ in drafted):  # so it is no entry's fault
            raise
    except Exception:  # noqa: BLE001 - one of them cannot be sent, as no queue takes it, say: the others can
        send_apart(app, [run for run, _ in drafted], forms, failed)
    for name, why in failed.refused.items():
        logger.error("beat: The periodic task %r is refused, and is tried again in %g s: %s", name, REFUSED_AGAIN, why)
    for run in runs:
        if run.entry.name not in failed.refused:
            logger.info("Scheduler: Sending due task %s (%s)", run.entry.name, run.entry.task)
    return failed


def send_apart(app: Umbel, runs: Sequence[Run], forms: Forms, failed: Failed) -> None:
    """Send each by itself, in a message of its own: one that was refused with others may be there, and another copy of it must be none."""
    for run in runs:
        with telling(run, failed):
            if (made := prepared(app, run, forms)) is not None:
                publish.publish(app, (made,))


@contextmanager
def telling(run: Run, failed: Failed) -> Iterator[None]:
    """Note or log why a run cannot be sent, if it is not that the broker is away."""
    try:
        yield
    except OperationalError as exc:
        if not getattr(exc, "refused", False):
            raise
        failed.refused[run.entry.name] = exc
    except Exception as exc:
        logger.exception("beat: Message Error: %s", exc)  # noqa: TRY401 - Celery's line
        failed.unsent.add((run.entry.name, run.slot))


def send_now(app: Umbel, run: Run) -> str:
    """Send a run beside the schedule, under an id of its own, which is returned.

    Raises:
        OperationalError: the broker did not take it.
        EncodeError: its arguments cannot be written.
    """
    options = {**run.entry.options, "headers": {**(run.entry.options.get("headers") or {}), "celery_beat_task": True}}
    task = app.tasks.get(run.entry.task)
    args, kwargs = arguments_of(run.entry)
    result = app.send_task(run.entry.task, args, kwargs, **options) if task is None else task.apply_async(args, kwargs, **options)
    return str(result.id)


def problem_of(app: Umbel, entry: Entry) -> str:
    """Return why runs of *entry* cannot be sent, as far as that is known here; nothing is sent."""
    try:
        args, kwargs = arguments_of(entry)
        task = app.tasks.get(entry.task)
        if task is not None:
            task.checked(args, kwargs)
        publish.draft(publish.plan_of(app, entry.task, task), entry.task, args, kwargs, options_of(app, Run(entry, 0.0)), tell=False)
    except Exception as exc:  # noqa: BLE001 - whatever it is, sending would raise it
        return str(exc)
    return ""


def prepared(app: Umbel, run: Run, forms: Forms) -> publish.Draft | None:
    """Write the message of a run; None: its task has sent it itself."""
    run = Run(as_watched(app, run.entry), run.slot)
    entry = run.entry
    args, kwargs = arguments_of(entry)
    task = app.tasks.get(entry.task)
    if sends_itself(app, task, entry.options):
        options = options_of(app, run)
        with derived(run_id(app, options["headers"]["umbel_slot"])):  # the ids of what follows it: sent again, it is the same workflow
            if task is None:
                app.send_task(entry.task, args, kwargs, **options)
            else:
                task.apply_async(args, kwargs, **options)
        return None
    if task is not None:
        task.checked(args, kwargs)
    if (found := forms.find(app, task, entry)) is not None:
        name = slot_id(entry.name, run.slot)
        key = run_id(app, name)
        return fill(found, (entry.task, args, kwargs), name, key, once=key, once_for=remembered(entry))
    if task is None:
        return publish.draft(publish.plan_of(app, entry.task, None), entry.task, args, kwargs, options_of(app, run))
    return task.draft(args, kwargs, options_of(app, run))


def sends_itself(app: Umbel, task: Task[..., Any] | None, options: Mapping[str, Any]) -> bool:
    """Answer whether `apply_async` has to be called, as it does more than to write one message."""
    if task is None:
        return publish.is_followed(options)
    replaced = getattr(Task.apply_async, "__globals__", {}).get("__name__") != Task.__module__  # by a tool that watches all calls
    own = type(task).apply_async is not Task.apply_async
    return own or replaced or app.conf.task_always_eager or publish.is_followed(options)


def options_of(app: Umbel, run: Run) -> dict[str, Any]:
    """Return the options of a run's call, and what makes it one, however many schedulers send it.

    That is the once-key, where the broker keeps such keys. Elsewhere each message names a copy, of which workers start one. So it is, too,
    with a run that something follows: where its message was left out, what follows would wait for ever.
    """
    entry, name = run.entry, slot_id(run.entry.name, run.slot)
    options = {**marked(entry.options, name), "task_id": run_id(app, name, entry.options)}
    if entry.runs_alone:
        options["ignore_result"] = False  # its state says whether it has ended
        if options.get("expires", getattr(app.tasks.get(entry.task), "expires", None)) is None:
            options["expires"] = memory(app)  # it counts as ended then: it must not begin
    if app.broker.features.once and not publish.is_followed(options):
        options |= {"once_key": run_id(app, name), "once_for": remembered(entry)}
    else:
        options["headers"]["umbel_copy"] = f"{run_id(app, name)} {uuid()}"
    return options


def remembered(entry: Entry) -> float:
    """Return for how many seconds the broker is to remember a run."""
    return KEPT + (entry.patience or 0)


def arguments_of(entry: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call of *entry*, ours or of Celery's kind, as they are sent."""
    return [made_one(value) for value in entry.args or ()], {name: made_one(value) for name, value in (entry.kwargs or {}).items()}


def made_one(value: Any) -> Any:
    """Return an argument, made now if it is a `BeatLazyFunc`."""
    return value() if isinstance(value, BeatLazyFunc) else value
