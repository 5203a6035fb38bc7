"""A store of schedules that has the table's rows, and beneath it what was handled."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

import msgspec
from django.db import DatabaseError, InterfaceError  # type: ignore[import-untyped]

from umbel.contrib.django.periodic.documents import aware
from umbel.contrib.django.periodic.following import Follower
from umbel.contrib.django.periodic.models import PeriodicTask
from umbel.exceptions import BrokerUnavailable
from umbel.schedule_store import Changes, Row, ScheduleStore, State

__all__ = ["TableStore", "is_older"]

logger = logging.getLogger("celery.beat")


class TableStore(ScheduleStore):
    """The rows of the table, over a store that has the states, and rows of other entries.

    Who asks with the mark 0 begins anew; one at a time reads from it. Where both have an entry, the table is right.
    """

    def __init__(self, below: ScheduleStore) -> None:
        self._below, self._table = below, Follower()
        self._names: set[str] = set()  # of the rows beneath
        self._listing: set[str] | None = None
        self._anew: list[Row] = []  # of names whose old rows were told to be gone in the page before
        self._silent = False  # was it said that the table cannot be read?

    def now(self) -> float:
        """Return the time by the store's clock."""
        return self._below.now()

    def changed_since(self, mark: int, *, limit: int = 1000) -> Changes:
        """Return what has changed beneath, and then what has in the table."""
        if mark == 0:
            self._table.begin()
            self._names, self._listing, self._anew = set(), None, []
        below = self._below.changed_since(inner(mark), limit=limit)
        removed = self._gone_below(below)
        rows = [row for row in below.rows if row.name not in self._table.names]
        if below.more:
            return Changes(outer(below.mark), rows, removed, more=True)
        if not self._table.listed:
            rows += self._list_table(limit)
            return Changes(outer(below.mark), rows, removed, more=not self._table.listed)
        if self._anew:
            rows, self._anew = rows + self._anew, []
            return Changes(outer(below.mark), rows, removed)
        changed, gone = self._look_at_table()
        self._anew = [row for row in changed if row.name in gone]
        rows += [row for row in changed if row.name not in gone]
        return Changes(outer(below.mark), rows, [*removed, *gone], more=bool(self._anew))

    def _gone_below(self, below: Changes) -> list[str]:
        """Return which rows beneath are gone. A list of all of them tells it, too; it is not passed on as one, without the table's."""
        if below.whole:
            self._listing = set()
        gone = set(below.removed)
        named = {row.name for row in below.rows}
        if self._listing is not None:
            self._listing |= named
            if not below.more:
                gone |= self._names - self._listing
                self._listing = None
        self._names = (self._names - gone) | named
        return [name for name in gone if name not in self._table.names]

    def _list_table(self, limit: int) -> list[Row]:
        try:
            return self._table.list_some(limit)
        except (DatabaseError, InterfaceError) as exc:
            self._table.begin_connection_anew()
            raise BrokerUnavailable(f"The table of periodic tasks cannot be read: {exc}. Is `manage.py migrate` done?") from exc

    def _look_at_table(self) -> tuple[list[Row], set[str]]:
        """Look for edits: a name may be gone and there again. While the database does not answer, what is known goes on."""
        try:
            changed, gone = self._table.look(compare=self.leads)
        except (DatabaseError, InterfaceError) as exc:
            self._table.begin_connection_anew()
            if not self._silent:
                logger.error("beat: Edits of periodic tasks are not seen, as the database does not answer: %s", exc)  # noqa: TRY400
            self._silent = True
            return [], set()
        if self._silent:
            self._silent = False
            logger.info("beat: The table of periodic tasks can be read again.")
        ended = {*gone, *self._table.replaced}
        if ended and self.leads:
            self._below.remove(ended)  # a new one of that name begins without a state
        return changed, ended

    def put(self, rows: Iterable[Row]) -> None:
        """Switch entries of the table on or off, which is all that is changed of them elsewhere than in the table."""
        others = []
        for row in rows:
            if row.name in self._table.names:
                enabled = bool(msgspec.json.decode(row.text).get("enabled", True))
                PeriodicTask.objects.using(self._table.using).filter(name=row.name).update(enabled=enabled)
            else:
                others.append(row)
        if others:
            self._below.put(others)

    def remove(self, names: Iterable[str]) -> int:
        """Remove entries, those of the table, too."""
        names = list(names)
        removed, _ = PeriodicTask.objects.using(self._table.using).filter(name__in=names).delete()
        return self._below.remove(names) + int(removed)

    def states(self, names: Iterable[str]) -> dict[str, State]:
        """Return the states beneath, but no state of an older task of the same name, which nobody saw go."""
        states = self._below.states(names)
        mine = [name for name in states if name in self._table.names]
        if not mine:
            return states
        rows = PeriodicTask.objects.using(self._table.using).filter(name__in=mine).only("name", "created", "since")
        try:
            older = {task.name for task in rows if is_older(states[task.name], task)}
        except (DatabaseError, InterfaceError) as exc:
            self._table.begin_connection_anew()
            raise BrokerUnavailable(f"The table of periodic tasks cannot be read: {exc}.") from exc
        return {name: state for name, state in states.items() if name not in older}

    def advance(self, states: Sequence[State], *, fence: int) -> bool:
        """Write states beneath."""
        return self._below.advance(states, fence=fence)

    def close(self) -> None:
        """Close the store beneath, and the table's connection."""
        self._table.begin_connection_anew()
        self._below.close()


def is_older(state: State, task: PeriodicTask) -> bool:
    """Answer whether a state is from before its row was made. One that was taken over from elsewhere may have runs from before that."""
    return task.since is not None and state.slot < math.floor(aware(task.created).timestamp())


# 0 is the mark of who knows nothing, and the store beneath answers with it while it has never had a row: here they differ.


def outer(mark: int) -> int:
    """Return the mark to give for one of the store beneath."""
    return mark - 1 if mark < 0 else mark + 1


def inner(mark: int) -> int:
    """Return the mark that was given for."""
    return mark + 1 if mark < 0 else max(mark - 1, 0)
