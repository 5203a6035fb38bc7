"""Workflows in Redis: a few hashes for each, in one slot, so that each step is one script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from umbel.backend import Arrival, Flows, Gone, JoinProgress, Over
from umbel.drivers.redis.chunks import MOST_BYTES, chunks, size_of
from umbel.drivers.redis.client import Client, Script, load_script
from umbel.exceptions import BackendUnavailable, BrokerUnavailable

__all__ = ["RedisFlows", "told_as_backend"]

T = TypeVar("T")

CHUNK = 500  # arrivals, nodes or places in one call of a script


@contextmanager
def told_as_backend() -> Any:
    """Raise what the client says of the server as the backend's error."""
    try:
        yield
    except BrokerUnavailable as exc:
        raise BackendUnavailable(str(exc)) from exc


@cache
def script(name: str) -> Script:
    """Return a script of workflows."""
    return load_script(f"flow_{name}", shared=("_flows",))


@cache
def bind_script() -> Script:
    """Return the script that binds tasks to copies; it knows no flow."""
    return load_script("bind", shared=())


class RedisFlows(Flows):
    """Flows under `{umbel.flows:…}`, the documents of groups under Celery's keys, so that its clients can restore them."""

    client: Client
    key_prefix: str
    # A flow lies in the slot of one of these many bases. On a single server there is one.
    bases = 1

    def _base(self, number: int) -> str:
        return f"{self.key_prefix}{{umbel.flows:{number}}}"

    def _base_of(self, flow: str) -> str:  # noqa: ARG002 - there is one
        return self._base(0)

    def _run(self, name: str, head: tuple[Any, ...], flows: Sequence[str], items: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run a script for *items*, which are of *flows*, once for each base; return the replies for each in order, if it gives any."""
        places: dict[str, list[int]] = defaultdict(list)
        for position, flow in enumerate(flows):
            places[self._base_of(flow)].append(position)
        calls = [(base, *head, *(arg for position in some for arg in items[position])) for base, some in places.items()]
        replies: list[Any] = [None] * len(items)
        with told_as_backend():
            for some, answers in zip(places.values(), self.client.run_many(script(name), calls), strict=True):
                for position, answer in zip(some, answers or (), strict=False):
                    replies[position] = answer
        return replies

    def _call(self, name: str, flow: str, *args: Any) -> Any:
        with told_as_backend():
            return self.client.run(script(name), self._base_of(flow), flow, *args)

    def begin_flow(self, flow: str, nodes: Mapping[int, bytes], joins: Mapping[int, tuple[int, bytes]], *, expires: float | None) -> None:
        parts: list[tuple[Any, ...]] = [*nodes.items(), *((number, size, data) for number, (size, data) in joins.items())]
        for chunk in chunks(parts, size_of, 2 * CHUNK) if parts else [[]]:
            count = sum(len(part) == len(("number", "node")) for part in chunk)
            self._call("begin", flow, ttl_of(expires), count, *(arg for part in chunk for arg in part))

    def nodes(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        return self._read(places, str)

    def node_numbers(self, flow: str) -> list[int]:
        return sorted(self._call("numbers", flow))

    def join_data(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        return self._read(places, "d{}".format)

    def _read(self, places: Sequence[tuple[str, int]], field: Callable[[int], str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for start in range(0, len(places), CHUNK):
            some = [(flow, field(number)) for flow, number in places[start : start + CHUNK]]
            found += self._run("read", (), [flow for flow, _ in some], some)
        return found

    def arrive(self, arrivals: Sequence[Arrival], *, expires: float | None) -> list[Over | Gone | None]:
        overs: list[Over | Gone | None] = []
        for chunk in chunks(arrivals, lambda part: len(part.value or part.failure), CHUNK):
            replies = self._run("arrive", (ttl_of(expires),), [part.flow for part in chunk], [arrival_args(part) for part in chunk])
            overs += [answer(part, reply) for part, reply in zip(chunk, replies, strict=True)]
        return overs

    def arrived(self, flow: str, join: int, *, start: int = 0, limit: int = 500) -> list[bytes]:
        values: list[bytes] = self._call("arrived", flow, join, start, limit, MOST_BYTES)
        return values

    def sent(self, overs: Sequence[Over]) -> None:
        if overs:
            self._run("sent", (), [each.flow for each in overs], [(each.flow, each.join) for each in overs])

    def overs(self, *, older: float, limit: int = 100) -> list[Over]:
        least, found = int(older * 1000), list[Over]()
        with told_as_backend():
            for base in self._bases_with_overs(least):
                if len(found) < limit:
                    rows = self.client.run(script("overs"), base, least, limit - len(found))
                    found += [over(flow.decode(), int(join), *rest) for flow, join, *rest in rows]
        return found

    def _bases_with_overs(self, least: int) -> list[str]:
        """Return where there may be some; of a cluster only where there are, as each costs a round trip."""
        bases = [self._base(number) for number in range(self.bases)]
        if len(bases) == 1:
            return bases
        counts = self.client.run_many(script("overs"), [(base, least, 0) for base in bases])
        return [base for base, count in zip(bases, counts, strict=True) if count]

    def grow(self, flow: str, join: int, by: int, *, key: str) -> int | None:
        position: int | None = self._call("grow", flow, join, by, key)
        return position

    def progress(self, flow: str) -> dict[int, JoinProgress]:
        flat = self._call("progress", flow)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        numbers = sorted(int(name) for name in fields if name.isdigit())
        return {number: how_far(fields[b"%d" % number], fields.get(b"%d:f" % number)) for number in numbers}

    def forget_flows(self, flows: Sequence[str]) -> None:
        if flows:
            self._run("forget", (), flows, [(flow,) for flow in flows])

    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        flags: list[bool] = []
        with told_as_backend():
            for start in range(0, len(copies), CHUNK):
                some = [(f"{self.key_prefix}umbel.bound:{each}", copy, ttl_of(expires)) for each, copy in copies[start : start + CHUNK]]
                flags += [flag == 1 for flag in self._run_apart(bind_script(), some)]
        return flags

    def _run_apart(self, script: Script, items: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run a script for *items*, each of which begins with its key."""
        flags: list[Any] = self.client.run(script, *(arg for item in items for arg in item))
        return flags

    def _group_key(self, id: str) -> str:
        return f"{self.key_prefix}celery-taskset-meta-{id}"

    def save_group(self, id: str, document: bytes, *, expires: float | None) -> None:
        with told_as_backend():
            self.client.call("SET", self._group_key(id), document, *(() if expires is None else ("PX", ttl_of(expires))))

    def saved_group(self, id: str) -> bytes | None:
        with told_as_backend():
            return self.client.get([self._group_key(id)])[0]

    def delete_group(self, id: str) -> None:
        with told_as_backend():
            self.client.delete([self._group_key(id)])


def ttl_of(expires: float | None) -> Any:
    """Return how the scripts are told how long something lives: milliseconds, or nothing."""
    return b"" if expires is None else max(1, int(expires * 1000))


def arrival_args(part: Arrival) -> tuple[Any, ...]:
    """Return what `scripts/flow_arrive.lua` takes for one part."""
    value = part.value
    return part.flow, part.join, part.position, part.id, int(value is not None), part.failure if value is None else value


def answer(part: Arrival, reply: Any) -> Over | Gone | None:
    """Read what the script says of the join of *part*: 0, there is none."""
    if reply == 0:
        return Gone()
    return over(part.flow, part.join, *reply) if reply else None


def over(flow: str, join: int, size: int, failed: bytes | None, failure: bytes) -> Over:
    """Make a join that is over of what a script says."""
    return Over(flow=flow, join=join, size=size, failed=None if failed is None else failed.decode(), failure=failure)


def how_far(state: bytes, failed: bytes | None) -> JoinProgress:
    """Read how far a join is."""
    size, done, _, sent = state.split(b":")
    return JoinProgress(size=int(size), done=int(done), failed=None if failed is None else failed.decode(), sent=sent == b"1")
