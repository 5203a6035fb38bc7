"""Fixtures that every folder of tests may use."""

import contextlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import settings

HERE = Path(__file__).resolve().parent

# So that tests say `from tests.processes import ...`, however pytest was started.
sys.path.insert(0, str(HERE.parent))

pytest.register_assert_rewrite("umbel.testing.conformance")  # so that a promise that fails there says what it got

from tests import servers  # noqa: E402 - after the path

settings.load_profile("ci")  # at home, too: the same examples in each run, and no limit of time that a busy machine breaks


# Files of these folders take long, though many have few tests. Begun first, none is alone at the end, beside a core with nothing to do.
LONG = ("process", "chaos", "faults", "compat", "django", "web", "beat", "canvas", "redis_family", "simulation", "model", "cli", "drivers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes long, and leave out what is marked slow; `make chaos` sets UMBEL_CHAOS=1 and runs it."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.relative_to(HERE).parts[0], len(LONG)))
    if os.environ.get("UMBEL_CHAOS") == "1":
        return
    slow = [item for item in items if "slow" in item.keywords]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@contextlib.contextmanager
def server_of(kind: servers.ServerKind) -> Iterator[str]:
    """The URL of a server: the one that the variable of its kind names, else of a private one."""
    if given := os.environ.get(kind.variable):
        yield given
    elif servers.find_binary(kind):
        with servers.private(kind) as url:
            yield url
    else:
        absent(kind)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis server, without a database."""
    with server_of(servers.REDIS) as url:
        yield url


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """The URL of a virtual host of RabbitMQ that is for this process alone."""
    own = f"/{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}"
    with server_of(servers.RABBITMQ) as url:
        shared = servers.RABBITMQ.variable in os.environ and url.endswith("/gw0")
        yield url.removesuffix("/gw0") + own if shared else url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database on a PostgreSQL server."""
    with server_of(servers.POSTGRES) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    """The URL of a database on a MariaDB or MySQL server."""
    with server_of(servers.MARIADB) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The same, for one test."""
    return postgres_server


@pytest.fixture
def postgres_schema(postgres_server: str) -> Iterator[str]:
    """A schema that belongs to one test, and is dropped after it."""
    with own_schema(postgres_server) as schema:
        yield schema


@pytest.fixture(scope="module")
def postgres_shared(postgres_server: str) -> Iterator[str]:
    """A schema for the tests of one module whose queues have names of their own: making one takes a moment."""
    with own_schema(postgres_server) as schema:
        yield schema


@pytest.fixture
def postgres_database(postgres_server: str) -> Iterator[str]:
    """The URL of a database that belongs to one test: nothing but the URL has to be said to a program."""
    with own_database(postgres_server) as url:
        yield url


@contextlib.contextmanager
def own_database(server: str) -> Iterator[str]:
    """The URL of a new database, which is dropped afterwards."""
    import psycopg

    name = f"umbel_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.contextmanager
def own_schema(server: str) -> Iterator[str]:
    """The name of a new schema; what is in it afterwards is dropped."""
    import psycopg

    schema = f"umbel_{uuid.uuid4().hex[:12]}"
    yield schema
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


def absent(kind: servers.ServerKind | servers.Program) -> None:
    """Skips the test at home, fails it in CI."""
    reason = f"needs {kind.name}: apt-get install {kind.debian_package}" + (f", or set {kind.variable}" if kind.variable else "")
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def redis_prefix(redis_server: str) -> Iterator[str]:
    """A prefix of keys that belongs to one test; what bears it in any database is removed after the test."""
    prefix = f"umbel-test-{uuid.uuid4().hex}:"
    yield prefix
    remove_keys(redis_server, prefix)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """A URL of the Redis server's database 9, or of the database that UMBEL_TEST_REDIS_URL names."""
    parts = urlsplit(redis_server)
    return redis_server if parts.path.strip("/") else urlunsplit(parts._replace(path="/9"))


def remove_keys(server: str, prefix: str) -> None:
    """Deletes what a test left, key by key: a user's server may hold other things, so never FLUSH."""
    import redis

    for database in (2, 3, 9):
        with redis.Redis.from_url(urlunsplit(urlsplit(server)._replace(path=f"/{database}"))) as client:
            # A driver may put the prefix into a hash tag: {prefix...}.
            for key in client.scan_iter(match=f"*{prefix}*", count=1000):
                client.delete(key)
