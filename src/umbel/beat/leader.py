"""Which of many schedulers leads: the one that holds a lease.

A scheduler asks for the lease until it gets it, and so begins a *term*, whose number (fence) is larger than those of all terms
before. It renews the lease four times in its life, and trusts it for less than its whole life (`umbel.leases.Term`), counted from before
it asked, by a clock that goes on while the machine sleeps.

| what happens | what follows |
|---|---|
| the leader is told to stop | it releases the lease: another leads within `ASKS` seconds |
| the leader dies, or is cut off from the store | its lease lapses: another leads within `TTL` + `ASKS` |
| the leader is stopped or sleeps, and goes on | it trusts its term no more, and stops before it sends |
| it had begun to send | runs have the names of their slots: the broker leaves out what it has seen, or workers start one copy |
| it writes what it has handled after another's term began | the store refuses an older fence, and a term begins with a write |
| the store answers nobody | nobody leads, nothing is sent; what was missed is then made up for as each entry says |
| the store takes no writes, but answers | what was sent is written before anything else is sent |
| the store has lost its data | terms begin anew, entries begin anew: nothing is due at once, but what the configuration has said |
| the store was restored from older data | entries go on from there: what was sent since is missed, and made up for as each entry says |
| leases and fences do not fit each other any more | who holds the lease and is refused begins a new term, until its fence is the largest |
| two apps share the store | each has a role and entries of its own (`stores.name_of`) |
"""

from __future__ import annotations

import logging

from umbel.clock import Clock
from umbel.leases import LeaseStore, Term

__all__ = ["ASKS", "TTL", "Leader"]

logger = logging.getLogger("celery.beat")

TTL = 2.0  # seconds that a lease lasts
ASKS = 0.5  # seconds between two attempts to get it


class Leader:
    """One candidate."""

    def __init__(self, leases: LeaseStore, clock: Clock, *, role: str, holder: str, ttl: float = TTL) -> None:
        self._leases, self._clock, self._role, self._holder, self._ttl = leases, clock, role, holder, ttl
        self._term: Term | None = None
        self._renew_at = 0.0

    def keep(self) -> Term | None:
        """Get, keep or lose the role; return the term that may be trusted now.

        Raises:
            BrokerUnavailable: the store does not answer; the term is trusted as long as before.
        """
        now = self._clock.boottime()
        if self._term is not None and now < self._renew_at:
            return self._term
        term = self._leases.renew(self._term, ttl=self._ttl) if self._term is not None else None
        if self._term is not None and term is None:
            logger.warning("beat: %s does not lead any more: its lease has lapsed.", self._holder)
        if term is None:
            term = self._leases.acquire(self._role, self._holder, ttl=self._ttl)
            if term is not None:
                logger.info("beat: %s leads (term %d).", self._holder, term.fence)
        self._term, self._renew_at = term, now + self._ttl / 4
        return term if term is not None and term.is_trusted(self._clock.boottime()) else None

    def leads(self) -> bool:
        """Answer whether the role may be trusted to be ours, without asking."""
        return self._term is not None and self._term.is_trusted(self._clock.boottime())

    def give_up(self) -> None:
        """Let another lead at once."""
        term, self._term = self._term, None
        if term is not None:
            self._leases.release(term)
