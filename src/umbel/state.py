"""What is kept beside the messages: which tasks are revoked, and what is counted.

Most brokers keep it themselves. One whose engine keeps nothing but messages is given another driver for it, by the setting
`umbel_state_url`; both promise the same, which `umbel.testing.conformance` tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from umbel.broker import Revocations, Tally

__all__ = ["State"]


class State(Protocol):
    """The methods of `umbel.broker.Broker`, which has their descriptions, that are not about messages."""

    def revoke(self, ids: Sequence[str], *, ttl: float, signal: str = "") -> None:
        """Enter the task ids *ids* into the list of revoked ids."""

    def revoked_since(self, mark: int) -> Revocations:
        """Return what was entered after *mark*."""

    def tallies(self, queue: str, *, since: float) -> list[Tally]:
        """Return what was counted of *queue*."""

    def count(self, queue: str, tallies: Mapping[str, int]) -> None:
        """Count *tallies* in this minute."""

    def migrate(self) -> Sequence[str] | None:
        """Bring the tables up to date, if there are any."""

    def migration_sql(self) -> str:
        """Return the SQL that makes all tables."""

    def close(self) -> None:
        """Close all connections."""
