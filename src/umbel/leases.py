"""What a store of leases promises: of several who want one role, one has it. `umbel.testing.conformance` tests each sentence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = ["LeaseStore", "Term"]

MARGIN = 0.2  # of the time to live: what the holder does not rely on, as its clock and the store's may run differently


@dataclass(frozen=True, slots=True)
class Term:
    """One period in which *holder* has the role *name*; trusted for less than the lease, counted from before the request."""

    name: str
    holder: str
    fence: int  # grows with each new term of a name
    trusted_until: float  # `Clock.boottime` of the holder

    @classmethod
    def begin(cls, name: str, holder: str, fence: int, *, asked_at: float, ttl: float) -> Term:
        """Make the term of a lease of *ttl* seconds that was asked for at *asked_at*."""
        return cls(name, holder, fence, asked_at + ttl * (1 - MARGIN))

    def is_trusted(self, boottime: float) -> bool:
        """Answer whether the holder may still act."""
        return boottime < self.trusted_until


class LeaseStore(ABC):
    """Leases by name. All methods raise `BrokerUnavailable` if the store does not answer in time."""

    @abstractmethod
    def acquire(self, name: str, holder: str, *, ttl: float) -> Term | None:
        """Begin a term of *ttl* seconds, if nobody else has the role. Who has it begins a new term.

        All who want a role ask for the same *ttl*: a term that would last longer, as the store's clock was set back, is cut to it.
        """

    @abstractmethod
    def renew(self, term: Term, *, ttl: float) -> Term | None:
        """Extend *term*; None: it has lapsed or was released, and may be another's."""

    @abstractmethod
    def release(self, term: Term) -> bool:
        """End *term* now. False: it had ended."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections. Safe twice and after a fork."""
