"""A task that replaces itself, or adds to its chord, while the server that keeps workflows is away."""

import pytest
from tests.faults.conftest import faults_on, goes_by, running_redis
from tests.processes import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.timeout(60)]
EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"
ENDS = {"unfolds": ["1", "2", "3", "total [1, 2]"], "joins": ["2", "total [1, 2]"]}


@pytest.fixture
def second_redis(tmp_path):
    with running_redis(tmp_path / "second") as server:
        yield server


@pytest.fixture
def apart(private_redis, second_redis, tmp_path):
    return faults_on(private_redis.url, second_redis.url, tmp_path)


def tried(apart, store, go, call, seconds, pool="prefork"):
    """Take the store away for *seconds* while *call* wants to write there; return what the tasks wrote."""
    with apart.worker("-c", "2", "-P", pool, app="replacing_app") as worker:
        task_id = apart.script(f"from replacing_app import *\ngo = {str(go)!r}\nprint({call}.delay().id)").strip()
        wait_for(lambda: "begins" in apart.lines(), 20, apart.logs)
        store.kill()
        go.touch()
        goes_by(seconds)
        store.start()
        said = apart.script(f"from replacing_app import *\nprint(app.AsyncResult({task_id!r}).get(timeout=20))").strip()
        wait_for(lambda: apart.depth() == EMPTY, 10, apart.logs)
    assert said == "3", apart.logs()
    assert "Traceback" not in worker.log()
    return sorted(line for line in apart.lines() if line != "begins")


def test_a_task_is_replaced_though_the_result_server_is_away_for_a_second(apart, second_redis, tmp_path):
    assert tried(apart, second_redis, tmp_path / "go", "(unfolds.s(go, 1) | work.s())", 1) == ENDS["unfolds"]
    assert apart.times("begins") == 1


@pytest.mark.slow
def test_a_task_is_attempted_again_if_the_result_server_is_away_for_longer_than_a_call_may_try(apart, second_redis, tmp_path):
    assert tried(apart, second_redis, tmp_path / "go", "(unfolds.s(go, 1) | work.s())", 5) == ENDS["unfolds"]
    assert apart.times("begins") >= 2


@pytest.mark.slow
def test_a_task_in_an_event_loop_does_not_wait_for_the_result_server_and_is_attempted_again(apart, second_redis, tmp_path):
    assert tried(apart, second_redis, tmp_path / "go", "(unfolds_in_a_loop.s(go, 1) | work.s())", 1, "asyncio") == ENDS["unfolds"]
    assert apart.times("begins") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 5])
def test_a_member_is_added_to_a_chord_though_the_result_server_is_away(apart, second_redis, tmp_path, seconds):
    assert tried(apart, second_redis, tmp_path / "go", "chord_of(go)", seconds) == ENDS["joins"]
