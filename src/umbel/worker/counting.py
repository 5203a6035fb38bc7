"""What a worker counts of its settlements: which end a task came to, how long it had waited, how long it ran."""

from __future__ import annotations

from umbel import states
from umbel.execution.outcome import Action, Outcome
from umbel.execution.verdict import Request, moment
from umbel.tally import tally_of

__all__ = ["Counting"]


class Counting:
    """Makes tallies; not *on*: empty ones, which count nothing."""

    def __init__(self, *, on: bool) -> None:
        self._on = on

    def ended(self, request: Request, outcome: Outcome, now: float) -> str:
        """Return what to count of a task that has come to its end just before *now*. This is done for each task: it must be cheap."""
        if not self._on:
            return ""
        end = outcome.state if outcome.state == states.SUCCESS else end_of(outcome)
        ran, glance = outcome.runtime, request.glance
        if glance.sent is None:
            return tally_of(glance.task, end, None, ran)
        since = may_start_from(glance.sent, glance.eta) if glance.eta else glance.sent
        return tally_of(glance.task, end, now - ran - since, ran)

    def began(self, request: Request, now: float) -> str:
        """Return what to count of a task that begins at *now* and is acknowledged before: what becomes of it settles nothing."""
        glance = request.glance
        if not self._on:
            return ""
        return tally_of(glance.task, states.STARTED, None if glance.sent is None else now - may_start_from(glance.sent, glance.eta), None)

    def of(self, task: str, end: str) -> str:
        """Return what to count of a *task* (its name) of which neither is known."""
        return tally_of(task, end, None, None) if self._on and task else ""


def end_of(outcome: Outcome) -> str:
    """Return which end an outcome is."""
    if outcome.action is Action.REQUEUE or outcome.kind == "rejected":
        return states.REJECTED
    return outcome.state or states.FAILURE  # a fault of ours, or a message that could not be read: no state is stored


def may_start_from(sent: float, eta: str | None) -> float:
    """Return from when on a task waits: it does not before its *eta*."""
    return max(sent, moment(eta)) if eta else sent
