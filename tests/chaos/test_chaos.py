"""The short form of the chaos runs; `make chaos` is the long one."""

import pytest
from tests import servers
from tests.chaos.run import Plan, repeat_command, run
from tests.postgres import needs_postgres
from tests.process.conftest import POSTGRES, REDIS

SECONDS = 30
POOLS = {"redis": ("prefork", "threads", "solo"), "sqlite": ("prefork", "asyncio", "solo"), "postgresql": ("prefork", "threads", "solo")}
POOLS["sentinel"] = POOLS["redis"]
SENTINEL = pytest.param("sentinel", marks=[pytest.mark.redis, pytest.mark.slow])


@pytest.mark.timeout(480)
@pytest.mark.parametrize("driver", [REDIS, "sqlite", POSTGRES, SENTINEL])
def test_what_was_acknowledged_is_done_or_dead_whatever_is_killed_stopped_or_cut_off(driver, tmp_path):
    if driver in {"redis", "sentinel"} and servers.find_binary(servers.REDIS) is None:
        pytest.skip("needs a redis-server to kill: apt-get install redis-server")
    if driver == "postgresql":
        needs_postgres()
    plan = Plan(seed=1, driver=driver, seconds=SECONDS, lease=2.0, pools=POOLS[driver])
    report = run(plan, tmp_path / "world")
    print(report.findings)
    assert report.findings.acknowledged > 100
    assert report.flows.ended > 0
    assert report.wrong == [], f"again: {repeat_command(plan)}"
