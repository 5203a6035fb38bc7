"""Rate limits: how often this worker starts a task. Decided without I/O; whoever calls hands the time in.

Each limited task has a bucket that holds one token, which comes back after the interval. What comes next waits here for
it, outside of the slots. What would wait longer is put off: it gets a turn, a time at which it may start, and goes to the
delayed messages of the broker, so that the messages behind it can be claimed. A turn is a place in the order, not a right.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from umbel.broker import Settlement, Verb
from umbel.exceptions import ImproperlyConfigured
from umbel.execution.verdict import Request
from umbel.task import Task
from umbel.wire.marks import turn_of, with_turn

__all__ = ["RateLimits", "interval_of"]

HORIZON = 1.0  # seconds that a request waits here at most
MOST = 500  # requests of one task that wait here
AHEAD = 60.0  # seconds: what is put off for longer asks again then: another worker may be there, or another limit
SPACING = 0.01  # seconds more for each message before it, so that a long queue costs little
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def interval_of(rate: str | float | None) -> float | None:
    """Return the seconds between two starts that *rate* asks for, such as '10/s', '100/m', '5/h' or 10; None: no limit.

    Raises:
        ValueError: it is not a rate.
    """
    per_second = math.nan
    if isinstance(rate, str):
        number, _, unit = rate.partition("/")
        with contextlib.suppress(ValueError, KeyError):
            per_second = float(number) / UNITS[unit.strip() or "s"]
    else:
        per_second = float(rate or 0)
    if not 0 <= per_second < math.inf:
        raise ValueError(f"{rate!r} is not a rate limit. Write '10/s', '100/m', '5/h', a number per second, or None.")
    return 1 / per_second if per_second else None


class PutOff(NamedTuple):
    """A message that waits in the broker."""

    seconds: float  # until it asks again
    turn: float  # when it may start, by `time.monotonic`


@dataclass(slots=True)
class Bucket:
    """The token of one task, and who waits for it. Times are those of `time.monotonic`."""

    rate: Any
    interval: float
    free_at: float = 0.0  # when the token is there
    held: deque[Request] = field(default_factory=deque)
    planned: float = 0.0  # up to when turns were given to messages that are put off

    def hold(self, request: Request, turn: float | None, now: float) -> PutOff | None:
        """Let *request*, which was given *turn* before, wait here and return None, or say how to put it off."""
        soonest = max(now, self.free_at) + len(self.held) * self.interval
        room = soonest - now <= HORIZON and len(self.held) < MOST
        come = turn is not None and turn <= now + HORIZON
        # Whose turn has not come waits behind those who have theirs before, unless the token would lie idle.
        if room and (come or soonest >= self.planned or soonest == now):
            self.held.append(request)
            return None
        end = max(soonest, self.planned)
        if turn is None or come or end < turn:  # another worker gave it, who had more to do
            turn, self.planned = end, end + self.interval
        before = (turn - now) / self.interval if self.interval else 0
        return PutOff(min(turn - now, AHEAD + before * SPACING), turn)

    def clear(self) -> list[Request]:
        """Take out who waits."""
        waited = list(self.held)
        self.held.clear()
        return waited


class RateLimits:
    """The buckets of one worker. Invariant: two starts of a task are never closer than its interval."""

    def __init__(self, tasks: Mapping[str, Task[..., Any]], *, disabled: bool = False) -> None:
        self._disabled = disabled
        self._buckets: dict[str, Bucket] = {}
        for task in list(tasks.values()):
            try:
                self._bucket(task)
            except ValueError as exc:
                of_all = task.rate_limit == task.app.conf.task_default_rate_limit
                raise ImproperlyConfigured(f"{'task_default_rate_limit' if of_all else f'rate_limit of {task.name}'}: {exc}") from exc

    def _bucket(self, task: Task[..., Any]) -> Bucket | None:
        """Return the bucket of *task*, by the limit that it has now."""
        rate = None if self._disabled else task.rate_limit
        bucket = self._buckets.get(task.name)
        if bucket is not None and bucket.rate == rate:
            return bucket
        if rate is None and bucket is None:
            return None
        interval = interval_of(rate)
        if bucket is not None:  # it was changed: who waits goes on by the new one
            bucket.rate, bucket.interval, bucket.planned = rate, interval or 0.0, 0.0
        elif interval is not None:
            bucket = self._buckets[task.name] = Bucket(rate, interval)
        return bucket

    def covers(self, request: Request) -> bool:
        """Answer whether the task of *request* is limited."""
        task = request.task
        return (task.rate_limit is not None or bool(self._buckets)) and self._bucket(task) is not None

    def hold(self, request: Request, turn: float | None, now: float) -> PutOff | None:
        """Let *request*, which is covered and was given *turn* before, wait here and return None, or say how to put it off."""
        bucket = self._bucket(request.task)
        assert bucket is not None, "covers() comes before hold()"
        return bucket.hold(request, turn, now)

    def admit(self, request: Request, now: float, time: float) -> Settlement | None:
        """Let *request*, which is covered, wait here and return None, or return what puts it off; *time* is since the epoch."""
        delivery = request.delivery
        given = turn_of(delivery.raw)
        turn = None if given is None else given - time + now
        later = self.hold(request, turn, now)
        if later is None:
            return None
        raw = None if later.turn == turn else with_turn(delivery.raw, later.turn - now + time)
        return Settlement(delivery=delivery, verb=Verb.DELAY, due=time + later.seconds, raw=raw)

    def take(self, now: float, free: int, may_start: Callable[[Request], bool] = lambda _: True) -> list[Request]:
        """Take out up to *free* requests that start now, each with its token: there must be a free slot for each.

        A token that was given out and not used at once would let two start too soon after one another. So of the suspects,
        which wait for one another, one at most is taken, and only if it *may_start*.
        """
        found: list[Request] = []
        alone = False
        for bucket in self._buckets.values():
            while bucket.held and bucket.free_at <= now and len(found) < free:
                if bucket.held[0].alone:
                    if alone or not may_start(bucket.held[0]):
                        break
                    alone = True
                bucket.free_at = now + bucket.interval
                found.append(bucket.held.popleft())
        return found

    def next_at(self) -> float | None:
        """Return when the next token comes that somebody waits for."""
        return min((bucket.free_at for bucket in self._buckets.values() if bucket.held), default=None)

    def stuck(self, now: float) -> list[Request]:
        """Take out who has a token and finds no free slot: another worker may have both."""
        return [request for bucket in self._buckets.values() if bucket.free_at + HORIZON < now for request in bucket.clear()]

    def clear(self) -> list[Request]:
        """Forget who waits, and return them; the tokens stay as they are."""
        return [request for bucket in self._buckets.values() for request in bucket.clear()]

    def __len__(self) -> int:
        return sum(len(bucket.held) for bucket in self._buckets.values())
