"""Redis as broker and result backend. The `redis` package is imported in this folder and nowhere else."""

from umbel.drivers.redis.backend import RedisBackend
from umbel.drivers.redis.broker import RedisBroker
from umbel.drivers.redis.bus import RedisBus
from umbel.drivers.redis.cluster import RedisClusterBackend, RedisClusterBroker
from umbel.drivers.redis.leases import RedisLeases
from umbel.drivers.redis.schedules import RedisSchedules

__all__ = ["RedisBackend", "RedisBroker", "RedisBus", "RedisClusterBackend", "RedisClusterBroker", "RedisLeases", "RedisSchedules"]
