import pytest

from umbel.drivers.sqlite import SQLiteBackend, SQLiteBroker, SQLiteBus, SQLiteLeases, SQLiteSchedules
from umbel.testing import FakeClock
from umbel.testing.conformance import (
    BackendConformance,
    BrokerConformance,
    BusConformance,
    FlowConformance,
    LeaseConformance,
    ScheduleStoreConformance,
)


class Timed:
    clock = FakeClock()

    def pass_time(self, seconds):
        self.clock.advance(seconds)

    def now(self):
        return self.clock.now()

    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path}/umbel.sqlite3"


class TestSQLiteBroker(Timed, BrokerConformance):
    @pytest.fixture
    def make_broker(self, url):
        return lambda: SQLiteBroker(url, clock=self.clock)

    @pytest.fixture
    def partner(self, url):
        backend = SQLiteBackend(url, clock=self.clock)
        yield backend
        backend.close()


class TestSQLiteBackend(Timed, BackendConformance, FlowConformance):
    @pytest.fixture
    def make_backend(self, url):
        return lambda: SQLiteBackend(url, clock=self.clock)


class TestSQLiteBus(Timed, BusConformance):
    @pytest.fixture
    def make_bus(self, url):
        return lambda: SQLiteBus(url)


class TestSQLiteLeases(Timed, LeaseConformance):
    @pytest.fixture
    def make_leases(self, url):
        return lambda: SQLiteLeases(url, clock=self.clock)

    def test_a_role_is_free_in_its_time_though_the_clock_was_set_back(self, leases):
        assert leases.acquire("beat", "dead", ttl=2)
        self.clock.step(-3600)
        assert leases.acquire("beat", "other", ttl=2) is None
        self.clock.advance(2.1)
        assert leases.acquire("beat", "other", ttl=2)


class TestSQLiteSchedules(Timed, ScheduleStoreConformance):
    @pytest.fixture
    def make_schedules(self, url):
        return lambda **how: SQLiteSchedules(url, clock=self.clock, **how)
