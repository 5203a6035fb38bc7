"""Leases in Redis: a key for each role, with the end of the term as its time to live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.clock import Clock, SystemClock
from umbel.drivers.redis.client import load_script
from umbel.drivers.redis.opening import open_client
from umbel.leases import LeaseStore, Term

__all__ = ["RedisLeases"]


class RedisLeases(LeaseStore):
    """Leases by Redis's clock."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None) -> None:
        self._client = open_client(url, options=options or {}, timeout=timeout)
        self._prefix = str((options or {}).get("global_keyprefix", ""))
        self._clock = clock or SystemClock()
        self._scripts = {name: load_script(name) for name in ("lease_acquire", "lease_renew")}

    def acquire(self, name: str, holder: str, *, ttl: float) -> Term | None:
        asked = self._clock.boottime()
        fence = self._client.run(self._scripts["lease_acquire"], self._key(name), holder, int(ttl * 1000))
        return None if fence is None else Term.begin(name, holder, int(fence), asked_at=asked, ttl=ttl)

    def renew(self, term: Term, *, ttl: float) -> Term | None:
        asked = self._clock.boottime()
        held = self._client.run(self._scripts["lease_renew"], self._key(term.name), value_of(term), int(ttl * 1000))
        return Term.begin(term.name, term.holder, term.fence, asked_at=asked, ttl=ttl) if held else None

    def release(self, term: Term) -> bool:
        return bool(self._client.run(self._scripts["lease_renew"], self._key(term.name), value_of(term), 0))

    def close(self) -> None:
        self._client.close()

    def _key(self, name: str) -> str:
        return f"{self._prefix}umbel-lease:{{{name}}}"  # its fence lies beside it, in the same slot


def value_of(term: Term) -> str:
    """Return what the key of a term holds."""
    return f"{term.fence} {term.holder}"
