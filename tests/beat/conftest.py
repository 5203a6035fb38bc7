"""Schedules without a zone of their own ask the current app."""

import pytest

from umbel import Celery
from umbel.current import standing_in


@pytest.fixture(autouse=True)
def in_utc():
    app = Celery("beat", set_as_current=False)
    app.conf.timezone = "UTC"
    with standing_in(app):
        yield app
