"""Dead letters and parked messages: find them by what is known of them, send them again, delete them.

Everything is done in pages, so that a million letters neither hold up the broker nor fill the memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from umbel.broker import DeadLetter, Evidence
from umbel.exceptions import SerializationError
from umbel.wire.message import Message, decode, payload
from umbel.wire.saferepr import saferepr
from umbel.wire.serializers import content_types

if TYPE_CHECKING:
    from umbel.app_settings import ConfiguredApp

__all__ = ["Letter", "Letters"]

PAGE = 100  # letters that are read, sent again or deleted in one step
UNSAFE = content_types(["pickle"])  # reading it may run what a sender wrote: a letter is shown without

Age = float | timedelta


@dataclass(frozen=True)
class Letter:
    """One message that was put away, and why."""

    entry: DeadLetter

    @property
    def queue(self) -> str:
        """Where it was claimed, and where a retry goes."""
        return self.entry.queue

    @property
    def id(self) -> str:
        """The task id."""
        return self.entry.id

    @property
    def reason(self) -> str:
        """Why it was put away, as a sentence; of a parked message, the name of its task."""
        return self.entry.reason

    @property
    def evidence(self) -> Evidence:
        """The same as data: kind, node, attempts, signal, peak memory, traceback."""
        return self.entry.evidence

    @property
    def at(self) -> float:
        """When that was, in seconds since the epoch."""
        return self.entry.at

    @cached_property
    def message(self) -> Message | None:
        """Headers, properties and body; None if they cannot be read."""
        try:
            return decode(self.entry.raw)
        except SerializationError:
            return None

    @property
    def task(self) -> str:
        """The name of the task, empty if the message cannot be read."""
        return str(self.message.headers.get("task", "")) if self.message else ""

    def call(self, accept: frozenset[str]) -> str:
        """Return the arguments as text: from the body if its content type is in *accept*, else as the sender wrote them."""
        if self.message is None:
            return ""
        headers = self.message.headers
        try:
            args, kwargs, _ = payload(self.message, accept - UNSAFE)
        except Exception:  # noqa: BLE001 - a letter may hold anything, and must be shown
            return f"args={headers.get('argsrepr')} kwargs={headers.get('kwargsrepr')}"
        return f"args={saferepr(args, 2000)} kwargs={saferepr(kwargs, 2000)}"


class Letters:
    """What is put away in one place, of all queues that the app's settings name unless others are given.

    Args:
        app: whose broker and queues.
        place: `dead` or `parked`.
    """

    def __init__(self, app: ConfiguredApp, place: Literal["dead", "parked"]) -> None:
        self._app, self._place = app, place

    def count(self, queues: Sequence[str] | None = None) -> dict[str, int | None]:
        """Return how many there are in each queue; None where the broker cannot tell."""
        depths = self._app.broker.depth(self._queues(queues))
        return {queue: getattr(depth, self._place) for queue, depth in depths.items()}

    def find(
        self,
        queues: Sequence[str] | None = None,
        *,
        ids: Sequence[str] = (),
        task: str | None = None,
        reason: str | None = None,
        older_than: Age | None = None,
        newer_than: Age | None = None,
    ) -> Iterator[Letter]:
        """Yield the letters that fit, page by page: of the dead the newest first, of the parked the oldest first.

        Args:
            queues: their names; all of the app's by default.
            ids: task ids.
            task: the name of the task, with `*` and `?` for any text and any character.
            reason: the kind of the evidence, or a part of the reason, in upper or lower case.
            older_than: seconds, or a timedelta, that they have been there at least.
            newer_than: seconds, or a timedelta, that they have been there at most.
        """
        now = time.time()
        latest = now - seconds(older_than) if older_than is not None else None
        earliest = now - seconds(newer_than) if newer_than is not None else None
        for queue in self._queues(queues):
            for entry in self._entries(queue, ids):
                letter = Letter(entry)
                if latest is not None and letter.at > latest:
                    continue
                if earliest is not None and letter.at < earliest:
                    continue
                if (task is None or fnmatchcase(letter.task, task)) and (reason is None or has_reason(letter, reason)):
                    yield letter

    def retry(self, letters: Iterable[Letter]) -> int:
        """Put *letters* at the tails of their queues, as if they had never died; return how many were still there.

        Each goes back once, however many ask for it at the same time.
        """
        return sum(self._app.broker.requeue(page) for page in pages(letters))

    def delete(self, letters: Iterable[Letter]) -> int:
        """Delete *letters* for good; return how many were still there."""
        return sum(self._app.broker.discard(page) for page in pages(letters))

    def _queues(self, queues: Sequence[str] | None) -> list[str]:
        return list(dict.fromkeys(queues)) if queues else self._app.consumed_queues()

    def _entries(self, queue: str, ids: Sequence[str]) -> Iterator[DeadLetter]:
        if ids:
            for task_id in dict.fromkeys(ids):
                yield from self._pages(queue, task_id)
            return
        # What is put away from now on is left out: parked messages that are sent again might come back behind these for ever.
        there = getattr(self._app.broker.depth([queue])[queue], self._place)
        yield from islice(self._pages(queue, ""), there)

    def _pages(self, queue: str, task_id: str) -> Iterator[DeadLetter]:
        read = self._app.broker.dead if self._place == "dead" else self._app.broker.parked
        page = read(queue, limit=PAGE, id=task_id)
        while page:
            after = page[-1].key
            yield from page
            page = read(queue, limit=PAGE, after=after, id=task_id)


def has_reason(letter: Letter, text: str) -> bool:
    """Answer whether the kind of the evidence is *text*, or the reason holds it."""
    return letter.evidence.kind == text or text.lower() in letter.reason.lower()


def pages(letters: Iterable[Letter]) -> Iterator[list[DeadLetter]]:
    """Cut *letters* into pages, lazily."""
    rest = iter(letters)
    while page := [letter.entry for letter in islice(rest, PAGE)]:
        yield page


def seconds(age: Age) -> float:
    """Return an age in seconds."""
    return age.total_seconds() if isinstance(age, timedelta) else float(age)


def as_document(letter: Letter) -> dict[str, Any]:
    """Return what is known of *letter* as JSON knows it."""
    evidence = letter.evidence
    known = {name: value for name in evidence.__struct_fields__ if (value := getattr(evidence, name)) not in ("", None)}
    return {"id": letter.id, "task": letter.task, "queue": letter.queue, "at": letter.at, "reason": letter.reason, "evidence": known}
