"""Messages that workers have sent: of the copies of one that a crash may leave, only the first to start runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from umbel.backend import ResultBackend
from umbel.exceptions import OperationalError
from umbel.execution.link import Link
from umbel.execution.verdict import Request

__all__ = ["Copies", "is_copy"]

BATCH = 500  # ids in one call


def is_copy(request: Request) -> bool:
    """Answer whether there may be another copy of this message: a client sends each once."""
    return request.in_flow is not None and bool(request.in_flow.copy)


class Copies:
    """Asks the result backend, in batches, which of them may start."""

    def __init__(
        self, backend: ResultBackend, io: Executor, link: Link, *, expires: float | None,
        tell: Callable[[Sequence[Request], Sequence[Request]], None],
    ) -> None:  # fmt: skip
        """*tell* is given those that may start, and the others."""
        self._backend, self._io, self._link, self._expires, self._tell = backend, io, link, expires, tell
        self._waiting: dict[int, Request] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, requests: Sequence[Request]) -> None:
        """Ask for *requests*."""
        self._waiting.update({id(each): each for each in requests})
        self._wake.set()

    def clear(self) -> list[Request]:
        """Forget and return those that wait."""
        waited, self._waiting = list(self._waiting.values()), {}
        return waited

    async def run(self) -> None:
        """Ask, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._ask(list(self._waiting.values())[:BATCH])

    async def _ask(self, batch: Sequence[Request]) -> None:
        pairs = [(f"{each.glance.id} {flow.turn}" if flow.turn else each.glance.id, flow.copy) for each in batch if (flow := each.in_flow)]
        try:
            answers = await self._link.call(self._io, "bind copies of messages", self._backend.bind, pairs, expires=self._expires)
        except OperationalError:
            await self._link.pause()
            return
        except NotImplementedError:  # this backend keeps none, and cannot tell copies apart: each runs
            answers = [True for _ in batch]
        bound: list[Request] = []
        others: list[Request] = []
        for request, first in zip(batch, answers, strict=True):
            if self._waiting.pop(id(request), None) is not None:  # else it was forgotten meanwhile
                (bound if first else others).append(request)
        self._tell(bound, others)
