r"""Names of keys in Redis.

    <q>                    list    ready messages of the first priority step; kombu's layout: LPUSH in, RPOP out
    <q>\x06\x16<step>      list    ready messages of the other steps
    {<q>}.delayed          zset    due time in ms -> step digit, time of publishing, `:`, message
    {<q>}.owners           zset    owner -> end of its lease in ms, by Redis's clock
    {<q>}.reaped           zset    owner whose lease lapsed and whose claims are being taken -> when, in ms
    {<q>}.claims:<owner>   hash    tag -> message; s:<tag> -> its start was marked; last, recovery: the last calls; recovered: a counter
    {<q>}.fence            string  the last fence of the queue; forgotten after thirty days without a claim
    {<q>}.idle             set     owners that found nothing and wait for their bell
    {<q>}.bell:<owner>     list    one element for each time that who publishes rang it; expires after ten seconds
    {<q>}.dead             zset    name of a dead letter (16 digits) by time in us, which is its name
    {<q>}.dead:data        hash    name -> task id NUL reason NUL evidence (JSON) NUL step digit + message
    {<q>}.dead:index       zset    "i" task id NUL name, all with the score 0
    {<q>}.parked…          the same three, for messages of unknown tasks; the index also has "t" task name NUL name

    {<q>}.tally:<minute>   hash    what was counted in the minute that begins then (seconds) -> how often; for three hours

    {<q>}.once:<key>       string  a key that is remembered (see `Item.once`), for as long as it is

    {umbel.schedule:<s>}…  the schedule <s>: `scripts/_schedules.lua` has its keys

    {umbel.revoked}        string  mark of the last entry of the list of revoked ids, which all queues share
    {umbel.revoked}.marks  zset    id -> its mark
    {umbel.revoked}.ends   zset    id -> when it is forgotten, in ms
    {umbel.revoked}.signals        hash: id -> what ends it if it runs

    {umbel.flows:<n>}…     workflows: `scripts/_flows.lua` has their keys; <n> is 0, on a cluster one of a few numbers
    umbel.bound:<id>       string  which copy of a task's message has started
    celery-task-meta-<id>, celery-taskset-meta-<id>        string: Celery's, of a result and of a group

What has no time to live: messages wherever they are, owners and claims, which lead to messages, and schedules. An owner that was killed
is taken out of the first two by who consumes the queue next; if nobody does, they stay.

`{<q>}` is a hash tag: on a cluster all keys of a queue live in one slot. There the lists of ready messages have other names, as kombu's
are not all of one slot (and kombu knows no cluster):

    {<q>}.ready:<step>     list    ready messages of each step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from umbel.exceptions import ImproperlyConfigured

__all__ = ["Keys", "checked_steps", "steps_of"]

DEFAULT_STEPS = (0, 3, 6, 9)
MOST_STEPS = 10  # tags and delayed members name a step by one digit; kombu's priorities are 0 to 9
DEFAULT_SEPARATOR = "\x06\x16"


def steps_of(steps: Sequence[int], priority: int) -> int:
    """Return the index of the step that *priority* falls into: the largest step that is not above it."""
    index = 0
    for position, step in enumerate(steps):
        if step <= priority:
            index = position
    return index


def checked_steps(value: Any) -> tuple[int, ...]:
    """Return the option `priority_steps`."""
    steps = tuple(value)
    if not 1 <= len(steps) <= MOST_STEPS:
        raise ImproperlyConfigured(
            f"The option priority_steps has {len(steps)} entries: {list(steps)}. Give 1 to {MOST_STEPS}; priorities are 0 to 9."
        )
    return steps


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one queue."""

    ready: tuple[str, ...]
    base: str

    @classmethod
    def of(cls, queue: str, *, prefix: str, separator: str, steps: Sequence[int]) -> Keys:
        """Make the keys of *queue*."""
        ready = tuple(prefix + (queue if step == steps[0] else f"{queue}{separator}{step}") for step in steps)
        return cls(ready, f"{prefix}{{{queue}}}")

    @classmethod
    def in_one_slot(cls, queue: str, *, prefix: str, steps: Sequence[int]) -> Keys:
        """Make the keys of *queue* in a cluster.

        Raises:
            ImproperlyConfigured: its name makes no hash tag.
        """
        base = f"{prefix}{{{queue}}}"
        if "{}" in base and base.index("{}") == base.index("{"):
            raise ImproperlyConfigured(
                f"The queue {queue!r} (prefix {prefix!r}) cannot be on a Redis Cluster: {base!r} begins with an empty tag."
            )
        return cls(tuple(f"{base}.ready:{step}" for step in steps), base)

    def claims(self, owner: str) -> str:
        """Return the hash of what *owner* has claimed."""
        return f"{self.base}.claims:{owner}"

    def bell(self, owner: str) -> str:
        """Return the list on which *owner* waits."""
        return f"{self.base}.bell:{owner}"

    def __getitem__(self, name: str) -> str:
        return f"{self.base}.{name}"
