"""Messages and results in one SQLite file, for several processes of one host and no server."""

from umbel.drivers.sqlite.backend import SQLiteBackend
from umbel.drivers.sqlite.broker import SQLiteBroker
from umbel.drivers.sqlite.bus import SQLiteBus
from umbel.drivers.sqlite.leases import SQLiteLeases
from umbel.drivers.sqlite.schedules import SQLiteSchedules

__all__ = ["SQLiteBackend", "SQLiteBroker", "SQLiteBus", "SQLiteLeases", "SQLiteSchedules"]
