"""Leases in an SQLite file: a row for each role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.clock import Clock, SystemClock
from umbel.drivers.sqlite.database import Database, path_of
from umbel.exceptions import BrokerUnavailable
from umbel.leases import LeaseStore, Term

__all__ = ["SQLiteLeases"]

TAKE = """
INSERT INTO umbel_leases (name, holder, fence, expires) VALUES (:name, :holder, 1, :expires)
ON CONFLICT (name) DO UPDATE SET holder = :holder, fence = fence + 1, expires = :expires WHERE holder = :holder OR expires <= :now
RETURNING fence
"""
# Where the clock was set back, a term would last for so much longer.
CUT = "UPDATE umbel_leases SET expires = :expires WHERE name = :name AND expires > :expires"
RENEW = "UPDATE umbel_leases SET expires = ? WHERE name = ? AND holder = ? AND fence = ? AND expires > ?"
# The row stays, so that the fence of the next term is larger.
RELEASE = "UPDATE umbel_leases SET expires = 0 WHERE name = ? AND holder = ? AND fence = ? AND expires > ?"


class SQLiteLeases(LeaseStore):
    """Leases by the clock of the host, which all who use the file share."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None) -> None:
        self._database = Database(path_of(url), options=options or {}, timeout=timeout, error=BrokerUnavailable)
        self._clock = clock or SystemClock()

    def acquire(self, name: str, holder: str, *, ttl: float) -> Term | None:
        asked = self._clock.boottime()
        with self._database.write() as connection:
            now = self._clock.now()
            row = connection.execute(TAKE, {"name": name, "holder": holder, "expires": now + ttl, "now": now}).fetchone()
            if row is None:
                connection.execute(CUT, {"name": name, "expires": now + ttl})
        return None if row is None else Term.begin(name, holder, row[0], asked_at=asked, ttl=ttl)

    def renew(self, term: Term, *, ttl: float) -> Term | None:
        asked = self._clock.boottime()
        with self._database.write() as connection:
            now = self._clock.now()
            held = connection.execute(RENEW, (now + ttl, term.name, term.holder, term.fence, now)).rowcount
        return Term.begin(term.name, term.holder, term.fence, asked_at=asked, ttl=ttl) if held else None

    def release(self, term: Term) -> bool:
        with self._database.write() as connection:
            return bool(connection.execute(RELEASE, (term.name, term.holder, term.fence, self._clock.now())).rowcount)

    def close(self) -> None:
        self._database.close()
