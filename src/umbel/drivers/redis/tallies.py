"""What is counted, in Redis: the scripts that settle count, here it is read."""

from __future__ import annotations

from collections.abc import Mapping

from umbel.broker import TALLIES_KEPT, Tally
from umbel.drivers.redis.client import Client, load_script

__all__ = ["count_tallies", "tallies_of"]

AT_ONCE = 10  # minutes that one call of the script reads: it holds up the server

SCRIPT = load_script("tallies", shared=())


def count_tallies(client: Client, base: str, tallies: Mapping[str, int]) -> None:
    """Count *tallies* of the queue *base* in this minute, where no script does."""
    now = client.now(base)[0]
    key = f"{base}.tally:{now - now % 60}"
    client.pipeline([*(("HINCRBY", key, tally, times) for tally, times in tallies.items()), ("EXPIRE", key, TALLIES_KEPT)])


def tallies_of(client: Client, base: str, since: float) -> list[Tally]:
    """Return what was counted of the queue *base* from *since* on, in three hours at most."""
    now = client.now(base)[0]
    first = -int(-max(since, now - TALLIES_KEPT) // 60) * 60  # the next that begins a minute
    minutes = range(first, now + 1, 60)
    calls = [(base, *minutes[start : start + AT_ONCE]) for start in range(0, len(minutes), AT_ONCE)]
    found = [counts for reply in client.run_many(SCRIPT, calls) for counts in reply] if calls else []
    return [
        Tally(minute, tally.decode(), int(count))
        for minute, counts in zip(minutes, found, strict=True)
        for tally, count in sorted(zip(counts[::2], counts[1::2], strict=True))
    ]  # fmt: skip
