"""A sequence that asks a generator for its members only when somebody looks at them, and keeps those that it has got."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Generic, TypeVar, overload

__all__ = ["Regen", "regen"]

T = TypeVar("T")

KEPT = 500  # members that `each` keeps


class Regen(Sequence[T], Generic[T]):
    """Looks like a list; `each` yields the members without keeping them."""

    def __init__(self, source: Iterable[T]) -> None:
        self._source: Iterator[T] | None = iter(source)
        self._kept: list[T] = []
        self._spent = False

    def each(self) -> Iterator[T]:
        """Yield the members, once if they are many: no more than 500 are kept."""
        self._check()
        if self._source is None:
            yield from self._kept
            return
        for place in range(KEPT + 1):
            try:
                member = self[place]
            except IndexError:
                return
            if place < KEPT:
                yield member
        kept, source = self._kept[KEPT:], self._source
        self._kept, self._source, self._spent = [], None, True
        yield from kept
        yield from source or ()

    def _check(self) -> None:
        if self._spent:
            raise RuntimeError(
                "These members came from a generator, were sent, and were too many to be kept. Make a list to send them again."
            )

    def _fill(self) -> list[T]:
        self._check()
        if self._source is not None:
            self._kept.extend(self._source)
            self._source = None
        return self._kept

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        self._check()
        if isinstance(index, int) and index >= 0:
            while self._source is not None and len(self._kept) <= index:
                try:
                    self._kept.append(next(self._source))
                except StopIteration:
                    self._source = None
            return self._kept[index]
        return self._fill()[index]

    def __iter__(self) -> Iterator[T]:
        for place in count():
            try:
                member = self[place]
            except IndexError:
                return
            yield member

    def __len__(self) -> int:
        return len(self._fill())

    def __bool__(self) -> bool:
        try:
            self[0]
        except IndexError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Iterable) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Regen[T]:
        from copy import deepcopy

        return Regen([deepcopy(member, memo) for member in self])

    def __json__(self) -> list[T]:
        """Return what JSON writes."""
        return self._fill()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self._fill(),)

    def __repr__(self) -> str:
        return repr(self._kept) if self._source is None and not self._spent else f"[{', '.join(map(repr, self._kept))}…]"


def regen(members: Iterable[T]) -> Sequence[T]:
    """Return *members* as a sequence; what is one already, as it is."""
    return members if isinstance(members, list | tuple | Regen) else Regen(members)
