"""The list of revoked ids in Redis: one for all queues of a database and prefix."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.broker import Revocation, Revocations
from umbel.drivers.redis.client import Client, load_script

__all__ = ["RevokedIds"]

CHUNK = 500  # ids in one script call: a script holds up the whole server


class RevokedIds:
    """Reads and writes the list. It lies in a slot of its own, so no script of a queue may touch it."""

    def __init__(self, client: Client, key: str) -> None:
        self._client, self.key = client, key
        self._revoke, self._since = load_script("revoke"), load_script("revoked_since")

    def add(self, ids: Sequence[str], *, ttl: float, signal: str) -> None:
        """Enter *ids* for *ttl* seconds."""
        for start in range(0, len(ids), CHUNK):
            self._client.run(self._revoke, self.key, max(1, int(ttl * 1000)), signal, *ids[start : start + CHUNK])

    def since(self, mark: int) -> Revocations:
        """Return what was entered after *mark*."""
        entries: list[Revocation] = []
        while True:
            seen, last, *rows = self._client.run(self._since, self.key, mark, CHUNK)
            mark = int(seen)
            entries += [
                Revocation(task_id.decode(), float(ends) / 1000, signal.decode())
                for task_id, ends, signal in zip(rows[::3], rows[1::3], rows[2::3], strict=True)
            ]
            if mark >= int(last):
                return Revocations(mark=mark, entries=entries)
