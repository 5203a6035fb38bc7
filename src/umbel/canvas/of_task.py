"""What a task makes for workflows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from umbel.canvas.maps import chunks, xmap, xstarmap
from umbel.canvas.replacing import add_to_chord, replace
from umbel.canvas.signatures import Signature

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["MakesSignatures"]

R = TypeVar("R")


class MakesSignatures(Generic[R]):
    """The part of a task that makes signatures of it."""

    @property
    def _task(self) -> Task[..., R]:
        return cast("Task[..., R]", self)

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Return a signature of a call with these arguments, to which others can be added."""
        return Signature(self._task, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Return a signature that takes no further arguments."""
        return Signature(self._task, args, kwargs, immutable=True)

    def signature(self, args: Sequence[Any] | None = None, *starargs: Any, **starkwargs: Any) -> Signature[R]:
        """Return a signature: `signature(args, kwargs, options)`."""
        return Signature(self._task, args, *starargs, **starkwargs)

    subtask = signature

    def map(self, it: Iterable[Any]) -> xmap:
        """Return a signature of one message that calls this task for each of *it*."""
        return xmap(self._task, it)

    def starmap(self, it: Iterable[Any]) -> xstarmap:
        """Return a signature of one message that calls this task with the arguments in each of *it*."""
        return xstarmap(self._task, it)

    def chunks(self, it: Iterable[Any], n: int) -> chunks:
        """Return a signature of a group of messages, each of which calls this task with *n* of the arguments in *it*."""
        return chunks(self._task, it, n)

    # --- inside a running task

    def replace(self, sig: Signature[Any]) -> NoReturn:
        """Put another task or canvas in the place of this one, with its id and with what follows it: `raise self.replace(...)`.

        Raises:
            Ignore: always; it tells the worker.
        """
        replace(self._task, self.on_replace(sig))

    def on_replace(self, sig: Signature[Any]) -> Signature[Any]:
        """Return what replaces the task; a subclass may change it."""
        return sig

    def add_to_chord(self, sig: Signature[Any], lazy: bool = False) -> Any:
        """Let the chord that this task is a member of wait for *sig*, too; *lazy*: it is sent by somebody else.

        Raises:
            ValueError: it is no member of a chord, or the chord is over.
        """
        return add_to_chord(self._task, sig, lazy)
