# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""What every store of schedules promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from umbel.schedule_store import Changes, Row, ScheduleStore, State
from umbel.testing.conformance.base import ends_in_time

__all__ = ["Follower", "ScheduleStoreConformance"]


class Follower:
    """Who knows all rows: it asks for what has changed, and applies it."""

    def __init__(self, store: ScheduleStore) -> None:
        self.store = store
        self.mark = 0
        self.rows: dict[str, bytes] = {}
        self.named: set[str] | None = None  # since a list of all rows began
        self.pages = 0
        self.wholes = 0

    def look(self, limit: int = 1000) -> list[str]:
        """Take in all that has changed; return the names."""
        seen, more = [], True
        while more:
            page = self.store.changed_since(self.mark, limit=limit)
            seen += self.apply(page)
            more = page.more
        return seen

    def apply(self, page: Changes) -> list[str]:
        """Take in one page."""
        self.pages += 1
        self.wholes += page.whole
        self.mark = page.mark
        if page.whole:
            self.named = set()
        self.rows |= {row.name: row.text for row in page.rows}
        for name in page.removed:
            self.rows.pop(name, None)
        named = [row.name for row in page.rows]
        if self.named is not None:
            self.named |= set(named)
            if not page.more:
                self.rows = {name: text for name, text in self.rows.items() if name in self.named}
                self.named = None
        return [*named, *page.removed]


def rows_of(*names: str, text: bytes = b"{}") -> list[Row]:
    """Make rows with one text."""
    return [Row(name, text) for name in names]


