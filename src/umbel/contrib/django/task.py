"""The class of tasks in Django projects."""

from __future__ import annotations

from typing import ParamSpec, TypeVar

from umbel.task import Task

__all__ = ["DjangoTask"]

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task; `delay_on_commit` and `apply_async_on_commit` are those of every task. Custom bases name this class."""
