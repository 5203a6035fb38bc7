"""What is counted, in Redis: the scripts that settle count, here it is read."""

from __future__ import annotations

from umbel.broker import TALLIES_KEPT, Tally
from umbel.drivers.redis.client import Client, load_script

__all__ = ["tallies_of"]

AT_ONCE = 10  # minutes that one call of the script reads: it holds up the server

SCRIPT = load_script("tallies", shared=())


def tallies_of(client: Client, base: str, since: float) -> list[Tally]:
    """Return what was counted of the queue *base* from *since* on, in three hours at most."""
    now = int(client.call("TIME")[0])
    first = -int(-max(since, now - TALLIES_KEPT) // 60) * 60  # the next that begins a minute
    minutes = range(first, now + 1, 60)
    calls = [(base, *minutes[start : start + AT_ONCE]) for start in range(0, len(minutes), AT_ONCE)]
    found = [counts for reply in client.run_many(SCRIPT, calls) for counts in reply] if calls else []
    return [
        Tally(minute, tally.decode(), int(count))
        for minute, counts in zip(minutes, found, strict=True)
        for tally, count in sorted(zip(counts[::2], counts[1::2], strict=True))
    ]  # fmt: skip
