import pytest

from umbel.testing.conformance import (
    BackendConformance,
    BrokerConformance,
    BusConformance,
    FlowConformance,
    LeaseConformance,
    ScheduleStoreConformance,
)

redis = pytest.importorskip("umbel.drivers.redis")
pytestmark = pytest.mark.redis


class TestRedisBroker(BrokerConformance):
    @pytest.fixture
    def make_broker(self, redis_url, redis_prefix):
        return lambda: redis.RedisBroker(redis_url, options={"global_keyprefix": redis_prefix})

    @pytest.fixture
    def partner(self, redis_url, redis_prefix):
        backend = redis.RedisBackend(redis_url, options={"global_keyprefix": redis_prefix})
        yield backend
        backend.close()


class TestRedisBackend(BackendConformance, FlowConformance):
    @pytest.fixture
    def make_backend(self, redis_url, redis_prefix):
        return lambda: redis.RedisBackend(redis_url, options={"global_keyprefix": redis_prefix})


class TestRedisBus(BusConformance):
    @pytest.fixture
    def make_bus(self, redis_url, redis_prefix):
        return lambda: redis.RedisBus(redis_url, options={"global_keyprefix": redis_prefix})


class TestRedisLeases(LeaseConformance):
    @pytest.fixture
    def make_leases(self, redis_url, redis_prefix):
        return lambda: redis.RedisLeases(redis_url, options={"global_keyprefix": redis_prefix})


class TestRedisSchedules(ScheduleStoreConformance):
    @pytest.fixture
    def make_schedules(self, redis_url, redis_prefix):
        return lambda **how: redis.RedisSchedules(redis_url, options={"global_keyprefix": redis_prefix}, **how)
