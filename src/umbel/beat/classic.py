"""Celery's scheduler classes, for those who subclass them: `ScheduleEntry` and `Scheduler`. umbel's own scheduler uses neither.

`Service` runs a scheduler of this kind: it calls `tick`, which looks at the entry that is due first, and calls the methods below it
that subclasses replace. What was sent last is known to the entries alone.
"""

from __future__ import annotations

import copy
import heapq
import logging
import time
from calendar import timegm
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from umbel.beat.sending import arguments_of
from umbel.current import get_current_app
from umbel.exceptions import UmbelError
from umbel.schedules import BaseSchedule, maybe_schedule

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["DEFAULT_MAX_INTERVAL", "ScheduleEntry", "Scheduler", "SchedulingError", "event_t"]

logger = logging.getLogger("celery.beat")

DEFAULT_MAX_INTERVAL: Final = 300  # seconds between two ticks at most
AGAIN: Final = 300.0  # seconds until an entry is looked at again whose schedule raised
PRIORITY: Final = 5  # of all events
EDITABLE: Final = ("task", "schedule", "args", "kwargs", "options")


class SchedulingError(UmbelError):
    """A periodic task could not be sent."""


class event_t(NamedTuple):  # noqa: N801 - Celery's name
    """When to look at an entry."""

    time: float
    priority: int
    entry: Any


class ScheduleEntry:
    """One periodic task, and when it ran last.

    Args:
        name: it is known by this.
        task: the name of the task.
        last_run_at: now by default: a new entry is not due at once.
        total_run_count: how often it has run.
        schedule: seconds, a timedelta or a schedule.
        args: arguments of each call.
        kwargs: keyword arguments of each call.
        options: of `apply_async`.
        relative: of a schedule that is given by a number, see `schedule`.
        app: the current one by default.
    """

    name: str | None = None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: datetime | None = None
    total_run_count = 0

    def __init__(
        self, name: str | None = None, task: str | None = None, last_run_at: datetime | None = None, total_run_count: int | None = None,
        schedule: Any = None, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None,
        relative: bool = False, app: Umbel | None = None,
    ) -> None:  # fmt: skip
        self.app = app
        self.name, self.task, self.args = name, task, args
        self.kwargs, self.options = kwargs or {}, options or {}
        self.schedule = maybe_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime:
        """Return the time, by the clock of its schedule."""
        if isinstance(self.schedule, BaseSchedule):
            return self.schedule.now()
        return (self.app or get_current_app()).now()

    _default_now = default_now

    def is_due(self) -> Any:
        """Ask its schedule whether it is due, and in how many seconds to ask again."""
        return self.schedule.is_due(self.last_run_at)

    def _next_instance(self, last_run_at: datetime | None = None) -> Self:
        """Return it as it is after a run at *last_run_at*."""
        said = {**dict(self), "last_run_at": last_run_at or self.default_now(), "total_run_count": self.total_run_count + 1}
        return type(self)(**said)

    __next__ = next = _next_instance

    def update(self, other: ScheduleEntry) -> None:
        """Be what *other* says: all but when it ran."""
        for name in EDITABLE:
            setattr(self, name, getattr(other, name))

    def editable_fields_equal(self, other: ScheduleEntry) -> bool:
        """Answer whether *other* says the same: all but when it ran."""
        return all(getattr(self, name) == getattr(other, name) for name in EDITABLE)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __reduce__(self) -> tuple[Any, ...]:
        said = (self.name, self.task, self.last_run_at, self.total_run_count, self.schedule, self.args, self.kwargs, self.options)
        return type(self), said

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScheduleEntry) and self.editable_fields_equal(other)

    def __lt__(self, other: object) -> bool:  # two entries of one moment and priority: any order
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as Celery's, which are equal by what may change

    def __repr__(self) -> str:
        given = [*map(repr, self.args or ()), *(f"{name}={value!r}" for name, value in (self.kwargs or {}).items())]
        return f"<{type(self).__name__}: {self.name} {self.task}({', '.join(given)}) {self.schedule}>"


