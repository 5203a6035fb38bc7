"""Database connections around tasks: closed or kept as CONN_MAX_AGE says, under every pool."""

import json

import pytest

POOLS = ("solo", "threads", "processes", "asyncio")

RUN_THREE = """
import json
from probe.tasks import {task} as task
print(json.dumps([task.delay().get(timeout=60) for _ in range(3)]))
"""


def openings(example, pool, age, task="use_database"):
    example.env["DJANGO_SETTINGS_MODULE"] = "probe_settings"
    env = {"PROBE_CONN_MAX_AGE": age, "DJANGO_SETTINGS_MODULE": "probe_settings"}
    with example.worker("-P", pool, "-c", "1", **env) as worker:
        answers = json.loads(example.shell(RUN_THREE.format(task=task), **env).splitlines()[-1])
        assert len({answer["pid"] for answer in answers}) == 1, worker.tail()
    first, second, third = (answer["opened"] for answer in answers)
    return [second - first, third - second]


@pytest.mark.parametrize("pool", POOLS)
def test_without_conn_max_age_each_task_opens_its_own_connection(sqlite_example, pool):
    assert openings(sqlite_example, pool, "0") == [1, 1]


@pytest.mark.parametrize("pool", POOLS)
def test_with_an_unlimited_age_the_connection_is_kept(sqlite_example, pool):
    assert openings(sqlite_example, pool, "None") == [0, 0]


@pytest.mark.parametrize("pool", POOLS)
def test_a_coroutine_task_closes_its_connection_too(sqlite_example, pool):
    assert openings(sqlite_example, pool, "0", "use_database_from_a_coroutine") == [1, 1]


LANGUAGES = """
import json
from probe.tasks import language_and_zone, leave_another_language
leave_another_language.delay().get(timeout=60)
print(json.dumps(language_and_zone.delay().get(timeout=60)))
"""


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_has_the_projects_language_and_zone_whatever_ran_before_it(sqlite_example, pool):
    env = {"DJANGO_SETTINGS_MODULE": "probe_settings"}
    with sqlite_example.worker("-P", pool, "-c", "1", **env):
        answer = sqlite_example.shell(LANGUAGES, **env).splitlines()[-1]
    assert json.loads(answer) == ["en-us", "Asia/Shanghai"]
