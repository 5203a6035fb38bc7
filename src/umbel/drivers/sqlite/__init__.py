"""Messages and results in one SQLite file, for several processes of one host and no server."""

from umbel.drivers.sqlite.backend import SQLiteBackend
from umbel.drivers.sqlite.broker import SQLiteBroker

__all__ = ["SQLiteBackend", "SQLiteBroker"]
