"""What people ask of periodic tasks beside their rows: when each ran last, how that ended, and when it runs next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel.beat.editing import upcoming
from umbel.beat.planning import begin, slot_of
from umbel.beat.sending import run_id
from umbel.beat.stores import open_schedules
from umbel.contrib.django.periodic.documents import entry
from umbel.contrib.django.periodic.store import is_older
from umbel.exceptions import BackendError, ImproperlyConfigured, OperationalError
from umbel.schedule_store import State

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Known", "know"]

logger = logging.getLogger("celery.django")

NO_ANSWER = (OperationalError, BackendError, ImproperlyConfigured, NotImplementedError)


class Known(NamedTuple):
    """Of one periodic task."""

    last: datetime | None = None  # the moment of its last run
    id: str = ""  # of the last run's task
    result: Any = None  # an `AsyncResult` of it, read already
    state: str = ""  # of it
    runs: int = 0
    next: Sequence[datetime] = ()


def know(app: Umbel, tasks: Sequence[Any], *, following: int = 1) -> tuple[dict[str, Known], str]:
    """Return what is known of each of *tasks* by name, and why some of it is not: one question to each store, however many they are."""
    problem = ""
    try:
        with closing(open_schedules(app)) as store:
            now, states = store.now(), store.states([task.name for task in tasks])
    except NO_ANSWER as exc:
        now, states, problem = datetime.now(UTC).timestamp(), {}, str(exc)
    states = {task.name: states[task.name] for task in tasks if task.name in states and not is_older(states[task.name], task)}
    ids = {name: run_id(app, state.id) for name, state in states.items() if state.id}
    documents: dict[str, bytes | None] = {}
    if ids:
        try:
            documents = dict(zip(ids, app.backend.get(list(ids.values())), strict=True))
        except NO_ANSWER as exc:
            problem = str(exc)
    found = {}
    for task in tasks:
        state = states.get(task.name)
        following_runs = moments(app, task, state, following, now)
        found[task.name] = of_one(app, state, ids.get(task.name, ""), documents.get(task.name), following_runs)
    return found, problem


def of_one(app: Umbel, state: State | None, id: str, data: bytes | None, following: Sequence[datetime]) -> Known:
    """Put together what is known of one."""
    if state is None:
        return Known(next=following)
    if not id:
        return Known(runs=state.runs, next=following)
    result, status = app.AsyncResult(id), ""
    try:
        status = str(result.known_with(data).get("status", ""))
    except Exception as exc:  # noqa: BLE001 - a result that cannot be read hides no others
        logger.warning("The result of %s cannot be read: %s", id, exc)
    return Known(datetime.fromtimestamp(slot_of(state.id), UTC), id, result, status, state.runs, following)


def moments(app: Umbel, task: Any, state: State | None, count: int, now: float) -> list[datetime]:
    """Return the next runs; none of a row that cannot be an entry."""
    try:
        said = entry(task, app)
        slots = upcoming(said, state or State(task.name, begin(said, now)), count, now)
    except Exception:  # noqa: BLE001 - the log of the scheduler and the form say why
        return []
    return [datetime.fromtimestamp(slot, UTC) for slot in slots]
