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
def site(request, tmp_path):
    if request.param == "sqlite":
        made = Site(tmp_path, f"sqlite:///{tmp_path}/umbel.sqlite3")
    elif request.param == "postgresql":
        made = Site(tmp_path, request.getfixturevalue("postgres_database"))
    else:
        made = Site(tmp_path, request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix"))
    yield made
    made.app.close()
