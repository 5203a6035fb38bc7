"""Messages that workers and schedulers have sent: of the copies of one that a crash may leave, only the first to start runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from umbel.app import Umbel
from umbel.backend import ResultBackend
from umbel.beat.stores import open_for_copies
from umbel.config import FrozenSettings
from umbel.exceptions import ImproperlyConfigured, OperationalError
from umbel.execution.link import Link
from umbel.execution.settle import Settler
from umbel.execution.verdict import Request
from umbel.flow import Place
from umbel.worker.releases import flow_expires

__all__ = ["Copies", "copies_of", "is_copy"]

BATCH = 500  # ids in one call


def is_copy(request: Request) -> bool:
    """Answer whether there may be another copy of this message: a client sends each once, workers and schedulers may come again."""
    return request.glance.copy is not None or (request.in_flow is not None and bool(request.in_flow.copy))


def copy_of(request: Request) -> tuple[str, str]:
    """Return of what a message is a copy, and which."""
    if request.glance.copy is not None:
        of, _, copy = request.glance.copy.partition(" ")
        return of, copy
    place = request.in_flow or Place(flow="")
    return f"{request.glance.id} {place.turn}" if place.turn else request.glance.id, place.copy


class Copies:
    """Asks a store, in batches, which of them may start."""

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

    def close(self) -> None:
        """Close the store."""
        self._backend.close()

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
        pairs = [copy_of(each) for each in batch]
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


def copies_of(
    app: Umbel, conf: FrozenSettings, io: Executor, settler: Settler, tell: Callable[[Sequence[Request], Sequence[Request]], None]
) -> Copies:
    """Return who asks for a worker: the result backend, if it keeps workflows, else the store of what RabbitMQ does not keep."""
    backend, link = app.backend, settler.store_link
    if not backend.keeps_flows:
        with contextlib.suppress(ImproperlyConfigured):  # where there is none, no scheduler of umbel's runs, which would need it, too
            backend, link = open_for_copies(conf), Link("store of copies")
    return Copies(backend, io, link, expires=flow_expires(conf), tell=tell)
