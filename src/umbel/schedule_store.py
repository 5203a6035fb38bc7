"""What a store of schedules promises: entries that any process edits, and how far each was carried out.

A store holds schedules, which have names and nothing in common. `umbel.testing.conformance` tests each sentence.

An entry has a *row*, its definition, and a *state*, which of its slots was handled last. Both go by its name, and one may be without the
other: entries that stand in a program have a state only. Each change of a row has a *mark*, a number that grows, so that who knows the
rows up to a mark asks for what came after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import msgspec

__all__ = ["REMOVALS_KEPT", "Changes", "Row", "ScheduleStore", "State"]

REMOVALS_KEPT = 3600.0  # seconds for which a removed name is known, at least: an older mark is answered with all rows


class Row(msgspec.Struct, frozen=True, gc=False):
    """The definition of an entry."""

    name: str
    text: bytes  # JSON; a driver does not read it


class State(msgspec.Struct, frozen=True, gc=False):
    """How far an entry was carried out."""

    name: str
    slot: float  # the last that was handled, in seconds since the epoch
    runs: int = 0  # how many slots were
    id: str = ""  # names the last run
    sent: float = 0.0  # when that was sent, or was to be, in seconds since the epoch


class Changes(msgspec.Struct, frozen=True, gc=False):
    """What has changed since a mark, or one page of it."""

    mark: int  # to ask with the next time
    rows: Sequence[Row] = ()  # as they are now
    removed: Sequence[str] = ()  # names; perhaps some that who asks has never known
    more: bool = False  # does more follow at once?
    whole: bool = False  # Does a list of all rows begin here? What it has not named until `more` is false is gone.


class ScheduleStore(ABC):
    """One schedule. Its methods may be called from several threads and after a fork.

    They raise `BrokerUnavailable` if the store does not answer in time, and each may be repeated then.
    """

    leads = False  # Is it that of the scheduler which leads? A store over another removes states there only then.

    @abstractmethod
    def now(self) -> float:
        """Return the time by the store's clock, in seconds since the epoch."""

    @abstractmethod
    def changed_since(self, mark: int, *, limit: int = 1000) -> Changes:
        """Return up to *limit* of the rows that were put or removed after *mark*, in the order of the changes; fewer if they are large.

        With 0, or a mark that the store does not know (it is older than `REMOVALS_KEPT`, or the store has lost what it knew), it begins
        with all rows (`Changes.whole`). A mark is given back as it was got: within such a list it is negative. States are no changes.
        One edit is never seen without those that returned before it began.
        """

    @abstractmethod
    def put(self, rows: Iterable[Row]) -> None:
        """Define or redefine entries, in bounded steps; of two with one name the last counts.

        Who is redefined keeps its state; a name that was not defined begins without one. A row that is there as it is is no change.
        """

    @abstractmethod
    def remove(self, names: Iterable[str]) -> int:
        """Remove the rows and states of *names*, in bounded steps; return how many rows there were."""

    @abstractmethod
    def states(self, names: Iterable[str]) -> dict[str, State]:
        """Return the states of those of *names* that have one, in bounded steps."""

    @abstractmethod
    def advance(self, states: Sequence[State], *, fence: int) -> bool:
        """Write *states*, all or none, each of another name. False: somebody with a larger *fence* has written, and nothing was.

        No slot goes back: a state with an older slot than the one that is there is passed over. So a call that is carried out again, or
        late, changes nothing. It is one step that others wait for: give some hundreds at a time.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all connections. Safe twice and after a fork."""
