"""Fixtures that every folder of tests may use."""

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import settings

# So that tests say `from tests.processes import ...`, however pytest was started.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import servers

settings.load_profile("ci")  # at home, too: the same examples in each run, and no limit of time that a busy machine breaks


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked slow; `make chaos` sets UMBEL_CHAOS=1 and runs it."""
    if os.environ.get("UMBEL_CHAOS") == "1":
        return
    slow = [item for item in items if "slow" in item.keywords]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis server, without a database: the one of UMBEL_TEST_REDIS_URL, else a private one."""
    given = os.environ.get(servers.REDIS.variable)
    if given:
        yield given
    elif servers.find_binary(servers.REDIS):
        with servers.private(servers.REDIS) as url:
            yield url
    else:
        absent(servers.REDIS)


def absent(kind: servers.ServerKind) -> None:
    """Skips the test at home, fails it in CI."""
    reason = f"needs {kind.name}: apt-get install {kind.debian_package}, or set {kind.variable}"
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
