"""Redis as broker and result backend. The `redis` package is imported in this folder and nowhere else."""

from umbel.drivers.redis.backend import RedisBackend
from umbel.drivers.redis.broker import RedisBroker

__all__ = ["RedisBackend", "RedisBroker"]