class ScheduleStoreConformance:
    """Give the fixture `make_schedules`, which makes stores that share their schedules and hands on `name` and `removals_kept`."""

    @pytest.fixture
    def make_schedules(self) -> Callable[..., ScheduleStore]:
        """Return what makes a store."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, make_schedules: Callable[..., ScheduleStore]) -> Iterator[ScheduleStore]:
        """Return one store."""
        store = make_schedules()
        yield store
        store.close()
        store.close()

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the store; a driver with a clock handed in moves that."""
        time.sleep(seconds)

    def now(self) -> float:
        """Return the time of the clock that the store goes by."""
        return time.time()

    def test_its_clock_tells_the_time(self, store: ScheduleStore) -> None:
        assert abs(store.now() - self.now()) < 2

    def test_what_is_put_is_seen_by_all(self, store: ScheduleStore, make_schedules: Callable[..., ScheduleStore]) -> None:
        follower = Follower(make_schedules())
        assert follower.look() == []
        store.put([Row("a", b'{"every": 1}'), Row("b", b"2")])
        assert follower.look() == ["a", "b"]
        assert follower.rows == {"a": b'{"every": 1}', "b": b"2"}
        assert follower.look() == []
        follower.store.close()

    def test_only_what_has_changed_is_named_in_the_order_of_the_changes(self, store: ScheduleStore) -> None:
        follower = Follower(store)
        store.put(rows_of("a", "b", "c", "d"))
        follower.look()
        store.put(rows_of("c", text=b"new"))
        store.remove(["a"])
        store.put(rows_of("b", text=b"new"))
        changes = store.changed_since(follower.mark)
        assert (changes.rows, changes.removed) == ([Row("c", b"new"), Row("b", b"new")], ["a"])
        assert not changes.whole
        assert not changes.more
        assert changes.mark > follower.mark
        assert store.changed_since(changes.mark) == Changes(changes.mark)

    def test_of_several_changes_of_a_name_the_last_is_seen(self, store: ScheduleStore) -> None:
        follower = Follower(store)
        store.put([Row("a", b"1"), Row("a", b"2")])
        follower.look()
        assert follower.rows == {"a": b"2"}
        store.remove(["a"])
        store.put([Row("a", b"3")])
        store.put([Row("b", b"1")])
        store.remove(["b"])
        assert sorted(follower.look()) == ["a", "b"]
        assert follower.rows == {"a": b"3"}

    def test_a_row_that_is_there_as_it_is_is_no_change(self, store: ScheduleStore) -> None:
        store.put(rows_of("a", "b"))
        mark = store.changed_since(0).mark
        store.put(rows_of("b", "a"))
        assert store.changed_since(mark) == Changes(mark)

    def test_many_changes_come_in_pages(self, store: ScheduleStore) -> None:
        names = [f"entry {n:03}" for n in range(250)]
        store.put(rows_of("first"))
        follower = Follower(store)
        follower.look()
        store.put(rows_of(*names))
        store.remove(["first"])
        assert follower.look(100) == [*names, "first"]
        assert follower.pages == 1 + 3
        whole = Follower(store)
        assert whole.look(100)[:250] == names
        assert (whole.pages, whole.wholes) == (3, 1)
        assert (whole.mark, whole.rows) == (follower.mark, follower.rows)

    def test_an_edit_in_the_midst_of_the_pages_is_not_missed(self, store: ScheduleStore) -> None:
        store.put(rows_of(*(f"e{n}" for n in range(10))))
        follower = Follower(store)
        follower.apply(store.changed_since(0, limit=4))
        store.put([Row("e1", b"new"), Row("late", b"new")])
        store.remove(["e2", "e9"])
        while follower.apply(page := store.changed_since(follower.mark, limit=4)) and page.more:
            pass
        assert follower.rows == {
            **{f"e{n}": b"{}" for n in (0, 3, 4, 5, 6, 7, 8)}, "e1": b"new", "late": b"new",
        }  # fmt: skip
        assert follower.wholes == 1

    def test_an_empty_store_is_a_whole_list_of_nothing(self, store: ScheduleStore) -> None:
        changes = store.changed_since(0)
        assert (list(changes.rows), changes.whole, changes.more) == ([], True, False)
        store.put(rows_of("a"))
        store.remove(["a"])
        assert list(store.changed_since(0).rows) == []

    def test_a_mark_that_it_does_not_know_is_answered_with_all(self, store: ScheduleStore) -> None:
        store.put(rows_of("a"))
        follower = Follower(store)
        follower.look()
        follower.rows["lost"] = b""  # as of a time that the store does not remember
        follower.mark += 10**12
        assert follower.look() == ["a"]
        assert (follower.wholes, follower.rows) == (2, {"a": b"{}"})
        follower.rows["lost"] = b""
        follower.mark = 1
        assert follower.look() == ["a"]
        assert (follower.wholes, follower.rows) == (3, {"a": b"{}"})

    def test_a_removal_is_forgotten_some_time_later_and_who_has_missed_it_gets_all(
        self, make_schedules: Callable[..., ScheduleStore]
    ) -> None:
        store = make_schedules(removals_kept=0.2)
        store.put(rows_of("a", "b", "c"))
        slow, steady = Follower(store), Follower(store)
        slow.look()
        store.remove(["a"])
        steady.look()
        self.pass_time(0.3)
        store.remove(["b"])  # who removes forgets
        store.put(rows_of("d"))
        slow.look()
        steady.look()
        assert slow.rows == steady.rows == {"c": b"{}", "d": b"{}"}
        assert (slow.wholes, steady.wholes) == (2, 1)
        store.close()

    def test_to_remove_what_is_not_there_is_nothing(self, store: ScheduleStore) -> None:
        store.put(rows_of("a", "b"))
        mark = store.changed_since(0).mark
        assert store.remove(["x"]) == 0
        assert store.changed_since(mark).mark == mark
        assert store.remove(["a", "x", "b"]) == 2
        assert store.remove(["a", "b"]) == 0

    def test_states_are_kept_beside_rows_and_are_no_changes(self, store: ScheduleStore) -> None:
        store.put(rows_of("a", "b"))
        mark = store.changed_since(0).mark
        states = [State("a", 1711675800.25, 7, "a@2024-03-29T01:30:00.250Z", 1711675801.5), State("in a program", -1.5)]
        assert store.advance(states, fence=1)
        assert store.states(["in a program", "b", "a", "a"]) == {state.name: state for state in states}
        assert store.changed_since(mark) == Changes(mark)

    def test_who_is_redefined_keeps_its_state(self, store: ScheduleStore) -> None:
        store.put(rows_of("a"))
        store.advance([State("a", 60.0, 1, "x")], fence=1)
        store.put(rows_of("a", text=b"new"))
        assert store.states(["a"]) == {"a": State("a", 60.0, 1, "x")}

    def test_who_is_removed_loses_its_state_and_begins_anew_when_it_is_defined_again(self, store: ScheduleStore) -> None:
        store.put(rows_of("a"))
        store.advance([State("a", 60.0, 1, "x"), State("b", 60.0)], fence=1)
        assert store.remove(["a", "b"]) == 1
        assert store.states(["a", "b"]) == {}
        store.advance([State("a", 120.0, 2, "late")], fence=1)  # by one who had not seen it
        store.put(rows_of("a"))
        assert store.states(["a"]) == {}

    def test_who_has_an_older_fence_writes_nothing(self, store: ScheduleStore) -> None:
        assert store.advance([State("a", 60.0, 1, "new")], fence=5)
        assert not store.advance([State("a", 120.0, 2, "old"), State("b", 120.0)], fence=4)
        assert store.states(["a", "b"]) == {"a": State("a", 60.0, 1, "new")}
        assert store.advance([State("b", 60.0)], fence=5)
        assert store.advance([], fence=2**53 - 1)
        assert not store.advance([State("b", 120.0)], fence=6)

    def test_no_slot_goes_back(self, store: ScheduleStore) -> None:
        assert store.advance([State("a", 120.0, 2, "x"), State("b", 60.0, 1, "y")], fence=1)
        assert store.advance([State("a", 60.0, 1, "late"), State("b", 60.0, 1, "again")], fence=2)
        assert store.states(["a", "b"]) == {"a": State("a", 120.0, 2, "x"), "b": State("b", 60.0, 1, "again")}

    def test_a_step_has_hundreds_of_states_and_an_answer_thousands(self, store: ScheduleStore) -> None:
        states = [State(f"e{n}", 60.0 + n, n, f"id {n}") for n in range(2500)]
        for start in range(0, 2500, 500):
            assert store.advance(states[start : start + 500], fence=3)
        found = store.states(state.name for state in states)
        assert list(found.values()) == states

    @pytest.mark.parametrize("name", ["a b", "葉{x}", "a:b\n", "'\"\\%s", "x" * 500])
    def test_names_and_ids_may_be_odd(self, store: ScheduleStore, name: str) -> None:
        store.put([Row(name, b"\x00\xff text")])
        assert store.advance([State(name, 0.1 + 0.2, 3, name)], fence=1)
        assert store.changed_since(0).rows == [Row(name, b"\x00\xff text")]
        assert store.states([name]) == {name: State(name, 0.1 + 0.2, 3, name)}
        assert store.remove([name]) == 1

    def test_schedules_of_other_names_have_nothing_in_common(
        self, store: ScheduleStore, make_schedules: Callable[..., ScheduleStore]
    ) -> None:
        other = make_schedules(name="other")
        store.put(rows_of("a"))
        store.advance([State("a", 60.0)], fence=9)
        assert list(other.changed_since(0).rows) == []
        assert other.states(["a"]) == {}
        assert other.advance([State("a", 30.0)], fence=1)
        other.put(rows_of("a", text=b"other"))
        other.remove(["a"])
        assert store.changed_since(0).rows == rows_of("a")
        assert store.states(["a"]) == {"a": State("a", 60.0)}
        other.close()

    def test_no_edit_is_missed_while_many_write(self, make_schedules: Callable[..., ScheduleStore]) -> None:
        writers, over = [make_schedules() for _ in range(4)], threading.Event()
        writers[0].put(rows_of("first"))  # an empty store is a whole list at each look
        follower = Follower(make_schedules())
        follower.look()

        def edit(writer: int) -> None:
            for n in range(40):
                writers[writer].put([Row(f"w{writer} {k}", b"%d" % n) for k in range(3)])
                if n % 4 == 3:
                    writers[writer].remove([f"w{writer} {n % 3}"])

        def watch() -> None:
            while not over.is_set():
                follower.look(7)

        with ThreadPoolExecutor(5) as pool:
            watching = pool.submit(watch)
            for edited in [pool.submit(edit, writer) for writer in range(4)]:
                edited.result()
            over.set()
            watching.result()
        follower.look(7)
        whole = Follower(follower.store)
        whole.look()
        assert follower.rows == whole.rows
        assert follower.wholes == 1
        for store in (*writers, follower.store):
            store.close()

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_may_use_it_after_a_fork(self, store: ScheduleStore) -> None:
        store.put(rows_of("a"))
        assert ends_in_time(lambda: names_in(store.changed_since(0)))
        assert names_in(store.changed_since(0)) == ["a"]


def names_in(changes: Changes) -> Sequence[str]:
    """Return the names of the rows."""
    return [row.name for row in changes.rows]
