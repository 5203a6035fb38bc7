"""Results in any database that SQLAlchemy reaches, in the tables that Celery uses."""

from umbel.drivers.sql.backend import SQLBackend

__all__ = ["SQLBackend"]
