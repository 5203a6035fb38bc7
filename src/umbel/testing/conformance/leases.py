# ruff: noqa: D102 - the names are the sentences
"""What every store of leases promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from umbel.leases import LeaseStore

__all__ = ["LeaseConformance"]

TTL = 0.3  # seconds


class LeaseConformance:
    """Give the fixture `make_leases`, which makes stores that share their leases."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the store; a driver with a clock handed in moves that."""
        time.sleep(seconds)

    @pytest.fixture
    def make_leases(self) -> Callable[[], LeaseStore]:
        """Return what makes a store."""
        raise NotImplementedError

    @pytest.fixture
    def leases(self, make_leases: Callable[[], LeaseStore]) -> Iterator[LeaseStore]:
        """Return one store."""
        store = make_leases()
        yield store
        store.close()
        store.close()

    def test_one_of_two_has_the_role(self, leases: LeaseStore, make_leases: Callable[[], LeaseStore]) -> None:
        assert leases.acquire("beat", "a", ttl=60)
        other = make_leases()
        assert other.acquire("beat", "b", ttl=60) is None
        assert other.acquire("relay", "b", ttl=60)
        other.close()

    def test_a_role_that_lapsed_is_free_and_its_next_term_has_a_larger_fence(self, leases: LeaseStore) -> None:
        first = leases.acquire("beat", "a", ttl=TTL)
        self.pass_time(TTL * 1.5)
        second = leases.acquire("beat", "b", ttl=60)
        assert first
        assert second
        assert second.fence > first.fence
        assert leases.renew(first, ttl=60) is None
        assert not leases.release(first)
        assert leases.renew(second, ttl=60)

    def test_a_renewed_term_does_not_lapse(self, leases: LeaseStore) -> None:
        term = leases.acquire("beat", "a", ttl=TTL)
        for _ in range(4):
            self.pass_time(TTL / 2)
            assert term
            term = leases.renew(term, ttl=TTL)
        assert term
        assert leases.acquire("beat", "b", ttl=TTL) is None

    def test_a_released_role_is_free_at_once(self, leases: LeaseStore) -> None:
        first = leases.acquire("beat", "a", ttl=60)
        assert first
        assert leases.release(first)
        assert not leases.release(first)
        second = leases.acquire("beat", "b", ttl=60)
        assert second
        assert second.fence > first.fence

    def test_a_holder_that_asks_again_begins_a_new_term(self, leases: LeaseStore) -> None:
        first, second = leases.acquire("beat", "a", ttl=60), leases.acquire("beat", "a", ttl=60)
        assert first
        assert second
        assert second.fence > first.fence
        assert leases.renew(first, ttl=60) is None

    def test_a_term_is_trusted_for_less_than_its_lease(self, leases: LeaseStore) -> None:
        term = leases.acquire("beat", "a", ttl=60)
        assert term
        assert term.is_trusted(term.trusted_until - 0.001)
        assert not term.is_trusted(term.trusted_until)
