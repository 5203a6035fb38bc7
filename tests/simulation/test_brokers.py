"""Every driver does what a simple reference does, whatever is called in whatever order.

The default run takes the same examples each time; `make chaos` takes many more, by chance.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.simulation.drivers import OnRedis, Timed
from tests.simulation.machine import BrokerMachine

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
EACH_TIME = settings(max_examples=40, stateful_step_count=35, derandomize=True, **COMMON)
BY_CHANCE = settings(max_examples=2000, stateful_step_count=80, **COMMON)


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def make_driver(request, tmp_path):
    if request.param == "memory":
        return lambda: Timed(None)
    if request.param == "sqlite":
        return lambda: Timed(tmp_path)
    url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
    return lambda: OnRedis(url, prefix)


def test_a_broker_and_the_reference_agree_after_every_call(make_driver):
    run_state_machine_as_test(lambda: BrokerMachine(make_driver()), settings=EACH_TIME)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_broker_and_the_reference_agree_by_chance_too(make_driver):
    run_state_machine_as_test(lambda: BrokerMachine(make_driver()), settings=BY_CHANCE)
