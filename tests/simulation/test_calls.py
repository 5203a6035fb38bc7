"""What is called is done, whatever becomes of workers and their connections: many short lives of an app, compared with a reference."""

from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.process.conftest import POSTGRES, REDIS
from tests.simulation.calls import CallsMachine, app_on
from tests.simulation.test_brokers import COMMON

from umbel.ids import uuid

# A failing example is told as it is: to make it smaller would run it, with its real workers, a hundred times.
REAL = {**COMMON, "phases": [Phase.generate]}
EACH_TIME = settings(max_examples=5, stateful_step_count=12, derandomize=True, **REAL)
BY_CHANCE = settings(max_examples=200, stateful_step_count=20, **REAL)


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def make_machine(request, tmp_path):
    def make():
        folder = Path(mkdtemp(dir=tmp_path))
        if request.param == "sqlite":
            return CallsMachine(app_on(f"sqlite:///{folder}/calls.sqlite3", "", folder), folder)
        if request.param == "postgresql":
            schema = f"umbel_{uuid().replace('-', '')[:16]}"  # the database is one for all examples
            return CallsMachine(app_on(request.getfixturevalue("postgres_database"), "", folder, schema), folder)
        return CallsMachine(
            app_on(request.getfixturevalue("redis_url"), f"{request.getfixturevalue('redis_prefix')}{uuid()}:", folder), folder
        )

    return make


def test_what_was_called_is_done_through_kills_stops_and_lost_replies(make_machine):
    run_state_machine_as_test(make_machine, settings=EACH_TIME)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_what_was_called_is_done_by_chance_too(make_machine):
    run_state_machine_as_test(make_machine, settings=BY_CHANCE)
