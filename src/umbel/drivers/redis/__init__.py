"""Redis as broker and result backend. The `redis` package is imported in this folder and nowhere else."""

from umbel.drivers.redis.backend import RedisBackend
from umbel.drivers.redis.broker import RedisBroker
from umbel.drivers.redis.bus import RedisBus
from umbel.drivers.redis.leases import RedisLeases

__all__ = ["RedisBackend", "RedisBroker", "RedisBus", "RedisLeases"]
