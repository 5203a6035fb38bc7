"""Names that Celery's users import from `celery.utils.functional`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

__all__ = ["chunks", "first", "is_list", "maybe_list", "noop", "pass1", "uniq"]

T = TypeVar("T")


def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing with any arguments."""


def pass1(arg: T, *args: Any, **kwargs: Any) -> T:  # noqa: ARG001 - any arguments
    """Return the first argument."""
    return arg


def is_list(value: Any) -> bool:
    """Answer whether *value* can be walked over, and is no mapping and no text."""
    return isinstance(value, Iterable) and not isinstance(value, (dict, str, bytes))


def maybe_list(value: Any) -> Any:
    """Return a list of one, unless *value* is None or such a thing already."""
    return value if value is None or is_list(value) else [value]


def first(predicate: Callable[[T], Any] | None, iterable: Iterable[T]) -> T | None:
    """Return the first for which *predicate* holds; without one, the first that is not None."""
    return next((each for each in iterable if (predicate(each) if predicate else each is not None)), None)


def uniq(iterable: Iterable[T]) -> Iterator[T]:
    """Yield each once, in their order."""
    return iter(dict.fromkeys(iterable))


def chunks(iterable: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of *size*, and a last shorter one."""
    rest = iter(iterable)
    while part := list(islice(rest, size)):
        yield part
