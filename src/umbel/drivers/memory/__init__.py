"""Messages and results in the memory of one process: for tests, and the reference of what drivers do."""

from umbel.drivers.memory.backend import MemoryBackend
from umbel.drivers.memory.broker import MemoryBroker

__all__ = ["MemoryBackend", "MemoryBroker"]
