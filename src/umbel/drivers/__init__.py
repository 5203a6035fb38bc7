"""Drivers: one folder per technology, chosen by the scheme of a URL and imported when first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from umbel.backend import ResultBackend
from umbel.broker import Broker
from umbel.clock import Clock
from umbel.config_values import masked
from umbel.exceptions import ImproperlyConfigured, NotSupported

__all__ = ["open_backend", "open_broker"]


class Driver(NamedTuple):
    """Where a driver's classes are, and which package it needs beside the standard library."""

    module: str
    broker: str
    backend: str
    package: str = ""


MEMORY = Driver("umbel.drivers.memory", "MemoryBroker", "MemoryBackend")
SQLITE = Driver("umbel.drivers.sqlite", "SQLiteBroker", "SQLiteBackend")
REDIS = Driver("umbel.drivers.redis", "RedisBroker", "RedisBackend", "redis")

BROKERS = {"memory": MEMORY, "redis": REDIS, "redis+socket": REDIS, "rediss": REDIS, "sqlite": SQLITE, "unix": REDIS}
BACKENDS = {"cache+memory": MEMORY, **BROKERS}

# Schemes of Celery that users will try. Naming them is kinder than "unknown".
PLANNED = {
    "amqp": "RabbitMQ",
    "amqps": "RabbitMQ",
    "pyamqp": "RabbitMQ",
    "postgresql": "PostgreSQL",
    "redis+cluster": "Redis Cluster",
    "rpc": "RabbitMQ (results)",
    "sentinel": "Redis Sentinel",
}

BACKENDS_OF_CELERY = frozenset(
    {"arangodb", "azureblockblob", "cache", "cassandra", "consul", "cosmosdbsql", "couchbase", "couchdb", "database", "db", "django-cache",
     "django-db", "dynamodb", "elasticsearch", "file", "filesystem", "gcs", "memcache", "mongodb", "s3"}
)  # fmt: skip


def open_broker(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    timeout: float = 2.0,
    base_dir: str | Path | None = None,
    clock: Clock | None = None,
) -> Broker:
    """Make the broker of *url*. It connects at its first use.

    Args:
        url: a broker URL, such as `redis://127.0.0.1:6379/0`.
        options: the settings `broker_transport_options`.
        timeout: seconds after which a broker that does not answer is given up.
        base_dir: the folder that a relative SQLite path starts at; the working directory if None.
        clock: the clock of leases and due times, for tests.

    Raises:
        ImproperlyConfigured: the URL cannot be used, or the driver's package is not installed.
        NotSupported: the driver is not built yet.
    """
    scheme = scheme_of(url, "broker")
    driver = find(scheme, url, BROKERS, "broker")
    passed: dict[str, Any] = {} if clock is None else {"clock": clock}
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
    if scheme not in BACKENDS and scheme.partition("+")[0] in BACKENDS_OF_CELERY:
        raise NotSupported(
            f"The result backend {scheme!r} is not built yet. Known: {', '.join(sorted(BACKENDS))}. In a file: "
            "sqlite:////absolute/path/umbel.sqlite3."
        )
    scheme = scheme_of(url, "result backend")
    driver = find(scheme, url, BACKENDS, "result backend")
    make = load(driver, scheme, driver.backend)
    backend: ResultBackend = make(plain_url(url, scheme, base_dir), options=options or {}, timeout=timeout)
    return backend


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
    if scheme in PLANNED:
        raise NotSupported(f"The driver for {PLANNED[scheme]} ({scheme}://) is not built yet. Known: {known}.")
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
            f"Run: pip install 'umbel[{driver.package}]'."
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
