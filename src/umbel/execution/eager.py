"""Eager mode: the message is really written and read, and the runner runs it in this thread."""

from __future__ import annotations

from umbel.app import Umbel
from umbel.execution.outcome import Action, Job, Outcome
from umbel.execution.runner import TaskRunner

__all__ = ["run"]

MOST_RETRIES = 1000  # a task without a limit of retries would never return


def run(app: Umbel, raw: bytes) -> tuple[Outcome, int]:
    """Run the message *raw* and its retries, at once; return the last outcome and how many retries there were."""
    runner = TaskRunner(app, node="eager", eager=True)
    retries = 0
    outcome = runner.run(Job(1, 0, raw))
    while outcome.action is Action.RETRY and outcome.replacement is not None and retries < MOST_RETRIES:
        retries += 1
        outcome = runner.run(Job(1, 0, outcome.replacement.raw))
    return outcome, retries
