# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""The suite that defines a result backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from umbel.backend import Record, ResultBackend
from umbel.testing.conformance.base import succeeds_in_child

__all__ = ["BackendConformance"]


def record(id: str, state: str, meta: bytes, *, fence: int = 0, expires: float | None = 60) -> Record:
    """Make a record that does not stay in a shared server."""
    return Record(id=id, state=state, meta=meta, fence=fence, expires=expires)


class BackendConformance:
    """Inherit it, and give `make_backend`; and `pass_time` if the time comes from a fake clock."""

    @pytest.fixture
    def make_backend(self) -> Callable[[], ResultBackend]:
        raise NotImplementedError("Give a fixture make_backend, which makes backends that share one store.")

    @pytest.fixture
    def backend(self, make_backend: Callable[[], ResultBackend]) -> Iterator[ResultBackend]:
        backend = make_backend()
        yield backend
        backend.close()

    @pytest.fixture
    def id(self) -> str:
        return str(uuid4())

    def pass_time(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def test_what_was_stored_is_read_by_others(self, backend: ResultBackend, make_backend: Callable[[], ResultBackend], id: str) -> None:
        assert backend.store([record(id, "SUCCESS", b"1")]) == [True]
        other = make_backend()
        assert other.get([id]) == [b"1"]
        other.close()

    def test_documents_come_in_the_order_they_were_asked_for(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id + "a", "SUCCESS", b"a"), record(id + "b", "SUCCESS", b"b")])
        assert backend.get([id + "b", id + "none", id + "a"]) == [b"b", None, b"a"]
        assert backend.get([]) == []
        assert backend.store([]) == []

    def test_a_state_is_written_over_by_the_next(self, backend: ResultBackend, id: str) -> None:
        for state in ("STARTED", "PROGRESS", "RETRY", "STARTED", "FAILURE", "SUCCESS"):
            assert backend.store([record(id, state, state.encode())]) == [True]
            assert backend.get([id]) == [state.encode()]

    @pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED", "STARTED", "CUSTOM"])
    def test_nothing_is_written_over_success(self, backend: ResultBackend, id: str, state: str) -> None:
        backend.store([record(id, "SUCCESS", b"first", fence=3)])
        assert backend.store([record(id, state, b"second", fence=4), record(id, state, b"third")]) == [False, False]
        assert backend.get([id]) == [b"first"]

    def test_an_older_fence_is_refused(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", b"new", fence=7)])
        assert backend.store([record(id, "SUCCESS", b"old", fence=6)]) == [False]
        assert backend.store([record(id, "SUCCESS", b"same", fence=7)]) == [True]
        assert backend.get([id]) == [b"same"]

    def test_fences_are_compared_as_numbers(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", b"nine", fence=9)])
        assert backend.store([record(id, "STARTED", b"ten", fence=10)]) == [True]
        assert backend.store([record(id, "STARTED", b"nine", fence=9)]) == [False]

    @pytest.mark.parametrize("final", ["FAILURE", "REVOKED"])
    def test_the_same_delivery_does_not_go_back_from_a_final_state(self, backend: ResultBackend, id: str, final: str) -> None:
        backend.store([record(id, final, b"final", fence=7)])
        assert backend.store([record(id, "STARTED", b"late", fence=7)]) == [False]
        assert backend.store([record(id, "STARTED", b"redelivered", fence=8)]) == [True]

    def test_who_has_no_fence_may_write(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", b"worker", fence=7)])
        assert backend.store([record(id, "REVOKED", b"client")]) == [True]
        assert backend.get([id]) == [b"client"]

    def test_a_batch_is_decided_one_by_one(self, backend: ResultBackend, id: str) -> None:
        batch = [record(id, "SUCCESS", b"1"), record(id, "FAILURE", b"2"), record(id + "b", "SUCCESS", b"3")]
        assert backend.store(batch) == [True, False, True]
        assert backend.get([id, id + "b"]) == [b"1", b"3"]

    def test_a_document_expires(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "SUCCESS", b"1", expires=0.2), record(id + "b", "SUCCESS", b"2")])
        assert backend.get([id]) == [b"1"]
        self.pass_time(0.4)
        assert backend.get([id, id + "b"]) == [None, b"2"]
        assert backend.store([record(id, "STARTED", b"again")]) == [True]

    def test_pruning_deletes_only_what_has_expired(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "SUCCESS", b"1", expires=0.2), record(id + "b", "SUCCESS", b"2"), record(id + "c", "SUCCESS", b"3")])
        self.pass_time(0.4)
        assert backend.prune() in {0, 1}  # 0: the engine was there first
        assert backend.get([id, id + "b", id + "c"]) == [None, b"2", b"3"]
        assert backend.prune() == 0

    def test_a_document_may_be_kept_for_ever(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "SUCCESS", b"1", expires=None)])
        backend.prune()
        assert backend.get([id]) == [b"1"]
        backend.forget([id])

    def test_what_is_forgotten_is_gone_and_may_be_written_again(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "SUCCESS", b"1", fence=9)])
        backend.forget([id, id + "unknown"])
        assert backend.get([id]) == [None]
        assert backend.store([record(id, "STARTED", b"2", fence=1)]) == [True]

    def test_waiting_ends_as_soon_as_another_stores(
        self, backend: ResultBackend, make_backend: Callable[[], ResultBackend], id: str
    ) -> None:
        other = make_backend()
        seen: list[tuple[bytes | None, float]] = []
        thread = threading.Thread(target=lambda: seen.append((backend.wait(id, None, 5.0), time.monotonic())))
        thread.start()
        threading.Event().wait(0.05)  # so that it waits; if it does not yet, the test is only easier
        stored = time.monotonic()
        other.store([record(id, "SUCCESS", b"1")])
        thread.join(10)
        assert seen[0][0] == b"1"
        assert seen[0][1] - stored < 0.2
        other.close()

    def test_waiting_returns_at_once_what_was_not_seen(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", b"1")])
        started = time.monotonic()
        assert backend.wait(id, None, 5.0) == b"1"
        assert time.monotonic() - started < 1.0

    def test_waiting_ends_with_its_time(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", b"1")])
        started = time.monotonic()
        assert backend.wait(id, b"1", 0.15) == b"1"
        assert backend.wait(id + "none", None, 0.0) is None
        assert 0.1 < time.monotonic() - started < 2.0

    def test_a_backend_may_be_closed_twice(self, make_backend: Callable[[], ResultBackend], id: str) -> None:
        backend = make_backend()
        backend.open()
        backend.get([id])
        backend.close()
        backend.close()

    def test_a_large_document_is_read_whole(self, backend: ResultBackend, id: str) -> None:
        meta = b"x" * 1_000_000
        backend.store([record(id, "SUCCESS", meta)])
        assert backend.get([id]) == [meta]

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_parent_and_child_may_both_go_on_after_a_fork(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", b"1")])

        def child() -> None:
            assert backend.get([id]) == [b"1"]
            assert backend.store([record(id + "child", "SUCCESS", b"2")]) == [True]
            backend.close()

        assert succeeds_in_child(child)
        assert backend.store([record(id, "SUCCESS", b"3")]) == [True]
        assert backend.get([id]) == [b"3"]
