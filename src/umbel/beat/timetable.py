"""All entries, with what was handled of each: from the configuration and from the store, and which is due next."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from umbel.beat.entry import Entry, entry_of
from umbel.beat.planning import Plan, begin, plan, slot_of
from umbel.schedule_store import ScheduleStore, State
from umbel.schedules import from_dict

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Due", "Timetable", "intended", "read_row"]

logger = logging.getLogger("celery.beat")

BATCH = 500  # names or states in one call of the store
AGAIN = 300.0  # seconds until an entry is looked at again whose schedule raised


class Due(NamedTuple):
    """An entry that is to be sent now."""

    entry: Entry
    state: State
    plan: Plan


class Timetable:
    """What a leader knows. It follows the store: an edit costs as much as it changes."""

    def __init__(
        self, app: Umbel, store: ScheduleStore, configured: Mapping[str, Mapping[str, Any]], *, beat: Callable[[], object] = lambda: None
    ) -> None:
        """*beat* is called again and again while much is read, as seconds may pass."""
        self._app, self._store, self._configured, self._beat = app, store, configured, beat
        self.entries: dict[str, Entry] = {}
        self.states: dict[str, State] = {}
        self.rows: dict[str, bytes] = {}  # what the store says of them
        self.unwritten: dict[str, State] = {}  # of entries that ran, that nobody had planned before, or that were edited
        self._heap: list[tuple[float, int, str]] = []
        self._turns: dict[str, int] = {}  # of the only valid line of each entry in the heap
        self._turn = 0
        self._mark = 0

    # --- follow the store

    def load(self) -> None:
        """Read all there is."""
        for names in batches(list(self._configured)):
            self._take(dict.fromkeys(names), ())
        self.refresh()

    def refresh(self) -> None:
        """Read what has changed."""
        named: set[str] | None = None  # in a list of all
        while True:
            changes = self._store.changed_since(self._mark, limit=BATCH)
            self._mark = changes.mark
            if changes.whole:
                named = set()
            if named is not None:
                named.update(row.name for row in changes.rows)
            self._take({row.name: row.text for row in changes.rows}, changes.removed)
            if not changes.more:
                break
        if named is not None and self.rows.keys() - named:  # the store has lost what it had
            self._take({}, list(self.rows.keys() - named))

    def _take(self, rows: Mapping[str, bytes | None], removed: Sequence[str]) -> None:
        """Take over what the store says of some entries: None of one that stands only in the configuration."""
        for name in removed:
            self._forget(name)
        found = self._read({**rows, **{name: None for name in removed if name in self._configured}})
        self.states.update(self._store.states([name for name in found if name not in self.states]))
        now = self._store.now() if found else 0.0
        for name, entry in found.items():
            state = self.states.get(name)
            if state is None:
                state = self.unwritten[name] = self.states[name] = State(name=name, slot=begin(entry, now))
            elif name in self.entries:  # it was edited, and a row that is new begins without a state
                self.unwritten[name] = state
            self.entries[name] = entry
            self.wait(name, now)
        self._beat()

    def _read(self, rows: Mapping[str, bytes | None]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for name, text in rows.items():
            self._note(name, text)
            try:
                found[name] = read_row(name, text, self._configured.get(name), self._app)
            except Exception as exc:  # noqa: BLE001 - one entry that cannot be read holds up no other
                logger.error("beat: The periodic task %r cannot be used and is not sent: %s", name, exc)  # noqa: TRY400
                self._forget(name)
        return found

    def _note(self, name: str, text: bytes | None) -> None:
        if text is None:
            self.rows.pop(name, None)
        else:
            self.rows[name] = text

    def _forget(self, name: str) -> None:
        self.entries.pop(name, None)
        self.states.pop(name, None)
        self.rows.pop(name, None)
        self.unwritten.pop(name, None)
        self._turns.pop(name, None)

    # --- what is due

    def due(self, now: float, limit: int) -> list[Due] | None:
        """Return those of the next *limit* entries that are due; `handled` or `wait` puts them back. None: there are no more to look at."""
        found: list[Due] = []
        looked_at = 0
        while looked_at < limit and self._heap and self._heap[0][0] <= now:
            _, turn, name = heapq.heappop(self._heap)
            if self._turns.get(name) == turn:
                looked_at += 1
                if (due := self._planned(name, now)) is not None:
                    found.append(due)
        return found if looked_at else None

    def _planned(self, name: str, now: float) -> Due | None:
        """Plan an entry; None: nothing is due, and it is looked at again when something is."""
        entry, state = self.entries[name], self.states[name]
        try:
            planned = plan(entry, state.slot, state.runs, now)
        except Exception:
            logger.exception("beat: Cannot calculate the next run of %r, trying again in %d seconds.", name, AGAIN)
            self.wait(name, now + AGAIN)
            return None
        slot = intended(entry, state)
        if slot is not None and entry.enabled and slot > (entry.since or 0):
            return Due(entry, state, planned if planned.slots == [slot] else Plan([slot], now if entry.schedule.is_custom() else slot, now))
        if planned.slots or planned.handled != state.slot:
            return Due(entry, state, planned)
        if planned.looks_at is not None:
            self.wait(name, planned.looks_at)
        return None

    def handled(self, due: Due, state: State) -> None:
        """Note what has become of *due*, which is to be written, and when to look at it again."""
        self.states[due.entry.name] = self.unwritten[due.entry.name] = state
        if due.plan.looks_at is not None:
            self.wait(due.entry.name, due.plan.looks_at)

    def wait(self, name: str, until: float) -> None:
        """Look at an entry again at *until*."""
        self._turn += 1
        self._turns[name] = self._turn
        heapq.heappush(self._heap, (until, self._turn, name))

    def next_at(self) -> float | None:
        """Return when something is to be looked at next."""
        while self._heap and self._turns.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None


def intended(entry: Entry, state: State) -> float | None:
    """Return the slot that a leader was about to send, and has not written that it did. None: there is none."""
    if not entry.runs_alone or not state.id:
        return None
    slot = slot_of(state.id)
    return slot if slot > state.slot or (slot == state.slot and entry.schedule.is_custom()) else None


def read_row(name: str, text: bytes | None, configured: Mapping[str, Any] | None, app: Any = None) -> Entry:
    """Make an entry of what the configuration and the store say of it: the store is right where both do."""
    said: dict[str, Any] = msgspec.json.decode(text) if text else {}
    if isinstance(said.get("schedule"), dict):
        said["schedule"] = from_dict(said["schedule"])
    return entry_of(name, {**(configured or {}), **said}, app)


def batches(names: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut *names* into what one call of the store takes."""
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH]
