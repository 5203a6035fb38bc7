"""Every driver does what a simple reference does, whatever is called in whatever order.

The default run takes the same examples each time; `make chaos` takes many more, by chance.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.simulation.drivers import OnPostgres, OnRedis, Timed
from tests.simulation.machine import BrokerMachine

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
EACH_TIME = settings(max_examples=40, stateful_step_count=35, derandomize=True, **COMMON)
BY_CHANCE = settings(max_examples=2000, stateful_step_count=80, **COMMON)


REDIS, POSTGRES = pytest.param("redis", marks=pytest.mark.redis), pytest.param("postgresql", marks=pytest.mark.postgres)


def maker(request, tmp_path, timed, on_redis, on_postgres):
    """Return what makes the driver that *request* names, of these classes."""
    if request.param == "memory":
        return lambda: timed(None)
    if request.param == "sqlite":
        return lambda: timed(tmp_path)
    if request.param == "postgresql":
        url, schema = request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_schema")
        return lambda: on_postgres(url, schema)
    url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
    return lambda: on_redis(url, prefix)


@pytest.fixture(params=["memory", "sqlite", REDIS, POSTGRES])
def make_driver(request, tmp_path):
    return maker(request, tmp_path, Timed, OnRedis, OnPostgres)


def test_a_broker_and_the_reference_agree_after_every_call(make_driver):
    run_state_machine_as_test(lambda: BrokerMachine(make_driver()), settings=EACH_TIME)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_broker_and_the_reference_agree_by_chance_too(make_driver):
    run_state_machine_as_test(lambda: BrokerMachine(make_driver()), settings=BY_CHANCE)
