from uuid import uuid4

import pytest

from umbel.drivers.memory import MemoryBackend, MemoryBroker, MemoryBus, MemoryLeases, MemorySchedules
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
    timeless = False
    clock = FakeClock()

    def pass_time(self, seconds):
        self.clock.advance(seconds)

    def now(self):
        return self.clock.now()

    @pytest.fixture
    def url(self):
        return f"memory://{uuid4().hex}"


class TestMemoryBroker(Timed, BrokerConformance):
    @pytest.fixture
    def make_broker(self, url):
        return lambda: MemoryBroker(url, clock=self.clock)

    @pytest.fixture
    def partner(self, url):
        return MemoryBackend(url, clock=self.clock)


class TestMemoryBackend(Timed, BackendConformance, FlowConformance):
    @pytest.fixture
    def make_backend(self, url):
        return lambda: MemoryBackend(url, clock=self.clock)


class TestMemoryBus(Timed, BusConformance):
    @pytest.fixture
    def make_bus(self, url):
        return lambda: MemoryBus(url)


class TestMemoryLeases(Timed, LeaseConformance):
    @pytest.fixture
    def make_leases(self, url):
        return lambda: MemoryLeases(url, clock=self.clock)


class TestMemorySchedules(Timed, ScheduleStoreConformance):
    @pytest.fixture
    def make_schedules(self, url):
        return lambda **how: MemorySchedules(url, clock=self.clock, **how)
