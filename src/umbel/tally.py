"""What the counters in the broker mean. A driver counts texts; here they are written and read.

A tally is "<end> <wait> <run> <task>". The two times are buckets: the number of bits of whole milliseconds (0: less than
1 ms, 1: less than 2 ms, 2: less than 4 ms, ...), or "-" where the time is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from umbel.broker import Tally

__all__ = ["LOST", "UNKNOWN", "Row", "rows_of", "tally_of", "upper_bound"]

LOST = "LOST"  # beside the states: the process or the worker that had it died, and it runs again
UNKNOWN = "-"
LAST = 31  # the bucket of all that took longer
SHORT = 0.001  # seconds, of the bucket 0
LONGEST = (1 << LAST) / 1000  # seconds
BUCKETS = tuple(str(number) for number in range(LAST + 1))
FIELDS = 4


def tally_of(task: str, end: str, waited: float | None, ran: float | None) -> str:
    """Return what to count of a task, by its name, that came to *end* after it had *waited* and *ran* so many seconds (None: unknown).

    No number makes it fail; what is negative, as clocks differ, counts as nothing.
    """
    # Written out twice: a call for each would cost half as much again, and this is done for every task.
    wait = UNKNOWN if waited is None else "0" if waited < SHORT else BUCKETS[int(waited * 1000).bit_length()] if waited < LONGEST else "31"
    run = UNKNOWN if ran is None else "0" if ran < SHORT else BUCKETS[int(ran * 1000).bit_length()] if ran < LONGEST else "31"
    return f"{end} {wait} {run} {task}"


def upper_bound(bucket: int) -> float:
    """Return which time, in seconds, no time of *bucket* exceeds."""
    return (1 << bucket) / 1000


@dataclass(slots=True)
class Row:
    """What one task came to on one queue."""

    queue: str
    task: str
    ends: Counter[str] = field(default_factory=Counter)  # how often it came to which
    waits: Counter[int] = field(default_factory=Counter)  # by bucket
    runs: Counter[int] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """How often it came to any end."""
        return self.ends.total()

    def wait(self, share: float) -> float | None:
        """Return within which time, in seconds, *share* of them (0.95: of a hundred, 95) had begun; None if that is not known."""
        return percentile(self.waits, share)

    def run(self, share: float) -> float | None:
        """Return within which time, in seconds, *share* of them had ended once they had begun; None if that is not known."""
        return percentile(self.runs, share)


def rows_of(found: Mapping[str, Iterable[Tally]]) -> list[Row]:
    """Add up what was counted, by queue, whatever the minute. What is not written as here is passed over."""
    rows: dict[tuple[str, str], Row] = {}
    for queue, tallies in found.items():
        for each in tallies:
            fields = each.tally.split(" ", FIELDS - 1)
            if len(fields) == FIELDS and all(bucket in BUCKETS or bucket == UNKNOWN for bucket in fields[1:3]):
                end, wait, run, task = fields
                row = rows.setdefault((queue, task), Row(queue, task))
                row.ends[end] += each.count
                for times, bucket in ((row.waits, wait), (row.runs, run)):
                    if bucket != UNKNOWN:
                        times[int(bucket)] += each.count
    return [rows[key] for key in sorted(rows)]


def percentile(times: Mapping[int, int], share: float) -> float | None:
    """Return the upper bound of the bucket in which *share* of all *times* is reached."""
    total, reached = sum(times.values()), 0
    for bucket in sorted(times):
        reached += times[bucket]
        if reached >= share * total:
            return upper_bound(bucket)
    return None