class Scheduler:
    """Sends what is due, one entry in each `tick`.

    Args:
        app: whose periodic tasks it sends.
        schedule: entries that are there before those of `beat_schedule`.
        max_interval: seconds between two ticks at most; `beat_max_loop_interval`, or what the class says, by default.
        Producer: has no effect: connections are the driver's own.
        lazy: do not call `setup_schedule`.
        sync_every_tasks: call `sync` after so many tasks; `beat_sync_every` by default.
        other: of subclasses.
    """

    Entry: type[Any] = ScheduleEntry
    max_interval: float = DEFAULT_MAX_INTERVAL
    sync_every: float = 3 * 60  # seconds
    sync_every_tasks: int | None = None
    logger = logger
    _last_sync: float | None = None
    _tasks_since_sync = 0

    def __init__(
        self, app: Umbel, schedule: Any = None, max_interval: float | None = None, Producer: Any = None, lazy: bool = False,  # noqa: N803
        sync_every_tasks: int | None = None, **other: Any,
    ) -> None:  # fmt: skip
        del other
        self.app, self.Producer = app, Producer
        self.data: Any = {} if schedule is None else schedule
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        self.sync_every_tasks = app.conf.beat_sync_every if sync_every_tasks is None else sync_every_tasks
        self._heap: list[event_t] | None = None
        self.old_schedules: Any = None
        if not lazy:
            self.setup_schedule()

    # --- the entries

    def setup_schedule(self) -> None:
        """Fill the schedule: from `beat_schedule`, and with what is always there."""
        self.merge_inplace(self.app.conf.beat_schedule or {})
        self.install_default_entries(self.schedule)

    def install_default_entries(self, data: Any) -> None:
        """Add what is always there: nothing, as umbel's workers and backends delete expired results themselves."""

    def get_schedule(self) -> Any:
        """Return the entries by name."""
        return self.data

    def set_schedule(self, schedule: Any) -> None:
        """Replace them."""
        self.data = schedule

    schedule: Any = property(lambda self: self.get_schedule(), lambda self, schedule: self.set_schedule(schedule))

    def add(self, **said: Any) -> Any:
        """Add an entry, and return it."""
        entry = self.Entry(app=self.app, **said)
        self.schedule[entry.name] = entry
        return entry

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**{**entry, "name": name, "app": self.app})

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Add entries, or replace them."""
        self.schedule.update({name: self._maybe_entry(name, entry) for name, entry in dict_.items()})

    def merge_inplace(self, b: Mapping[str, Any]) -> None:
        """Make the entries those of *b*; those that are there stay, and know when they ran."""
        schedule: MutableMapping[str, Any] = self.schedule
        for name in [name for name in schedule if name not in b]:
            del schedule[name]
        for name, said in b.items():
            entry = self._maybe_entry(name, said)
            if name in schedule:
                schedule[name].update(entry)
            else:
                schedule[name] = entry

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Answer whether both say the same; if not, the order of what is due is made anew."""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        if set(old_schedules) != set(new_schedules):
            return False
        return all(new_schedules[name] == entry for name, entry in old_schedules.items())

    # --- what is due

    def is_due(self, entry: Any) -> Any:
        """Answer whether *entry* is due, and in how many seconds to ask again."""
        return entry.is_due()

    def adjust(self, n: float | None, drift: float = -0.010) -> float | None:
        """Return a wait that is a little shorter, as what follows takes a moment."""
        return n + drift if n and n > 0 else n

    def _when(self, entry: Any, next_time_to_run: float | None, mktime: Callable[[Any], float] = timegm) -> float:
        """Return the moment, in seconds since the epoch, that is *next_time_to_run* away."""
        now = entry.default_now() if hasattr(entry, "default_now") else self.app.now()
        if now.tzinfo is not None:
            return float(now.timestamp() + (self.adjust(next_time_to_run) or 0))
        return mktime(now.utctimetuple()) + now.microsecond / 1e6 + (self.adjust(next_time_to_run) or 0)

    def _asked(self, entry: Any) -> tuple[bool, float]:
        """Ask whether *entry* is due. One that cannot say so holds up no other."""
        try:
            is_due, next_time = self.is_due(entry)
        except Exception:
            logger.exception("beat: Cannot calculate the next run of %r, trying again in %d seconds.", entry.name, AGAIN)
            return False, AGAIN
        return is_due, self.max_interval if next_time is None else next_time

    def populate_heap(self, event_t: Any = event_t, heapify: Callable[[Any], None] = heapq.heapify) -> None:
        """Bring all entries into the order in which they are due."""
        heap = []
        for entry in self.schedule.values():
            is_due, next_time = self._asked(entry)
            heap.append(event_t(self._when(entry, 0 if is_due else next_time), PRIORITY, entry))
        heapify(heap)
        self._heap = heap

    def tick(
        self, event_t: Any = event_t, min: Any = min, heappop: Any = heapq.heappop, heappush: Any = heapq.heappush,
    ) -> float:  # fmt: skip
        """Send one entry, if one is due; return after how many seconds to come again."""
        schedule = self.schedule
        if self._heap is None or not self.schedules_equal(self.old_schedules, schedule):
            self.old_schedules = copy.copy(schedule)
            self.populate_heap()
        if not self._heap:
            return self.max_interval
        entry, priority = self._heap[0][2], self._heap[0][1]
        is_due, next_time = self._asked(entry)
        heappop(self._heap)
        following = entry
        try:
            if is_due:
                following = self.reserve(entry)
                self.apply_entry(entry, producer=self.producer)
        finally:
            heappush(self._heap, event_t(self._when(following, next_time), priority, following))
        return 0 if is_due else float(min(max(self._heap[0][0] - time.time(), 0), self.max_interval))

    def reserve(self, entry: Any) -> Any:
        """Note that *entry* runs now, and return it as it is afterwards."""
        self.schedule[entry.name] = following = next(entry)
        return following

    # --- sending

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send *entry*. If that fails it is logged, and the entry has had its turn."""
        self._announce(entry)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as exc:
            logger.exception("beat: Message Error: %s", exc)  # noqa: TRY401 - Celery's line
        else:
            logger.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))

    def _announce(self, entry: Any) -> None:
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send *entry*; with *advance*, after noting that it runs now.

        Raises:
            SchedulingError: it could not be sent.
        """
        entry = self.reserve(entry) if advance else entry
        options = {**entry.options, "headers": {**(entry.options.get("headers") or {}), "celery_beat_task": True}, **kwargs}
        task = self.app.tasks.get(entry.task)
        try:
            arguments, named = arguments_of(entry)
            if task is None:
                return self.send_task(entry.task, arguments, named, producer=producer, **options)
            return task.apply_async(arguments, named, producer=producer, **options)
        except Exception as exc:
            raise SchedulingError(f"The periodic task {entry.name!r} could not be sent: {exc}") from exc
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        """Send a task that is not known here."""
        return self.app.send_task(*args, **kwargs)

    @cached_property
    def connection(self) -> Any:
        """The app's connection to the broker."""
        return self.app.connection()

    @cached_property
    def producer(self) -> Any:
        """None: connections are the driver's own."""
        return None

    # --- keeping

    def should_sync(self) -> bool:
        """Answer whether it is time to write what has run."""
        late = self._last_sync is None or time.monotonic() - self._last_sync > self.sync_every
        return late or bool(self.sync_every_tasks and self._tasks_since_sync >= self.sync_every_tasks)

    def _do_sync(self) -> None:
        try:
            logger.debug("beat: Synchronizing schedule...")
            self.sync()
        finally:
            self._last_sync, self._tasks_since_sync = time.monotonic(), 0

    def sync(self) -> None:
        """Write what has run: a subclass does."""

    def close(self) -> None:
        """Write it, at the end."""
        self.sync()

    @property
    def info(self) -> str:
        """A line for the banner."""
        return ""


APPLY_ENTRY: Final = Scheduler.apply_entry  # as it is if no tool has replaced it
