"""What a running task knows of its call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mmap import mmap

__all__ = ["Context"]

_DEAD_LETTER_HEADERS = frozenset(("x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"))


class Context:
    """A bag of attributes. The class attributes are what holds outside of a worker."""

    args: Any = None
    callbacks: Any = None
    called_directly: bool = True
    chain: Any = None
    chord: Any = None
    consumed_from: str = ""  # ours: the queue that the message was claimed from
    correlation_id: str | None = None
    delivery_info: Mapping[str, Any] | None = None
    errbacks: Any = None
    eta: str | None = None
    expires: str | None = None
    fence: int = 0  # ours: grows with every delivery of a queue; a guard for the task's own side effects
    group: str | None = None
    group_index: int | None = None
    headers: dict[str, Any] | None = None
    hostname: str | None = None
    id: str | None = None
    ignore_result: bool | None = False
    is_eager: bool = False
    kwargs: Any = None
    logfile: str | None = None
    loglevel: int | str | None = None
    origin: str | None = None
    parent_id: str | None = None
    properties: dict[str, Any] | None = None
    retries: int = 0
    reply_to: str | None = None
    replaced_task_nesting: int = 0
    root_id: str | None = None
    shadow: str | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    taskset: str | None = None
    task: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    timelimit: Any = None
    utc: bool | None = None
    umbel_errback: str | None = None  # ours: of which failure this call tells, as JSON
    umbel_flow: str | None = None  # ours: its place in a workflow, as JSON

    stop_flag: ClassVar[bytes | mmap] = b"\0"  # one byte, which the worker of this process shares with all its children
    _children: list[Any] | None = None

    def __init__(self, *args: Mapping[str, Any] | Iterable[tuple[str, Any]], **kwargs: Any) -> None:
        if args or kwargs:
            self.update(*args, **kwargs)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a custom header of the message."""

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop. A long task may then save its place, and retry or return; reading it costs nothing."""
        return Context.stop_flag[0] != 0

    @property
    def children(self) -> list[Any]:
        """The results of the tasks that this one has sent."""
        if self._children is None:
            self._children = []
        return self._children

    @children.setter
    def children(self, value: list[Any] | None) -> None:
        self._children = value

    def update(self, *args: Mapping[str, Any] | Iterable[tuple[str, Any]], **kwargs: Any) -> None:
        """Set many attributes at once."""
        fields = dict(*args, **kwargs)
        if "children" in fields:
            fields["_children"] = fields.pop("children")
        self.__dict__.update(fields)

    def clear(self) -> None:
        """Forget everything that was set."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or *default* where there is none."""
        return getattr(self, key, default)

    def as_execution_options(self) -> dict[str, Any]:
        """Return the options that send a task again with the same place in its workflow."""
        hard, soft = self.timelimit or (None, None)
        headers = {name: value for name, value in (self.headers or {}).items() if name not in _DEAD_LETTER_HEADERS}
        return {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": soft,
            "time_limit": hard,
            "headers": headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "origin": self.origin,
            "replaced_task_nesting": self.replaced_task_nesting,
        }

    def __repr__(self) -> str:
        return f"<Context: {self.__dict__!r}>"
