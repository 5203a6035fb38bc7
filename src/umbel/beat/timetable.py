"""All entries, with what was handled of each: from the configuration and from the store, and which is due next."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from umbel.beat.entry import Entry, entry_of
from umbel.beat.planning import Plan, begin, plan, slot_of
from umbel.schedule_store import ScheduleStore, State
from umbel.schedules import BaseSchedule, from_dict

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Due", "Timetable", "intended", "read_row"]

logger = logging.getLogger("celery.beat")

BATCH = 500  # names or states in one call of the store
AGAIN = 300.0  # seconds until an entry is looked at again whose schedule raised
AT_ONCE = 0.0  # when to look at what was not planned yet
BEHIND = 3.0  # seconds for which an entry has looked due until who does not lead reads its state again
SCHEDULES = 4096  # that entries share


class Due(NamedTuple):
    """An entry that is to be sent now."""

    entry: Entry
    state: State
    plan: Plan


class Timetable:
    """What a candidate knows. It follows the store: an edit costs as much as it changes.

    Who does not lead follows, too, so that it can lead at once. The states that it has read grow old meanwhile, but a slot never goes
    back: by an old state an entry looks due too early, never too late. So who begins to lead reads the state of an entry again when that
    looks due, and no other: a takeover costs as much as is due then, however many entries there are.
    """

    def __init__(
        self, app: Umbel, store: ScheduleStore, configured: Mapping[str, Mapping[str, Any]], *, leads: bool = False,
        beat: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """*beat* is called again and again while much is read, as seconds may pass."""
        self._app, self._store, self._configured, self._beat = app, store, configured, beat
        self.leads = store.leads = leads
        self.entries: dict[str, Entry] = {}
        self.states: dict[str, State] = {}
        self.rows: dict[str, bytes] = {}  # what the store says of them
        self.unwritten: set[str] = set()  # they ran, nobody had planned them before, or they were edited: the store lacks their state
        self._sure: set[str] = set()  # whose state is the store's: it was read since this role began, and nobody else may have written
        self._schedule = lru_cache(SCHEDULES)(read_schedule)  # most entries share a schedule with others
        self._heap: list[tuple[float, int, str]] = []
        self._turns: dict[str, int] = {}  # of the only valid line of each entry in the heap
        self._turn = 0
        self._mark = 0

    def play(self, *, leads: bool) -> None:
        """Begin to lead, or to follow: believe no state that was read before."""
        self.leads = self._store.leads = leads
        self._sure.clear()

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
            if changes.rows or changes.removed:
                self._take({row.name: row.text for row in changes.rows}, changes.removed)
            if not changes.more:
                break
        if named is not None and self.rows.keys() - named:  # the store has lost what it had
            self._take({}, list(self.rows.keys() - named))
        if self.unwritten and not self.leads:  # by now the leader may have written them
            self._be_sure(list(islice((name for name in self.unwritten if name not in self._sure), BATCH)))

    def _take(self, rows: Mapping[str, bytes | None], removed: Sequence[str]) -> None:
        """Take over what the store says of some entries: None of one that stands only in the configuration."""
        for name in removed:
            self._forget(name)
        found = self._read({**rows, **{name: None for name in removed if name in self._configured}})
        self._be_sure([name for name in found if name not in self.states])
        now = self._store.now() if found else 0.0
        for name, entry in found.items():
            if name not in self.states:
                self.states[name] = State(name=name, slot=begin(entry, now))
                self.unwritten.add(name)
            elif name in self.entries:  # it was edited, and a row that is new begins without a state
                self.unwritten.add(name)
            self.entries[name] = entry
            self.wait(name, AT_ONCE)
        self._beat()

    def _be_sure(self, names: Sequence[str]) -> None:
        """Read the states of those of which it is not known."""
        if unsure := [name for name in names if name not in self._sure]:
            found = self._store.states(unsure)
            self.states.update(found)
            self._sure.update(unsure)
            for name in self.unwritten.intersection(found):  # planned by a guess, or by what was there before an edit
                self.unwritten.discard(name)
                self.wait(name, AT_ONCE)

    def to_write(self, limit: int) -> list[State]:
        """Return some states that are to be written before anything is sent; none of those that the store turns out to have."""
        names = list(islice(self.unwritten, limit))
        self._be_sure(names)
        return [self.states[name] for name in names if name in self.unwritten]

    def _read(self, rows: Mapping[str, bytes | None]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for name, text in rows.items():
            self._note(name, text)
            try:
                found[name] = read_row(name, text, self._configured.get(name), self._app, self._schedule)
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
        self._turns.pop(name, None)
        self.unwritten.discard(name)
        self._sure.discard(name)

    # --- what is due

    def due(self, now: float, limit: int) -> list[Due] | None:
        """Return those of the next *limit* entries that are due; `handled` or `wait` puts them back. None: there are no more to look at."""
        names = self._looked_at(now, limit)
        return [due for name in names if (due := self._planned(name, now)) is not None] if names else None

    def keep_up(self, now: float, limit: int) -> bool:
        """Plan what is new, and what another should have sent by now, while it leads; answer whether there was such."""
        names = self._looked_at(now - BEHIND, limit)
        for name in names:
            if self.entries[name].schedule.is_custom() or self._planned(name, now) is not None:
                self.wait(name, now)  # only who leads asks a class of others, and sends
        self._sure.difference_update(names)
        return bool(names)

    def _looked_at(self, until: float, limit: int) -> list[str]:
        """Take up to *limit* entries that are to be looked at by now, with the states that the store has of them."""
        names: list[str] = []
        while len(names) < limit and self._heap and self._heap[0][0] <= until:
            _, turn, name = heapq.heappop(self._heap)
            if self._turns.get(name) == turn:
                names.append(name)
        try:
            self._be_sure(names)
        except BaseException:
            for name in names:  # none may be forgotten
                self.wait(name, AT_ONCE)
            raise
        return names

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
        self.states[due.entry.name] = state
        self.unwritten.add(due.entry.name)
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


def read_row(
    name: str, text: bytes | None, configured: Mapping[str, Any] | None, app: Any = None,
    schedule: Callable[[bytes], BaseSchedule] | None = None,
) -> Entry:  # fmt: skip
    """Make an entry of what the configuration and the store say of it: the store is right where both do.

    *schedule* makes a schedule of its JSON: `read_schedule`, or what remembers those that it has made.
    """
    said: dict[str, Any] = msgspec.json.decode(text) if text else {}
    if isinstance(said.get("schedule"), dict):
        said["schedule"] = (schedule or read_schedule)(msgspec.json.encode(said["schedule"]))
    return entry_of(name, {**(configured or {}), **said}, app)


def read_schedule(text: bytes) -> BaseSchedule:
    """Make a schedule of its JSON."""
    return from_dict(msgspec.json.decode(text))


def batches(names: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut *names* into what one call of the store takes."""
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH]
