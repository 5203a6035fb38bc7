"""A small explicit-state model checker: breadth first, so that the first counter-example is a shortest one."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)

STUCK = "every message can still reach its end"


class Step(NamedTuple):
    """One thing that may happen. `fault`: it must not be needed for a message to reach its end."""

    label: str
    state: Hashable
    fault: bool = False


class Model(Protocol[S]):
    """What is to be checked."""

    def initial(self) -> S: ...

    def steps(self, state: S) -> Iterable[Step]: ...

    def violated(self, state: S) -> str | None:
        """The name of an invariant that does not hold in this state."""

    def ended(self, state: S) -> bool:
        """Has every message reached its end?"""

    def show(self, state: S) -> str: ...


class TooManyStatesError(AssertionError):
    """The bounds of the model are too wide for the time that there is."""


@dataclass(frozen=True)
class Report(Generic[S]):
    """What was found: how many states there are, and the first one that breaks an invariant."""

    states: int
    steps: int
    violated: str | None = None
    trace: tuple[tuple[str, S], ...] = ()  # what happened, and the state after it

    def text(self, model: Model[S]) -> str:
        """The counter-example for people."""
        lines = [f"{self.states} states, {self.steps} steps. Violated: {self.violated}"]
        for number, (label, state) in enumerate(self.trace):
            lines += [f"{number:3d}. {label}", f"       {model.show(state)}"]
        return "\n".join(lines)


class Search(Generic[S]):
    """All states that can be reached, each with the step that reached it first."""

    def __init__(self, model: Model[S], most: int) -> None:
        self.model, self.most = model, most
        self.states: list[S] = []
        self.first: list[tuple[int, str]] = []  # the state before, and the step from it
        self.before: list[list[int]] = []  # the states from which a step that is no fault leads here
        self.number: dict[S, int] = {}
        self.steps = 0

    def run(self) -> Report[S]:
        self.add(self.model.initial(), -1, "at the start")
        at = 0
        while at < len(self.states):
            violated = self.model.violated(self.states[at])
            if violated:
                return self.report(at, violated)
            for label, state, fault in self.model.steps(self.states[at]):
                self.steps += 1
                to = self.number.get(state)
                if to is None:
                    to = self.add(state, at, label)
                if not fault:
                    self.before[to].append(at)
            at += 1
        stuck = self.stuck()
        return self.report(stuck, STUCK) if stuck is not None else Report(len(self.states), self.steps)

    def add(self, state: S, before: int, label: str) -> int:
        if len(self.states) >= self.most:
            raise TooManyStatesError(f"more than {self.most} states: narrow the bounds, or raise the limit")
        self.number[state] = len(self.states)
        self.states.append(state)
        self.first.append((before, label))
        self.before.append([])
        return len(self.states) - 1

    def stuck(self) -> int | None:
        """The first state from which no way without another fault leads to the end."""
        good = bytearray(len(self.states))
        todo = [at for at, state in enumerate(self.states) if self.model.ended(state)]
        for at in todo:
            good[at] = 1
        while todo:
            for before in self.before[todo.pop()]:
                if not good[before]:
                    good[before] = 1
                    todo.append(before)
        return next((at for at, flag in enumerate(good) if not flag), None)

    def report(self, at: int, violated: str) -> Report[S]:
        trace = []
        while at >= 0:
            before, label = self.first[at]
            trace.append((label, self.states[at]))
            at = before
        return Report(len(self.states), self.steps, violated, tuple(reversed(trace)))


def check(model: Model[S], *, most: int = 2_000_000) -> Report[S]:
    """Look at every state of *model*; at most *most* of them."""
    collecting = gc.isenabled()
    gc.disable()  # states are kept to the end and form no cycles: looking for some takes half of the time
    try:
        return Search(model, most).run()
    finally:
        if collecting:
            gc.enable()
