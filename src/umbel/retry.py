"""Which exceptions retry a task by themselves, and after how long."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from umbel.exceptions import TaskPredicate

__all__ = ["RetryPolicy"]

MOST_DOUBLINGS = 62  # a delay beyond the age of the universe; the count of retries comes from outside


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What a task says about its retries. Delays are in seconds."""

    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    max_retries: int | None = 3  # None: no limit
    default_delay: float = 180.0
    backoff: float = 0  # the first delay, doubled at each retry; True is 1, False and 0: always `default_delay`
    backoff_max: float = 600.0
    jitter: bool = True  # with a backoff: a random whole number from 0 to the delay

    def covers(self, exc: BaseException) -> bool:
        """Whether `exc` makes the task retry without being asked.

        `Ignore`, `Reject` and `Retry` never do: they say what should follow and are no failures.
        """
        return isinstance(exc, self.autoretry_for) and not isinstance(exc, (TaskPredicate, *self.dont_autoretry_for))

    def delay(self, retries: int, rng: Random) -> float:
        """Seconds until the next run of a task that was retried `retries` times before."""
        if not self.backoff:
            return self.default_delay
        # Whole numbers, as in Celery: a retry of a fractional second is below what its delays promise.
        delay = min(self.backoff_max, max(1, int(self.backoff)) * 2 ** min(retries, MOST_DOUBLINGS))
        return rng.randrange(int(delay) + 1) if self.jitter else delay
