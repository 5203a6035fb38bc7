"""Killed at any line between the claim and the acknowledgement, a task is done and nothing is left over.

The default run takes some of the lines, spread over all; `make chaos` takes every one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "the solo worker": {"case": "parent", "pool": "solo", "messages": 3},
    "the parent of processes": {"case": "parent", "pool": "processes", "messages": 3},
    "a child": {"case": "child", "pool": "processes", "messages": 3},
    "a producer": {"case": "delay", "messages": 1},
}
EVERYWHERE = [
    pytest.param(case, store, marks=[pytest.mark.redis] if store == "redis" else [])
    for case in CASES
    for store in ("sqlite", "apart", "redis")
]
USUAL = [
    param for param in EVERYWHERE
    if param.values not in {("a child", "sqlite"), ("a child", "apart"), ("a producer", "apart"), ("the parent of processes", "apart")}
]  # fmt: skip


@pytest.fixture
def stores(request, store, tmp_path):
    """Messages and results in one store, or apart, in two files."""
    if store == "redis":
        url = request.getfixturevalue("redis_url")
        return {"broker": url, "backend": url, "prefix": request.getfixturevalue("redis_prefix")}
    results = "results" if store == "apart" else "messages"
    return {"broker": f"sqlite:///{tmp_path}/messages.sqlite3", "backend": f"sqlite:///{tmp_path}/{results}.sqlite3", "prefix": ""}


def killed_at_lines(case, stores, folder, most, seed=1):
    order = {**CASES[case], **stores, "folder": str(folder), "most": most, "seed": seed}
    command = [sys.executable, "-m", "tests.faultpoints.run", json.dumps(order)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{case}: killed at {found['hits']} of {found['total']} line events")
    assert found["problems"] == []
    assert found["hits"] > found["points"] / 2, "hardly any process was killed: the lines are not where they were"
    return found


@pytest.mark.parametrize(("case", "store"), USUAL)
def test_killed_at_some_lines_a_task_is_done_and_nothing_is_left(case, stores, tmp_path):
    found = killed_at_lines(case, stores, tmp_path, most=12)
    assert found["total"] > 100


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("case", "store"), EVERYWHERE)
def test_killed_at_every_line_a_task_is_done_and_nothing_is_left(case, stores, tmp_path):
    killed_at_lines(case, stores, tmp_path, most=10**6)
