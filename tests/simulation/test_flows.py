"""Every driver keeps of workflows what a plain reference keeps, whatever is called in whatever order.

The default run takes the same examples each time; `make chaos` takes many more, by chance.
"""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from tests.simulation.flow_machine import FlowMachine, OnPostgres, OnRedis, Timed
from tests.simulation.test_brokers import BY_CHANCE, EACH_TIME, POSTGRES, REDIS, maker

SOME = settings(EACH_TIME, max_examples=12, stateful_step_count=25)  # after each call all is read, which takes a while


@pytest.fixture(params=["memory", "sqlite", REDIS, POSTGRES])
def make_driver(request, tmp_path):
    return maker(request, tmp_path, Timed, OnRedis, OnPostgres)


def test_a_backend_and_the_reference_agree_about_workflows_after_every_call(make_driver):
    run_state_machine_as_test(lambda: FlowMachine(make_driver()), settings=SOME)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_backend_and_the_reference_agree_about_workflows_by_chance_too(make_driver):
    run_state_machine_as_test(lambda: FlowMachine(make_driver()), settings=BY_CHANCE)
