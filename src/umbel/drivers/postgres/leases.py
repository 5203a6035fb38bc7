"""Leases in PostgreSQL: a row for each role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.clock import Clock, SystemClock
from umbel.drivers.postgres.database import Database
from umbel.exceptions import BrokerUnavailable
from umbel.leases import LeaseStore, Term

__all__ = ["PostgresLeases"]

ACQUIRE = "SELECT umbel.acquire(%s, %s, %s)"
RENEW = """
UPDATE umbel.leases SET expires = umbel.clock() + %s WHERE name = %s AND holder = %s AND fence = %s AND expires > umbel.clock()
RETURNING fence"""
# The row stays, so that the fence of the next term is larger.
RELEASE = """
UPDATE umbel.leases SET expires = 0 WHERE name = %s AND holder = %s AND fence = %s AND expires > umbel.clock() RETURNING fence"""


class PostgresLeases(LeaseStore):
    """Leases by the server's clock."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None) -> None:
        self._database = Database(url, options=options or {}, timeout=timeout, error=BrokerUnavailable)
        self._clock = clock or SystemClock()

    def acquire(self, name: str, holder: str, *, ttl: float) -> Term | None:
        asked = self._clock.boottime()
        fence = self._database.call(ACQUIRE, (name, holder, ttl))[0][0]
        return None if fence is None else Term.begin(name, holder, fence, asked_at=asked, ttl=ttl)

    def renew(self, term: Term, *, ttl: float) -> Term | None:
        asked = self._clock.boottime()
        held = self._database.call(RENEW, (ttl, term.name, term.holder, term.fence), repeat=True)
        return Term.begin(term.name, term.holder, term.fence, asked_at=asked, ttl=ttl) if held else None

    def release(self, term: Term) -> bool:
        return bool(self._database.call(RELEASE, (term.name, term.holder, term.fence)))

    def close(self) -> None:
        self._database.close()
