"""Messages and results in the memory of one process: for tests, and the reference of what drivers do."""

from umbel.drivers.memory.backend import MemoryBackend
from umbel.drivers.memory.broker import MemoryBroker
from umbel.drivers.memory.bus import MemoryBus
from umbel.drivers.memory.leases import MemoryLeases
from umbel.drivers.memory.schedules import MemorySchedules

__all__ = ["MemoryBackend", "MemoryBroker", "MemoryBus", "MemoryLeases", "MemorySchedules"]
