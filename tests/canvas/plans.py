"""Plans of canvases, and what they must come to: a plain evaluation, one task after the other.

`built` makes a canvas of a plan, with the tasks of `tasks_of`; `Oracle` says what becomes of it. Workers and eager mode are compared with
that. `tests.canvas.generator` makes any plan.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel import chain, chord, group
from umbel.states import FAILURE, SUCCESS

FAILS = frozenset({"fail", "tire", "fail_instead"})
Plan = tuple[Any, ...]


class CallsInFile:
    """The list of what was called, of all processes that name the same file: each entry is one line, appended in one write."""

    def __init__(self, path: str) -> None:
        self._path = path

    def append(self, name: str) -> None:
        """Add what a task or an errback says of itself."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{name}\n".encode())
        finally:
            os.close(file)

    def __iter__(self) -> Iterator[str]:
        return iter(Path(self._path).read_text().splitlines())


def tasks_of(app, called):
    """Make the tasks; *called* is a list in which each run and each errback writes what it was."""

    @app.task(name="gen.grow", typing=False)
    def grow(*args):
        """Return what it was given, with its own name: the value says which way it came."""
        *values, name = args
        called.append(name)
        return {"given": values, "name": name}

    @app.task(name="gen.fail", typing=False)
    def fail(*args):
        called.append(args[-1])
        raise ValueError(args[-1])

    @app.task(name="gen.again", bind=True, typing=False, default_retry_delay=0)
    def again(self, *args):
        """Succeed at the second attempt."""
        *values, name = args
        if not self.request.retries:
            raise self.retry(countdown=0)
        called.append(name)
        return {"given": values, "name": name}

    @app.task(name="gen.tire", bind=True, typing=False, max_retries=1)
    def tire(self, *args):
        """Fail at the second attempt."""
        if self.request.retries:
            called.append(args[-1])
        raise self.retry(countdown=0, exc=ValueError(args[-1]))

    @app.task(name="gen.told", typing=False)
    def told(*args):
        called.append("told " + args[-1])

    tasks = (grow, fail, again, tire, told, *_replaced(app, grow, again, fail))
    return {task.name.removeprefix("gen."): task for task in tasks}


def _replaced(app, grow, again, fail):
    """Make the tasks that put something else in their place."""
    options = {"bind": True, "typing": False}

    @app.task(name="gen.instead", **options)
    def instead(self, *args):
        """Be replaced by `grow`."""
        raise self.replace(grow.si(*args))

    @app.task(name="gen.unfold", **options)
    def unfold(self, *args):
        """Be replaced by a chord."""
        *values, name = args
        raise self.replace(chord([grow.si(*values, f"{name}.a"), again.si(f"{name}.b")], grow.s(name)))

    @app.task(name="gen.unfold_twice", **options)
    def unfold_twice(self, *args):
        """Be replaced by a chain whose last task is replaced by a chord."""
        *values, name = args
        raise self.replace(grow.si(*values, f"{name}.c") | unfold.s(name))

    @app.task(name="gen.fail_instead", **options)
    def fail_instead(self, *args):
        """Be replaced by what fails."""
        raise self.replace(fail.si(*args))

    return instead, unfold, unfold_twice, fail_instead


