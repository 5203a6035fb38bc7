"""The rounds of a scheduler: lead, see what is due, send it, write that it is handled."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel.beat.forms import Forms
from umbel.beat.leader import ASKS, Leader
from umbel.beat.overlap import Overlaps, last_id
from umbel.beat.planning import slot_id
from umbel.beat.sending import REFUSED_AGAIN, Run, send
from umbel.beat.stores import name_of
from umbel.beat.timetable import Due, Timetable, intended
from umbel.clock import Clock, SystemClock
from umbel.leases import LeaseStore
from umbel.schedule_store import ScheduleStore, State

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["LeaseScheduler"]

logger = logging.getLogger("celery.beat")

CHUNK = 500  # entries in one step
LOOKS = 1.0  # seconds between two looks at the edits of others
WAITS = 1.0  # seconds until an entry whose last run has not ended is looked at again
LEAST = 0.001  # seconds: a wait that is shorter is none
FORGETS = 60.0  # seconds without a look after which all is read anew: no store need know for longer what has changed
NOBODY = 0  # the fence of no term


class LeaseScheduler:
    """One of any number of schedulers of an app; only the one that leads sends."""

    def __init__(
        self, app: Umbel, *, leases: LeaseStore, store: ScheduleStore, configured: Mapping[str, Mapping[str, Any]], holder: str,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._app, self._store, self._configured = app, store, configured
        self._clock = clock or SystemClock()
        self.leader = Leader(leases, self._clock, role=name_of(app), holder=holder)
        self._overlaps, self._forms = Overlaps(app), Forms()
        self._table: Timetable | None = None
        self._fence = NOBODY  # of the term in which the timetable leads
        self._looked_at = 0.0

    def round(self) -> float:
        """Do what is to be done now; return after how many seconds to come again.

        Raises:
            OperationalError: a server does not answer. Nothing was lost: come again.
        """
        term = self.leader.keep()
        table = self._known(NOBODY if term is None else term.fence)
        if term is None or table is None:
            return LEAST if table is not None and table.keep_up(self._store.now(), CHUNK) else ASKS
        self._write_all(table)
        while self._fence != NOBODY and self._leads_on():
            if self._clock.boottime() >= self._looked_at + LOOKS:  # also if more is due than can be sent
                return LEAST
            now = self._store.now()
            dues = table.due(now, CHUNK)
            if dues is None:
                return self._pause(table, now)
            self._carry_out(table, dues, now)
        return ASKS

    def _leads_on(self) -> bool:
        """Keep the lease; answer whether the term is still that of the timetable: another may have led between two of ours."""
        term = self.leader.keep()
        return term is not None and term.fence == self._fence

    def _known(self, fence: int) -> Timetable | None:
        """Return what is known, with the edits of others, to lead in a term, or to stand by and know it. None: somebody else leads."""
        table, leads, now = self._table, fence != NOBODY, self._clock.boottime()
        begins = fence != self._fence
        # From this write on, nothing that leaders before this one have sent is written behind its back.
        if leads and begins and not self._written((), fence):
            return None
        if table is None or now - self._looked_at > FORGETS:
            self._table = None
            table = Timetable(self._app, self._store, self._configured, leads=leads, beat=self.leader.keep)
            table.load()
        elif begins:
            table.play(leads=leads)
            table.refresh()
        elif now >= self._looked_at + LOOKS:
            table.refresh()
        else:
            return table
        self._table, self._fence, self._looked_at = table, fence, self._clock.boottime()
        return table

    def _pause(self, table: Timetable, now: float) -> float:
        """Return the seconds until something is due, the lease is to be renewed, or edits are to be looked for."""
        following = table.next_at()
        return max(LEAST, min(math.inf if following is None else following - now, ASKS))

    def _write_all(self, table: Timetable) -> None:
        """Write what was sent, and from when on what is new counts."""
        while table.unwritten:
            states = table.to_write(CHUNK)
            if states and not self._write(states):
                return
            table.unwritten.difference_update(state.name for state in states)

    def _carry_out(self, table: Timetable, dues: Sequence[Due], now: float) -> None:
        """Send what is due, and then write so: a crash in between sends again what the broker has seen, and leaves out."""
        alone = [due for due in dues if due.entry.runs_alone]
        for some in ([due for due in dues if not due.entry.runs_alone], alone):
            try:
                if some and self._fence != NOBODY:
                    self._carry_out_some(table, some, now)
            except BaseException:
                for due in (*some, *alone):  # none may be forgotten
                    table.wait(due.entry.name, now)
                raise
        if self._fence == NOBODY:
            for due in dues:  # what has become of them is what who leads has written
                table.wait(due.entry.name, now)

    def _carry_out_some(self, table: Timetable, dues: Sequence[Due], now: float) -> None:
        turns: list[tuple[Due, Sequence[float]]] = [(due, due.plan.slots) for due in dues]
        if dues[0].entry.runs_alone:
            turns = self._allowed(table, dues, now)
            if not self._intend(table, turns, now):
                return
        if not self.leader.leads():  # to ask has taken longer than the lease
            for due in dues:
                table.wait(due.entry.name, now)
            return
        failed = send(self._app, [Run(due.entry, slot) for due, slots in turns for slot in slots], self._forms)
        for name in failed.refused:
            table.wait(name, now + REFUSED_AGAIN)
        for due, slots in turns:
            if due.entry.name not in failed.refused:  # handled, also if that cannot be written now: it is, before anything else is sent
                table.handled(due, after(due, slots, failed.unsent, now))
        self._write_all(table)

    def _allowed(self, table: Timetable, dues: Sequence[Due], now: float) -> list[tuple[Due, Sequence[float]]]:
        """Return what is sent of entries that must not run beside themselves; those that wait are not among them."""
        turns: list[tuple[Due, Sequence[float]]] = []
        running = self._overlaps.still_running([due for due in dues if due.plan.slots and intended(due.entry, due.state) is None], now)
        for due in dues:
            goes_on = running.get(due.entry.name, False)
            slots = due.plan.slots if goes_on is False else self._overlapping(due) if goes_on else None
            if slots is None:
                table.wait(due.entry.name, now + WAITS)
            else:
                turns.append((due, slots))
        return turns

    def _overlapping(self, due: Due) -> Sequence[float] | None:
        """Do what the entry wants while its last run goes on; return what is sent. None: it waits."""
        entry, last = due.entry, last_id(self._app, due)
        if entry.overlap == "queue":
            return None
        if entry.overlap == "replace":
            logger.warning("beat: %s is due, and its run before has not ended: %s is revoked.", entry.name, last)
            self._app.AsyncResult(last).revoke(terminate=True)
            return due.plan.slots
        logger.warning("beat: %s is left out, as its run before has not ended: %s.", slot_id(entry.name, due.plan.slots[0]), last)
        return ()

    def _intend(self, table: Timetable, turns: Sequence[tuple[Due, Sequence[float]]], now: float) -> bool:
        """Write what is about to be sent of entries that must not run beside themselves.

        If this leader dies meanwhile, the next one sends these runs, whatever else they have become late for, and knows of them.
        """
        states = [
            State(due.state.name, due.state.slot, due.state.runs, slot_id(due.entry.name, slots[0]), now)
            for due, slots in turns
            if slots and intended(due.entry, due.state) is None
        ]
        if states and not self._write(states):
            return False
        table.states.update({state.name: state for state in states})
        return True

    def _write(self, states: Sequence[State]) -> bool:
        return self._written(states, self._fence)

    def _written(self, states: Sequence[State], fence: int) -> bool:
        """Write *states*. False: who has written is of a later term, or the store has an older one of ours: a new term is begun."""
        if self._store.advance(states, fence=fence):
            return True
        logger.warning("beat: another scheduler leads, and has written since: this one begins anew.")
        self._fence = NOBODY
        self.leader.give_up()
        return False

    def close(self) -> None:
        """Let another lead at once."""
        self._overlaps.close()
        self.leader.give_up()


def after(due: Due, slots: Sequence[float], unsent: Collection[tuple[str, float]], now: float) -> State:
    """Return the state of an entry of which *slots* have had their turn."""
    state, name = due.state, due.entry.name
    sent = [slot for slot in slots if (name, slot) not in unsent]
    last = State(name=name, slot=0, id=slot_id(name, sent[-1]), sent=now) if sent else state
    return State(name=name, slot=due.plan.handled, runs=state.runs + len(slots), id=last.id, sent=last.sent)
