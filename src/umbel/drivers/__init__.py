"""Drivers: one folder per technology, chosen by the scheme of a URL and imported when first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from umbel.backend import ResultBackend
from umbel.broker import Broker
from umbel.clock import Clock
from umbel.config_values import masked
from umbel.exceptions import ImproperlyConfigured, NotSupported
from umbel.leases import LeaseStore
from umbel.schedule_store import ScheduleStore

__all__ = ["keeps_schedules", "open_backend", "open_broker", "open_leases", "open_schedule_store"]


class Driver(NamedTuple):
    """Where a driver's classes are, and which package it needs beside the standard library."""

    module: str
    broker: str
    backend: str
    package: str = ""
    extra: str = ""  # of umbel, that installs it; the package's name if empty
    leases: str = ""
    schedules: str = ""
    stateless: bool = False  # does the broker need another store for what is not a message?


AMQP = Driver("umbel.drivers.amqp", "AmqpBroker", "AmqpBackend", "pika", "amqp", stateless=True)
MEMORY = Driver("umbel.drivers.memory", "MemoryBroker", "MemoryBackend", leases="MemoryLeases", schedules="MemorySchedules")
SQLITE = Driver("umbel.drivers.sqlite", "SQLiteBroker", "SQLiteBackend", leases="SQLiteLeases", schedules="SQLiteSchedules")
POSTGRES = Driver(
    "umbel.drivers.postgres", "PostgresBroker", "PostgresBackend", "psycopg", "postgres", leases="PostgresLeases",
    schedules="PostgresSchedules",
)  # fmt: skip
REDIS = Driver("umbel.drivers.redis", "RedisBroker", "RedisBackend", "redis", leases="RedisLeases", schedules="RedisSchedules")
SQL = Driver("umbel.drivers.sql", "", "SQLBackend", "sqlalchemy", "sql")
CLUSTER = Driver(
    "umbel.drivers.redis", "RedisClusterBroker", "RedisClusterBackend", "redis", leases="RedisLeases", schedules="RedisSchedules"
)
REDIS_FAMILY = {
    **dict.fromkeys(("redis", "rediss", "redis+socket", "unix", "sentinel", "rediss+sentinel"), REDIS),
    **dict.fromkeys(("redis+cluster", "rediss+cluster"), CLUSTER),
}

BROKERS = {
    **dict.fromkeys(("amqp", "amqps", "pyamqp"), AMQP), "memory": MEMORY, "postgres": POSTGRES, "postgresql": POSTGRES, "sqlite": SQLITE,
    **REDIS_FAMILY,
}  # fmt: skip
BACKENDS = {"cache+memory": MEMORY, "rpc": AMQP, **{scheme: driver for scheme, driver in BROKERS.items() if driver.backend}}

BACKENDS_OF_CELERY = frozenset(
    {"arangodb", "azureblockblob", "cache", "cassandra", "consul", "cosmosdbsql", "couchbase", "couchdb", "django-cache",
     "django-db", "dynamodb", "elasticsearch", "file", "filesystem", "gcs", "memcache", "mongodb", "s3"}
)  # fmt: skip


def open_broker(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    timeout: float = 2.0,
    base_dir: str | Path | None = None,
    clock: Clock | None = None,
    state_url: str | None = None,
) -> Broker:
    """Make the broker of *url*. It connects at its first use.

    Args:
        url: a broker URL, such as `redis://127.0.0.1:6379/0`.
        options: the settings `broker_transport_options`.
        timeout: seconds after which a broker that does not answer is given up.
        base_dir: the folder that a relative SQLite path starts at; the working directory if None.
        clock: the clock of leases and due times, for tests.
        state_url: the setting `umbel_state_url`, for a broker that keeps nothing but messages.

    Raises:
        ImproperlyConfigured: the URL cannot be used, or the driver's package is not installed.
        NotSupported: the driver is not built yet.
    """
    scheme = scheme_of(url, "broker")
    driver = find(scheme, url, BROKERS, "broker")
    passed: dict[str, Any] = {} if clock is None else {"clock": clock}
    if driver.stateless and state_url:
        passed["state"] = open_broker(state_url, timeout=timeout, base_dir=base_dir, clock=clock)
    make = load(driver, scheme, driver.broker)
    broker: Broker = make(plain_url(url, scheme, base_dir), options=options or {}, timeout=timeout, **passed)
    return broker


def open_backend(
    url: str | None,
    *,
    options: Mapping[str, Any] | None = None,
    timeout: float = 2.0,
    base_dir: str | Path | None = None,
) -> ResultBackend:
    """Make the result backend of *url*; None and `disabled://` give one that refuses to be read.

    Raises:
        ImproperlyConfigured: the URL cannot be used, or the driver's package is not installed.
        NotSupported: the driver is not built yet.
    """
    if not url or url.partition(":")[0] == "disabled":
        from umbel.drivers.disabled import DisabledBackend

        return DisabledBackend()
    scheme = url.partition(":")[0].lower()
    if scheme.startswith("db+"):
        made: ResultBackend = load(SQL, scheme, SQL.backend)(sql_url(url, base_dir), options=options or {}, timeout=timeout)
        return made
    if scheme not in BACKENDS and scheme.partition("+")[0] in BACKENDS_OF_CELERY:
        raise NotSupported(
            f"The result backend {scheme!r} is not built yet. Known: {', '.join(sorted([*BACKENDS, 'db+…']))}. In a file: "
            "sqlite:////absolute/path/umbel.sqlite3."
        )
    scheme = scheme_of(url, "result backend")
    driver = find(scheme, url, BACKENDS, "result backend")
    make = load(driver, scheme, driver.backend)
    backend: ResultBackend = make(plain_url(url, scheme, base_dir), options=options or {}, timeout=timeout)
    return backend


