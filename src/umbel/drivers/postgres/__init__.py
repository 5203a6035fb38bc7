"""Messages, results, bus, leases and schedules in one PostgreSQL database."""

from umbel.drivers.postgres.backend import PostgresBackend
from umbel.drivers.postgres.broker import PostgresBroker
from umbel.drivers.postgres.bus import PostgresBus
from umbel.drivers.postgres.leases import PostgresLeases
from umbel.drivers.postgres.schedules import PostgresSchedules

__all__ = ["PostgresBackend", "PostgresBroker", "PostgresBus", "PostgresLeases", "PostgresSchedules"]
