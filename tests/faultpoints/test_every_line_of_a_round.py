"""Killed at any line of a round, a scheduler costs no run, and doubles none, though another carries out the round again.

The default run takes some of the lines, spread over all; `make chaos` takes every one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROKERS = ["sqlite", pytest.param("amqp", marks=pytest.mark.amqp)]


def killed_at_lines(request, broker, folder, most):
    store = f"sqlite:///{folder}/store.sqlite3"
    url = request.getfixturevalue("amqp_url") if broker == "amqp" else store
    order = {"broker": url, "store": store, "most": most, "seed": 1}
    command = [sys.executable, "-m", "tests.faultpoints.rounds", json.dumps(order)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{broker}: killed at {found['hits']} of {found['total']} line events; {found['doubled']} runs were sent twice")
    assert found["problems"] == []
    assert found["hits"] > found["points"] / 2, "hardly any process was killed: the lines are not where they were"
    return found


@pytest.mark.parametrize("broker", BROKERS)
def test_killed_at_some_lines_of_a_round_a_scheduler_costs_no_run_and_doubles_none(request, broker, tmp_path):
    assert killed_at_lines(request, broker, tmp_path, most=15)["total"] > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("broker", BROKERS)
def test_killed_at_every_line_of_a_round_a_scheduler_costs_no_run_and_doubles_none(request, broker, tmp_path):
    assert killed_at_lines(request, broker, tmp_path, most=100_000)["doubled"]
