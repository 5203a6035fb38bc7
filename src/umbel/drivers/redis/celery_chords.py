"""Chords that Celery producers have sent: their parts are counted in Celery's keys, so that its workers can count there, too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import ClassVar

from umbel.backend import CeleryPart
from umbel.drivers.redis.client import Client
from umbel.drivers.redis.flows import told_as_backend

__all__ = ["CeleryChords"]

DONE = 300_000  # ms that "done" is kept
LONGEST = 86_400  # seconds, where results do not expire
SUFFIXES = (".j", ".t", ".s", ".d", ".c")


@cache
def script(name: str) -> str:
    """Return the text of a script."""
    return files("umbel.drivers.redis").joinpath("scripts", f"celery_chord{name}.lua").read_text()


def _ttl(expires: float | None) -> int:
    return int(1000 * (expires or LONGEST))


class CeleryChords:
    """The part of the result backend that knows Celery's keys of chords."""

    is_shared_with_celery: ClassVar[bool] = True
    counts_celery_chords: ClassVar[bool] = True
    client: Client
    key_prefix: str
    ordered_chords = True  # as Celery's transport option `result_chord_ordered` says: its parts stand in a sorted set, or in a list

    def _keys(self, group: str) -> list[str]:
        return [f"{self.key_prefix}celery-taskset-meta-{group}{suffix}" for suffix in SUFFIXES]

    def open_celery_chord(self, group: str, size: int, *, expires: float | None) -> None:
        _, _, parts, _, claim = self._keys(group)
        with told_as_backend():
            self.client.call("EVAL", script("_open"), 2, parts, claim, size, _ttl(expires))

    def grow_celery_chord(self, group: str, id: str, *, expires: float | None) -> bool:
        _, more, size, counted, claim = self._keys(group)
        with told_as_backend():
            return bool(self.client.call("EVAL", script("_grow"), 4, more, size, counted, claim, id, _ttl(expires)))

    def celery_part(self, part: CeleryPart, *, expires: float | None) -> Sequence[bytes] | None:
        place = "+inf" if part.index is None else str(part.index)
        ordered = "1" if self.ordered_chords else "0"
        with told_as_backend():
            keys = self._keys(part.group)
            found = self.client.call(
                "EVAL", script(""), len(keys), *keys, part.id, part.document, place, _ttl(expires), int(1000 * part.claim), part.id, ordered
            )  # fmt: skip
        return None if not found else list(found)

    def celery_chord_sent(self, group: str, *, failed: bool) -> None:
        parts, more, size, counted, claim = self._keys(group)
        with told_as_backend():
            if failed:  # as Celery: the parts are left to expire
                self.client.call("DEL", size)
            else:
                self.client.call("DEL", parts, more, size, counted)
            self.client.call("SET", claim, "done", "PX", DONE)
