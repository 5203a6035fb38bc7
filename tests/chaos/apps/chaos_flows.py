"""The workflows of the chaos runs: plans that are drawn from their own key, so that the checker knows them again by the key alone."""

import os
import random
import time

from chaos_ledger import Run
from tests.canvas.plans import Namer, Plan, built, is_empty, names_in, tasks_of

KINDS = ("grow",) * 6 + ("again", "again", "unfold", "instead", "fail", "tire")
LARGEST = 15  # tasks in one plan


class Calls:
    """What the tasks of workflows write to the ledger: what was called, and by which message: its id and its copy."""

    def __init__(self, app):
        self._app, self._chance = app, random.Random(os.getpid())

    def append(self, name: str) -> None:
        """Take a little while, so that something may happen to it."""
        request = self._app.current_task.request
        with Run(name.replace(" ", "-"), f"{request.id}/{copy_of(request)}"):
            time.sleep(self._chance.choice((0.0, 0.005, 0.05)))


def copy_of(request) -> str:
    """Return the header that says where in its workflow a message stands, without blanks."""
    return "".join(str(request.get("umbel_flow")).split())


def plan_of(key: str) -> Plan:
    """Draw a plan; the same for the same key."""
    chance = random.Random(key)
    while is_empty(plan := drawn(chance, 3, "chain group chord chord")) or names_in(plan) > LARGEST:
        pass
    return plan


def drawn(chance: random.Random, depth: int, kinds: str = "task task chain group chord") -> Plan:
    """Draw a plan that is nested at most *depth* deep."""
    kind = chance.choice(kinds.split()) if depth else "task"
    if kind == "task":
        return chance.choice(KINDS), chance.random() < 0.3
    members = tuple(drawn(chance, depth - 1) for _ in range(chance.randint(kind == "chain", 3)))
    return (kind, members) if kind != "chord" else (kind, members, drawn(chance, 0))


def tasks_for(app):
    """Make the tasks of workflows."""
    return tasks_of(app, Calls(app))


def send(key: str, tasks) -> None:
    """Send the workflow of *key*."""
    built(plan_of(key), tasks, Namer(f"{key}.")).apply_async()
