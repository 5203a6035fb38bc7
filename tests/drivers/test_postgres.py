from collections import Counter

import pytest
from msgspec.structs import replace
from tests.processes import wait_for

from umbel.backend import Record
from umbel.testing.conformance import (
    BackendConformance,
    BrokerConformance,
    BusConformance,
    FlowConformance,
    LeaseConformance,
    ScheduleStoreConformance,
)
from umbel.testing.conformance.base import item, settlement

postgres = pytest.importorskip("umbel.drivers.postgres")
pytestmark = pytest.mark.postgres


class TestPostgresBroker(BrokerConformance):
    @pytest.fixture
    def make_broker(self, postgres_url, postgres_shared):
        return lambda: postgres.PostgresBroker(postgres_url, options={"schema": postgres_shared})

    @pytest.fixture
    def partner(self, postgres_url, postgres_shared):
        backend = postgres.PostgresBackend(postgres_url, options={"schema": postgres_shared})
        yield backend
        backend.close()

    def test_it_counts_for_a_broker_that_cannot_beside_what_it_settles(self, broker, queue):
        broker.publish([item(queue, "a")])
        broker.join("w", [queue], lease=60)
        (held,) = broker.fetch(queue, 1, owner="w", seq=1)
        broker.settle([replace(settlement(held), tally="a b")])
        broker.count(queue, {"a b": 2, "c": 5})
        broker.count(queue, {"c": 1})
        found = Counter()
        for each in broker.tallies(queue, since=0):  # a minute may have begun meanwhile
            found[each.tally] += each.count
        assert found == {"a b": 3, "c": 6}


class TestPostgresBackend(BackendConformance, FlowConformance):
    @pytest.fixture
    def make_backend(self, postgres_url, postgres_shared):
        return lambda: postgres.PostgresBackend(postgres_url, options={"schema": postgres_shared})

    def test_who_only_binds_copies_deletes_those_that_have_expired_now_and_then(self, backend):
        count = "SELECT count(*) FROM umbel.bound WHERE id = 'old run'"
        backend.bind([("first run", "a")], expires=60)
        backend.bind([("old run", "a")], expires=0.01)
        wait_for(lambda: backend._database.call("SELECT expires < umbel.clock() FROM umbel.bound WHERE id = 'old run'") == [(True,)])
        backend._swept -= 60  # it was long ago
        backend.bind([("new run", "a")], expires=60)
        assert backend._database.call(count) == [(0,)]

    def test_who_writes_deletes_what_has_expired_now_and_then_though_the_broker_is_another(self, backend):
        count = "SELECT count(*) FROM umbel.results WHERE id = 'old'"
        backend.store([Record(id="first", state="SUCCESS", meta=b"1")])
        backend.store([Record(id="old", state="SUCCESS", meta=b"1", expires=0.01)])
        assert backend._database.call(count) == [(1,)]
        wait_for(lambda: backend.get(["old"]) == [None])
        backend.store([Record(id="new", state="SUCCESS", meta=b"1")])
        assert backend._database.call(count) == [(1,)]
        backend._swept -= 60  # it was long ago
        backend.store([Record(id="newer", state="SUCCESS", meta=b"1")])
        assert backend._database.call(count) == [(0,)]


class TestPostgresBus(BusConformance):
    @pytest.fixture
    def make_bus(self, postgres_url, postgres_shared):
        return lambda: postgres.PostgresBus(postgres_url, options={"schema": postgres_shared})


class TestPostgresLeases(LeaseConformance):
    @pytest.fixture
    def make_leases(self, postgres_url, postgres_schema):
        return lambda: postgres.PostgresLeases(postgres_url, options={"schema": postgres_schema})

    def test_a_role_is_free_in_its_time_though_the_clock_was_set_back(self, leases):
        term = leases.acquire("beat", "dead", ttl=0.5)
        leases._database.call("UPDATE umbel.leases SET expires = expires + 3600 RETURNING 1")  # so does it look from an hour before
        assert leases.acquire("beat", "other", ttl=0.5) is None
        other = wait_for(lambda: leases.acquire("beat", "other", ttl=0.5))
        assert other.fence > term.fence


class TestPostgresSchedules(ScheduleStoreConformance):
    @pytest.fixture
    def make_schedules(self, postgres_url, postgres_schema):
        return lambda **how: postgres.PostgresSchedules(postgres_url, options={"schema": postgres_schema}, **how)
