"""What the worker says when it starts of that which cannot work, or does not work yet."""

import pytest
from tests.processes import Running


@pytest.fixture
def worker(project):
    """Starts a worker of the project."""

    def start(*words: str, **env: str) -> Running:
        command = project.command("-A", "proj", "worker", "-P", "solo", *words)
        return Running(command, cwd=project.path, env={**project.env, **env}, log=project.path / "worker.log")

    return start


def test_periodic_tasks_are_said_not_to_be_sent(folder, worker):
    folder.project(more='app.conf.beat_schedule = {"each-hour": {"task": "proj.add", "schedule": 3600, "args": [1, 2]}}\n')
    with worker() as running:
        running.waits_to_print("1 periodic task in beat_schedule is not sent: beat is not built yet.")
    folder.project(more="app.conf.beat_schedule = dict.fromkeys(['a', 'b'], {'task': 'proj.add', 'schedule': 3600})\n")
    with worker() as running:
        running.waits_to_print("2 periodic tasks in beat_schedule are not sent: beat is not built yet.")