class Namer:
    """Gives each task of a plan its name, in the order in which the plan has them."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix, self.count = prefix, 0

    def next(self) -> str:
        """Return the next name."""
        self.count += 1
        return f"{self.prefix}t{self.count}"


def built(plan: Plan, tasks, names: Namer | None = None):
    """Make a canvas of a plan. The id of each task is its name, and each tells an errback of its own."""
    names = names or Namer()
    kind = plan[0]
    if kind == "chain":
        steps = [built(each, tasks, names) for each in plan[1]]
        return chain.of(steps, app=steps[0]._app)
    if kind == "group":
        return group([built(each, tasks, names) for each in plan[1]], app=tasks["grow"].app)
    if kind == "chord":
        header = [built(each, tasks, names) for each in plan[1]]
        return chord(header, built(plan[2], tasks, names), app=tasks["grow"].app)
    name = names.next()
    sig = tasks[kind].signature((name,), immutable=plan[1], task_id=name)
    return sig.on_error(tasks["told"].si(name))


@dataclass(frozen=True)
class Failed:
    """What stands for the value of what did not succeed."""


NOTHING = ()  # no value is given: the canvas is at the start


class Oracle:
    """Evaluates a plan, one task after the other.

    Values are lists of *endings*: of one task, or of the members of a group. A member that ends with a group is one ending, a list.
    """

    def __init__(self, names: Namer | None = None, fails: frozenset[str] = frozenset()) -> None:
        """*fails* are names of tasks that fail beside those that are meant to."""
        self._fails = fails
        self.ran: list[str] = []
        self.told: list[str] = []
        self.states: dict[str, str] = {}  # by the id
        self.values: dict[str, Any] = {}  # of those that succeed
        self._names = names or Namer()

    def value_of(self, plan: Plan) -> Any:
        """Return what `get()` returns, or Failed."""
        ended, many = self._run(plan, NOTHING)
        if any(isinstance(each, Failed) for each in flat(ended)):
            return Failed()
        return ended if many else ended[0]

    def _run(self, plan: Plan, given: tuple[Any, ...] | Failed, *, tell: bool = False) -> tuple[list[Any], bool]:
        """Return the endings of a canvas that is *given* a value, and whether they are those of a group. Failed: it never starts."""
        kind = plan[0]
        if kind == "chain":
            return self._chain(plan[1], given, tell=tell)
        if kind == "group":
            return self._members(plan[1], given, tell=tell), True
        if kind == "chord":
            if isinstance(given, Failed) and all(map(is_empty, plan[1])):
                return self._run(plan[2], given, tell=tell)
            return self._then(self._members(plan[1], given, tell=tell), plan[2])
        return [self._task(kind, self._names.next(), immutable=plan[1], given=given, tell=tell)], False

    def _members(self, members, given, *, tell):
        found = []
        for member in members:
            ended, many = self._run(member, given, tell=tell)
            found += [ended] if many and member[0] != "group" and not is_empty(member) else ended
        return found

    def _then(self, parts: list[Any], plan: Plan) -> tuple[list[Any], bool]:
        if any(isinstance(each, Failed) for each in flat(parts)):
            return self._run(plan, Failed(), tell=True)
        return self._run(plan, (parts,))

    def _chain(self, steps, given, *, tell):
        ended, many = None, False
        for step in flattened(steps):
            if ended is None:
                ended, many = self._run(step, given, tell=tell)
            elif many:
                ended, many = self._then(ended, step)
            elif isinstance(ended[0], Failed):
                ended, many = self._run(step, ended[0])
            else:
                ended, many = self._run(step, (ended[0],))
        return (ended or [], True) if ended is None else (ended, many)

    def _task(self, kind, name, *, immutable, given, tell):
        if isinstance(given, Failed):
            self.states[name] = FAILURE
            if tell:
                self.told.append(name)
            return given
        value = self._value(kind, name, [] if immutable else list(given))
        if isinstance(value, Failed) or name in self._fails:
            self.states[name] = FAILURE
            self.told.append(name)
            return Failed()
        self.states[name], self.values[name] = SUCCESS, value
        return value

    def _value(self, kind: str, name: str, values: list[Any]) -> Any:
        """Run what a task is replaced by, and then itself."""
        if kind == "unfold_twice":
            values = [self._value("grow", f"{name}.c", values)]
        if kind in {"unfold", "unfold_twice"}:
            values = [[self._value("grow", f"{name}.a", values), self._value("grow", f"{name}.b", [])]]
        if any(isinstance(each, Failed) for each in flat(values)):
            return Failed()
        self.ran.append(name)
        return Failed() if kind in FAILS or name in self._fails else {"given": values, "name": name}


def is_empty(plan: Plan) -> bool:
    """Whether a plan has no task."""
    return plan[0] in {"chain", "group"} and all(map(is_empty, plan[1]))


def names_in(plan: Plan) -> int:
    """Return how many tasks a plan names."""
    kind, *rest = plan
    if kind in {"chain", "group", "chord"}:
        return sum(map(names_in, [*rest[0], *rest[1:]]))
    return 1


def flat(value):
    """Return the values of tasks in what `get()` of any canvas returns."""
    return [found for each in value for found in flat(each)] if isinstance(value, list) else [value]


def flattened(steps):
    """Leave out the steps that have no task."""
    return [step for step in steps if not is_empty(step)]
