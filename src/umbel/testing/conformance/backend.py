# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""The suite that defines a result backend."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from umbel.backend import Record, ResultBackend
from umbel.meta import build_meta, encode_meta
from umbel.testing.conformance.base import BackendSuite, succeeds_in_child
from umbel.watch import Watch

__all__ = ["BackendConformance"]


def record(id: str, state: str, result: str, *, fence: int = 0, expires: float | None = 60) -> Record:
    """Make a record with a document as a worker writes it, which does not stay in a shared server."""
    meta = build_meta(id, state, result, fence=fence)
    return Record(id=id, state=state, meta=encode_meta(meta), fence=fence, expires=expires)


def result(document: bytes | None) -> str | None:
    """Return what the record was made of."""
    return None if document is None else json.loads(document)["result"]


def results(backend: ResultBackend, *ids: str) -> list[str | None]:
    """Return the results that *backend* has."""
    return [result(document) for document in backend.get(ids)]


class BackendConformance(BackendSuite):
    """Inherit it, and give `make_backend`; and `pass_time` if the time comes from a fake clock."""

    @pytest.fixture
    def id(self) -> str:
        return str(uuid4())

    def test_what_was_stored_is_read_by_others(self, backend: ResultBackend, make_backend: Callable[[], ResultBackend], id: str) -> None:
        assert backend.store([record(id, "SUCCESS", "1")]) == [True]
        other = make_backend()
        assert results(other, id) == ["1"]
        other.close()

    def test_documents_come_in_the_order_they_were_asked_for(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id + "a", "SUCCESS", "a"), record(id + "b", "SUCCESS", "b")])
        assert results(backend, id + "b", id + "none", id + "a") == ["b", None, "a"]
        assert backend.get([]) == []
        assert backend.store([]) == []

    def test_a_state_is_written_over_by_the_next(self, backend: ResultBackend, id: str) -> None:
        for state in ("STARTED", "PROGRESS", "RETRY", "STARTED", "FAILURE", "SUCCESS"):
            assert backend.store([record(id, state, state)]) == [True]
            assert results(backend, id) == [state]

    @pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED", "STARTED", "CUSTOM"])
    def test_nothing_is_written_over_success(self, backend: ResultBackend, id: str, state: str) -> None:
        backend.store([record(id, "SUCCESS", "first", fence=3)])
        assert backend.store([record(id, state, "second", fence=4), record(id, state, "third")]) == [False, False]
        assert results(backend, id) == ["first"]

    @pytest.mark.parametrize("state", ["SUCCESSFUL_UPLOAD", "NO_SUCCESS", "FAILURE_OF_ONE"])
    def test_a_state_that_only_looks_like_a_final_one_is_written_over(self, backend: ResultBackend, id: str, state: str) -> None:
        backend.store([record(id, state, "first", fence=3)])
        assert backend.store([record(id, "STARTED", "second", fence=3), record(id, "SUCCESS", "third", fence=3)]) == [True, True]
        assert results(backend, id) == ["third"]

    def test_an_older_fence_is_refused(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", "new", fence=7)])
        assert backend.store([record(id, "SUCCESS", "old", fence=6)]) == [False]
        assert backend.store([record(id, "SUCCESS", "same", fence=7)]) == [True]
        assert results(backend, id) == ["same"]

    def test_fences_are_compared_as_numbers(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", "nine", fence=9)])
        assert backend.store([record(id, "STARTED", "ten", fence=10)]) == [True]
        assert backend.store([record(id, "STARTED", "nine", fence=9)]) == [False]

    @pytest.mark.parametrize("final", ["FAILURE", "REVOKED"])
    def test_the_same_delivery_does_not_go_back_from_a_final_state(self, backend: ResultBackend, id: str, final: str) -> None:
        backend.store([record(id, final, "final", fence=7)])
        assert backend.store([record(id, "STARTED", "late", fence=7)]) == [False]
        assert backend.store([record(id, "STARTED", "redelivered", fence=8)]) == [True]

    def test_who_has_no_fence_may_write(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", "worker", fence=7)])
        assert backend.store([record(id, "REVOKED", "client")]) == [True]
        assert results(backend, id) == ["client"]

    def test_a_batch_is_decided_one_by_one(self, backend: ResultBackend, id: str) -> None:
        batch = [record(id, "SUCCESS", "1"), record(id, "FAILURE", "2"), record(id + "b", "SUCCESS", "3")]
        assert backend.store(batch) == [True, False, True]
        assert results(backend, id, id + "b") == ["1", "3"]

    def test_a_document_expires(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "SUCCESS", "1", expires=0.2), record(id + "b", "SUCCESS", "2")])
        assert results(backend, id) == ["1"]
        self.pass_time(0.4)
        assert results(backend, id, id + "b") == [None, "2"]
        assert backend.store([record(id, "STARTED", "again")]) == [True]

    def test_pruning_deletes_only_what_has_expired(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "SUCCESS", "1", expires=0.2), record(id + "b", "SUCCESS", "2"), record(id + "c", "SUCCESS", "3")])
        self.pass_time(0.4)
        assert backend.prune() in {0, 1}  # 0: the engine was there first
        assert results(backend, id, id + "b", id + "c") == [None, "2", "3"]
        assert backend.prune() == 0

    def test_a_document_may_be_kept_for_ever(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "SUCCESS", "1", expires=None)])
        backend.prune()
        assert results(backend, id) == ["1"]
        backend.forget([id])

    def test_what_is_forgotten_is_gone_and_may_be_written_again(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "SUCCESS", "1", fence=9)])
        backend.forget([id, id + "unknown"])
        assert results(backend, id) == [None]
        assert backend.store([record(id, "STARTED", "2", fence=1)]) == [True]

    @pytest.fixture
    def watch(self, backend: ResultBackend) -> Iterator[Watch]:
        watch = backend.watch()
        yield watch
        watch.close()

    def heard(self, watch: Watch, timeout: float) -> dict[str, str | None]:
        """Return the results that a watch tells of, until nothing comes for *timeout* seconds."""
        found: dict[str, str | None] = {}
        while news := watch.wait(timeout):
            found |= {task_id: result(document) for task_id, document in news.items()}
        return found

    def test_a_watch_tells_as_soon_as_another_stores(self, watch: Watch, make_backend: Callable[[], ResultBackend], id: str) -> None:
        other = make_backend()
        seen: list[tuple[object, float]] = []
        watch.listen([id])
        thread = threading.Thread(target=lambda: seen.append((watch.wait(5.0), time.monotonic())))
        thread.start()
        threading.Event().wait(0.05)  # so that it waits; if it does not yet, the test is only easier
        stored = time.monotonic()
        written = record(id, "SUCCESS", "1")
        other.store([record(id + "other", "SUCCESS", "2"), written])
        thread.join(10)
        assert seen[0][0] == {id: other.get([id])[0]}
        assert seen[0][1] - stored < 0.3
        other.close()

    def test_a_watch_tells_of_what_is_there(self, backend: ResultBackend, watch: Watch, id: str) -> None:
        backend.store([record(id, "STARTED", "1")])
        watch.listen([id, id + "none"])
        started = time.monotonic()
        assert {task_id: result(document) for task_id, document in watch.wait(5.0).items()} == {id: "1"}
        assert time.monotonic() - started < 1.0

    def test_a_watch_tells_of_each_state_after_the_one_before_was_heard(self, backend: ResultBackend, watch: Watch, id: str) -> None:
        watch.listen([id])
        for state in ("STARTED", "PROGRESS", "SUCCESS"):
            backend.store([record(id, state, state)])
            assert self.heard(watch, 0.3) == {id: state}

    def test_a_watch_of_many_tells_of_all(self, backend: ResultBackend, make_backend: Callable[[], ResultBackend], id: str) -> None:
        watch, other = backend.watch(), make_backend()
        ids = [f"{id}{number}" for number in range(1200)]
        other.store([record(each, "SUCCESS", "before") for each in ids[:600]])
        watch.listen(ids)
        other.store([record(each, "SUCCESS", "after") for each in ids[600:]])
        assert self.heard(watch, 0.5) == {each: "before" if at < 600 else "after" for at, each in enumerate(ids)}
        backend.forget(ids)
        watch.close()
        other.close()

    def test_a_watch_tells_nothing_of_what_was_dropped(self, backend: ResultBackend, watch: Watch, id: str) -> None:
        watch.listen([id, id + "b"])
        watch.drop([id])
        backend.store([record(id, "SUCCESS", "1"), record(id + "b", "SUCCESS", "2")])
        assert self.heard(watch, 0.3) == {id + "b": "2"}

    def test_a_watch_ends_its_wait_with_the_time(self, watch: Watch, id: str) -> None:
        watch.listen([id])
        started = time.monotonic()
        assert watch.wait(0.15) == {}
        assert watch.wait(0.0) == {}
        assert 0.1 < time.monotonic() - started < 2.0

    def test_a_watch_is_woken_by_another_thread(self, watch: Watch, id: str) -> None:
        watch.listen([id])
        started = time.monotonic()
        timer = threading.Timer(0.05, watch.wake)
        timer.start()
        assert watch.wait(5.0) == {}
        assert time.monotonic() - started < 1.0
        timer.join()

    def test_a_watch_may_be_closed_twice(self, backend: ResultBackend, id: str) -> None:
        watch = backend.watch()
        watch.listen([id])
        watch.close()
        watch.close()

    def test_a_backend_may_be_closed_twice(self, make_backend: Callable[[], ResultBackend], id: str) -> None:
        backend = make_backend()
        backend.open()
        backend.get([id])
        backend.close()
        backend.close()

    def test_a_large_document_is_read_whole(self, backend: ResultBackend, id: str) -> None:
        text = "x" * 1_000_000
        backend.store([record(id, "SUCCESS", text)])
        assert results(backend, id) == [text]

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_parent_and_child_may_both_go_on_after_a_fork(self, backend: ResultBackend, id: str) -> None:
        backend.store([record(id, "STARTED", "1")])

        def child() -> None:
            assert results(backend, id) == ["1"]
            assert backend.store([record(id + "child", "SUCCESS", "2")]) == [True]
            backend.close()

        assert succeeds_in_child(child)
        assert backend.store([record(id, "SUCCESS", "3")]) == [True]
        assert results(backend, id) == ["3"]
