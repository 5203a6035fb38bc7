"""Schedules without a zone of their own ask the current app; and sites on each kind of store."""

import pytest
from tests.beat.sites import Site

from umbel import Celery
from umbel.current import standing_in


@pytest.fixture(autouse=True)
def in_utc():
    app = Celery("beat", set_as_current=False)
    app.conf.timezone = "UTC"
    with standing_in(app):
        yield app


REDIS, POSTGRES = (pytest.param(name, marks=mark) for name, mark in (("redis", pytest.mark.redis), ("postgresql", pytest.mark.postgres)))


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def store(request, tmp_path):
    """The URL of each kind of store in turn, and a prefix for its keys."""
    return store_of(request, request.param, tmp_path)


def store_of(request, kind, folder):
    if kind == "sqlite":
        return f"sqlite:///{folder}/umbel.sqlite3", ""
    if kind == "postgresql":
        return request.getfixturevalue("postgres_database"), ""
    return request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")


@pytest.fixture
def site(store, tmp_path):
    made = Site(tmp_path, *store)
    yield made
    made.app.close()
