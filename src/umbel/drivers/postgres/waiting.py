"""Waiting: who waits says so in a table, and is rung for by who makes it come true; behind it stands a look every 0.1 s."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from hashlib import md5

from umbel.drivers.postgres.database import Database
from umbel.drivers.postgres.schema import rename
from umbel.drivers.postgres.session import Session

__all__ = ["wait_for"]

LONGEST_POLL = 0.09  # seconds between two looks: a bell may be missed, and through PgBouncer none is heard
SHORTEST_POLL = 0.02  # seconds, where no bell is heard
SLEEP = 2.0  # seconds for which one is rung, at least; who waits longer says so again


def wait_for(
    database: Database, keys: Sequence[str], name: str, look: Callable[[Session], float | None], timeout: float, *, bell_ends: bool = False
) -> bool:
    """Return when *look* returns 0 or less, or after *timeout*; it says in how many seconds to look again, None: if nothing changes.

    *name* tells this waiting from any other for *keys*; with *bell_ends* the bell of one of them ends it without another look. Answers
    whether it may still be rung for.
    """
    deadline, said_until = time.monotonic() + timeout, 0.0
    bells = {md5(key.encode(), usedforsecurity=False).hexdigest().encode() for key in keys}
    with database.listening() as session:
        session.drain()
        while True:
            now = time.monotonic()
            session.deadline = now + database.timeout
            if not session.pooled and now > said_until and now < deadline:
                session.rows(rename("SELECT umbel.sleep(%s::text[], %s, %s)", database.schema), (list(keys), name, SLEEP))
                said_until = now + SLEEP / 2  # before the first look: what comes after it is rung for
            after = look(session)
            now = time.monotonic()
            if (after is not None and after <= 0) or now >= deadline:
                return said_until > 0
            pause = random.uniform(0.7, 1.0) * (SHORTEST_POLL if session.pooled else LONGEST_POLL)  # noqa: S311 - so that many spread
            end = now + min(pause, deadline - now, pause if after is None else after)
            # What came with the answer may be for what came after the look. Others' bells wake, too: there is one channel.
            heard = session.drain()
            while not bells & heard and (now := time.monotonic()) < end:
                heard = session.heard(end - now)
            if bell_ends and bells & heard:
                return True
