"""The tasks of an app, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umbel.exceptions import InvalidTaskError, NotRegistered

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["TaskRegistry"]


class TaskRegistry(dict[str, "Task[..., Any]"]):
    """An ordinary dict; a name that is not in it is told in a typed error."""

    def __missing__(self, name: str) -> Task[..., Any]:
        raise NotRegistered(name)

    def register(self, task: Task[..., Any] | type[Task[..., Any]]) -> None:
        """Add a task, or an instance of a class of tasks.

        Raises:
            InvalidTaskError: it has no name.
        """
        instance = task() if isinstance(task, type) else task
        if not instance.name:
            raise InvalidTaskError(f"{type(instance).__name__} has no name. Give it one: name = 'module.task'.")
        self[instance.name] = instance

    def unregister(self, name: str | Task[..., Any]) -> None:
        """Remove a task.

        Raises:
            NotRegistered: it is not there.
        """
        key = name if isinstance(name, str) else name.name
        if self.pop(key, None) is None:
            raise NotRegistered(key)

    def regular(self) -> dict[str, Task[..., Any]]:
        """Return all tasks: periodic ones are no kind of their own."""
        return dict(self)