def open_leases(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    timeout: float = 2.0,
    base_dir: str | Path | None = None,
    clock: Clock | None = None,
) -> LeaseStore:
    """Make the store of leases of *url*. It connects at its first use.

    Raises:
        ImproperlyConfigured: the URL cannot be used, or the driver's package is not installed.
        NotSupported: what it leads to keeps no leases.
    """
    store: LeaseStore = open_store(url, "leases", base_dir, clock, options=options or {}, timeout=timeout)
    return store


def open_schedule_store(
    url: str,
    *,
    name: str = "beat",
    options: Mapping[str, Any] | None = None,
    timeout: float = 2.0,
    base_dir: str | Path | None = None,
    clock: Clock | None = None,
) -> ScheduleStore:
    """Make the store of the schedule *name* at *url*. It connects at its first use.

    Raises:
        ImproperlyConfigured: the URL cannot be used, or the driver's package is not installed.
        NotSupported: what it leads to keeps no schedules.
    """
    store: ScheduleStore = open_store(url, "schedules", base_dir, clock, name=name, options=options or {}, timeout=timeout)
    return store


def open_store(url: str, what: Literal["leases", "schedules"], base_dir: str | Path | None, clock: Clock | None, **how: Any) -> Any:
    """Make the store of *what* that *url* leads to."""
    driver, scheme = keeper(url, what)
    passed = how if clock is None else {**how, "clock": clock}
    return load(driver, scheme, getattr(driver, what))(plain_url(url, scheme, base_dir), **passed)


def keeps_schedules(url: str) -> bool:
    """Answer whether *url* leads to what keeps leases and schedules."""
    driver = BROKERS.get(url.partition("://")[0].lower())
    return driver is not None and bool(driver.leases and driver.schedules)


def keeper(url: str, what: Literal["leases", "schedules"]) -> tuple[Driver, str]:
    """Return the driver of *url*, which keeps *what*, and the scheme."""
    scheme = scheme_of(url, f"store of {what}")
    kept = {each: driver for each, driver in BROKERS.items() if getattr(driver, what)}
    if scheme in kept or (scheme not in BACKENDS and not scheme.startswith("db+")):
        return find(scheme, url, kept, f"store of {what}"), scheme
    is_broker = scheme in BROKERS
    raise NotSupported(
        f"{masked(url)!r} leads to {'a broker' if is_broker else 'a result backend'} that keeps no {what}. "
        f"Set {'umbel_state_url' if is_broker else 'broker_url or umbel_state_url'} to a URL of one of: {', '.join(sorted(kept))}."
    )


def scheme_of(url: str, kind: str) -> str:
    """Return the part of *url* before `://`."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ImproperlyConfigured(
            f"{masked(url)!r} is not a {kind} URL: it has no '://'. Write it as redis://127.0.0.1:6379/0 or sqlite:////absolute/path/umbel.sqlite3."
        )
    return scheme.lower()


def find(scheme: str, url: str, drivers: Mapping[str, Driver], kind: str) -> Driver:
    """Return the driver of *scheme*."""
    driver = drivers.get(scheme)
    if driver is not None:
        return driver
    known = ", ".join(sorted(drivers))
    raise ImproperlyConfigured(f"No {kind} driver for {scheme!r} in {masked(url)!r}. Known: {known}.")


def load(driver: Driver, scheme: str, name: str) -> Any:
    """Import the class *name* of *driver*."""
    try:
        module = import_module(driver.module)
    except ModuleNotFoundError as exc:
        if not driver.package or (exc.name or "").partition(".")[0] != driver.package:
            raise
        raise ImproperlyConfigured(
            f"The {driver.package} driver ({scheme}://) needs a package that is not installed ({driver.package}). "
            f"Run: pip install 'umbel[{driver.extra or driver.package}]'."
        ) from exc
    return getattr(module, name)


def plain_url(url: str, scheme: str, base_dir: str | Path | None) -> str:
    """Return *url* as its driver wants it: SQLite paths absolute, Celery's `redis+socket` as redis-py's `unix`."""
    if scheme == "sqlite":
        return sqlite_url(url, base_dir)
    if scheme == "redis+socket":
        parts = urlsplit(url)
        query = {{"virtual_host": "db"}.get(name, name): values[-1] for name, values in parse_qs(parts.query).items()}
        return parts._replace(scheme="unix", query=urlencode(query)).geturl()
    return url


def sql_url(url: str, base_dir: str | Path | None) -> str:
    """Return the URL behind `db+`, as SQLAlchemy has it; a path of SQLite is made absolute."""
    rest = url[len("db+") :]
    driver, _, path = rest.partition("://")
    if driver.partition("+")[0] != "sqlite":
        return rest
    return f"{driver}{sqlite_url(f'sqlite://{path}', base_dir).removeprefix('sqlite')}"


def sqlite_url(url: str, base_dir: str | Path | None) -> str:
    """Return *url* with an absolute path."""
    rest = url.partition("://")[2]
    if not rest.startswith("/") or rest in {"/", "/:memory:"}:
        raise ImproperlyConfigured(
            f"{url!r} names no file. Write sqlite:////absolute/path/umbel.sqlite3 (four slashes) or "
            "sqlite:///relative.sqlite3 (three); for a store in memory, memory://."
        )
    path = Path(base_dir or Path.cwd()) / rest[1:]
    return f"sqlite:///{path.absolute()}"
