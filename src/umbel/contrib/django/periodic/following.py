"""What a scheduler knows of the table, and how it learns of edits.

It is told by notes (`edits.py`): each second it reads those of the last seconds, as a note with a smaller number may be seen after one with
a larger. And who leads compares: page by page, `PAGE` rows each second, through the whole table and again. So what was changed by SQL is
found, too: in a table of one page within two seconds. Who only stands by reads notes, or many would read the table all the time. What is
new, changed and gone follows from comparing texts, so to look again is safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.db import connections, router  # type: ignore[import-untyped]
from django.db.models import Max  # type: ignore[import-untyped]

from umbel.contrib.django.periodic.documents import COLUMNS, text
from umbel.contrib.django.periodic.models import Edit, PeriodicTask
from umbel.schedule_store import Row

__all__ = ["Follower"]

PAGE: Final = 1000  # rows that are compared in one look
HURRY: Final = 10_000  # as long as so much has changed that it was not noted one by one
LOOKS: Final = 6  # looks for which notes are read again
KEPT: Final = 120  # looks for which notes are kept, one in a second: who does not look for half of that begins anew
KEYS: Final = 500  # in one query


class Follower:
    """One reader of the table. It lists the rows (`list_some`, until that says that there are no more), and follows (`look`)."""

    def __init__(self) -> None:
        self.using: str = router.db_for_write(PeriodicTask)  # not a replica, which may be behind a note
        self.begin()

    def begin(self) -> None:
        """Know nothing."""
        self.rows: dict[int, Row] = {}
        self.names: dict[str, int] = {}
        self._marks: deque[int] | None = None
        self.replaced: set[str] = set()  # names that came back with another row in the last look
        self._listed = False
        self._pass(0)

    def _pass(self, hurried: int) -> None:
        """Begin to compare from the first row on."""
        self._cursor, self._seen, self._page = 0, set[int](), HURRY if hurried else PAGE

    # --- list

    @property
    def listed(self) -> bool:
        """Whether all rows were listed."""
        return self._listed

    def list_some(self, limit: int) -> list[Row]:
        """Return the next rows."""
        if self._marks is None:
            self._marks = deque([self._last_note()], maxlen=KEPT)
        found = self._after(self._cursor, limit)
        rows, _ = self._take(found)
        self._listed = len(found) < limit
        if self._listed:
            self._pass(0)
        else:
            self._cursor = found[-1][0]
        return rows

    # --- follow

    def look(self, *, compare: bool) -> tuple[list[Row], list[str]]:
        """Return what has changed, and the names that are gone; without *compare* as far as that was noted."""
        self.replaced = set()
        noted = self._noted()
        found = [row for keys in cut(sorted(noted)) for row in self._read(PeriodicTask.objects.filter(pk__in=keys))]
        gone = noted - {key for key, _ in found}
        self._seen |= noted
        if compare or self._page == HURRY:
            page, missed = self._compared()
            found += page
            gone |= missed
        rows, renamed = self._take(found)
        removed = renamed + [self._forget(key) for key in gone if key in self.rows]
        return rows, [name for name in removed if name not in self.names]

    def _compared(self) -> tuple[list[tuple[int, Row]], set[int]]:
        """Return the next page, and at the end of the table the keys that were not met."""
        page = self._after(self._cursor, self._page)
        self._seen.update(key for key, _ in page)
        if len(page) == self._page:
            self._cursor = page[-1][0]
            return page, set()
        missed = self.rows.keys() - self._seen
        self._end_of_pass()
        return page, missed

    def _noted(self) -> set[int]:
        assert self._marks is not None, "list before you follow"
        notes = list(Edit.objects.using(self.using).filter(pk__gt=self._marks[-min(LOOKS, len(self._marks))]).values_list("pk", "task"))
        last = self._marks[-1]
        if any(task is None and note > last for note, task in notes):
            self._pass(hurried=1)
        self._marks.append(max([last, *(note for note, _ in notes)]))
        return {task for _, task in notes if task is not None}

    def _end_of_pass(self) -> None:
        assert self._marks is not None
        if len(self._marks) == KEPT:
            Edit.objects.using(self.using).filter(pk__lte=self._marks[0]).delete()
        self._pass(0)

    def _take(self, found: Iterable[tuple[int, Row]]) -> tuple[list[Row], list[str]]:
        """Take over rows; return those that differ from what was known, and names that are not theirs any more."""
        rows: list[Row] = []
        renamed: list[str] = []
        for key, row in found:
            old = self.rows.get(key)
            if old == row:
                continue
            if old is not None and old.name != row.name:
                renamed.append(self._forget(key))
            if old is None and row.name in self.names:
                self.replaced.add(row.name)
            self.rows[key], self.names[row.name] = row, key
            rows.append(row)
        return rows, renamed

    def _forget(self, key: int) -> str:
        name = self.rows.pop(key).name
        if self.names.get(name) == key:
            del self.names[name]
        return name

    # --- read

    def _after(self, key: int, limit: int) -> list[tuple[int, Row]]:
        return self._read(PeriodicTask.objects.filter(pk__gt=key).order_by("pk"), limit)

    def _read(self, chosen: Any, limit: int | None = None) -> list[tuple[int, Row]]:
        rows = chosen.using(self.using).order_by("pk").values_list(*COLUMNS, named=True)[:limit]
        return [(row.pk, Row(row.name, text(row))) for row in rows]

    def _last_note(self) -> int:
        return Edit.objects.using(self.using).aggregate(last=Max("pk"))["last"] or 0

    def begin_connection_anew(self) -> None:
        """Close the connection after an error, unless it is in a transaction of somebody else."""
        connection = connections[self.using]
        if not connection.in_atomic_block:
            connection.close()


def cut(keys: Sequence[int]) -> Iterable[Sequence[int]]:
    """Cut what one query takes."""
    return (keys[start : start + KEYS] for start in range(0, len(keys), KEYS))
