# ruff: noqa: ARG002 - not every driver needs every argument
"""Leases in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.clock import Clock, SystemClock
from umbel.drivers.memory.store import Held, store_of
from umbel.leases import LeaseStore, Term

__all__ = ["MemoryLeases"]


class MemoryLeases(LeaseStore):
    """Leases that live and die with this process."""

    def __init__(
        self, url: str = "memory://", *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None
    ) -> None:
        self._state = store_of(url)
        self._clock = clock or SystemClock()

    def acquire(self, name: str, holder: str, *, ttl: float) -> Term | None:
        with self._state.changed:
            now = self._clock.boottime()
            held = self._state.leases.get(name)
            if held is not None and held.expires > now and held.holder != holder:
                return None
            fence = self._state.next_fence()
            self._state.leases[name] = Held(holder, fence, now + ttl)
            return Term.begin(name, holder, fence, asked_at=now, ttl=ttl)

    def renew(self, term: Term, *, ttl: float) -> Term | None:
        with self._state.changed:
            now = self._clock.boottime()
            if not self._holds(term, now):
                return None
            self._state.leases[term.name] = Held(term.holder, term.fence, now + ttl)
            return Term.begin(term.name, term.holder, term.fence, asked_at=now, ttl=ttl)

    def release(self, term: Term) -> bool:
        with self._state.changed:
            held = self._holds(term, self._clock.boottime())
            if held:
                del self._state.leases[term.name]
            return held

    def _holds(self, term: Term, now: float) -> bool:
        held = self._state.leases.get(term.name)
        return held is not None and (held.holder, held.fence) == (term.holder, term.fence) and held.expires > now

    def close(self) -> None:
        pass
