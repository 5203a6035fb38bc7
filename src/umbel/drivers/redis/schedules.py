"""Schedules in Redis: some keys for each, in one slot of a cluster (see `scripts/_schedules.lua`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umbel.clock import Clock
from umbel.drivers.changes import changes_of
from umbel.drivers.chunks import chunks
from umbel.drivers.redis.client import load_script
from umbel.drivers.redis.opening import open_client
from umbel.schedule_store import REMOVALS_KEPT, Changes, Row, ScheduleStore, State

__all__ = ["RedisSchedules"]

AT_ONCE = 500  # rows, names or states in one call: a script holds up the whole server
MOST_BYTES = 2_000_000  # of them
SCRIPTS = ("schedule_put", "schedule_remove", "schedule_changes", "schedule_advance")


class RedisSchedules(ScheduleStore):
    """A schedule in Redis, by its clock."""

    def __init__(
        self, url: str, *, name: str = "beat", removals_kept: float = REMOVALS_KEPT, options: Mapping[str, Any] | None = None,
        timeout: float = 2.0, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        del clock  # every driver is handed one; here the server's decides
        options = options or {}
        self._client = open_client(url, options=options, timeout=timeout)
        self._base = f"{options.get('global_keyprefix', '')}{{umbel.schedule:{name}}}"
        self._removals_kept = int(removals_kept * 1e6)
        self._scripts = {each: load_script(each, shared=("_schedules",)) for each in SCRIPTS}

    def _run(self, script: str, *args: Any) -> Any:
        return self._client.run(self._scripts[script], self._base, *args)

    def now(self) -> float:
        seconds, micros = self._client.now(self._base)
        return seconds + micros / 1e6

    def changed_since(self, mark: int, *, limit: int = 1000) -> Changes:
        reply = self._run("schedule_changes", mark, limit)
        if reply is None:
            return Changes(mark)
        last, whole, more, *rest = reply
        found = [(int(at), name.decode(), text) for at, name, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True)]
        return changes_of(found, mark=mark, more=bool(more), last=int(last), whole=bool(whole))

    def put(self, rows: Iterable[Row]) -> None:
        for some in chunks(rows, lambda row: len(row.text), AT_ONCE, MOST_BYTES):
            self._run("schedule_put", *(arg for row in some for arg in (row.name, row.text)))

    def remove(self, names: Iterable[str]) -> int:
        return sum(self._run("schedule_remove", self._removals_kept, *some) for some in chunks(names, len, AT_ONCE, MOST_BYTES))

    def states(self, names: Iterable[str]) -> dict[str, State]:
        found = {}
        for some in chunks(dict.fromkeys(names), len, AT_ONCE, MOST_BYTES):
            packed = self._client.call("HMGET", f"{self._base}.states", *some)
            found.update({name: state_of(name, each) for name, each in zip(some, packed, strict=True) if each is not None})
        return found

    def advance(self, states: Sequence[State], *, fence: int) -> bool:
        written = (arg for each in states for arg in (each.name, repr(float(each.slot)), each.runs, repr(float(each.sent)), each.id))
        return bool(self._run("schedule_advance", fence, *written))

    def close(self) -> None:
        self._client.close()


def state_of(name: str, packed: bytes) -> State:
    """Read what `schedule_advance.lua` writes."""
    slot, runs, sent, task_id = packed.decode().split(" ", 3)
    return State(name, float(slot), int(runs), task_id, float(sent))
