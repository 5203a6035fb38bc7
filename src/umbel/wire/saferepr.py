"""A short, safe repr of arguments, for logs, events and the headers `argsrepr` and `kwargsrepr`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

__all__ = ["one_line", "saferepr"]

_SMALL = 8  # the most items, and ...
_SHORT = 100  # ... characters that are left to the built-in repr
_DEEP = 3
_HUGE_INT = 1 << 128  # Python refuses to print ints of thousands of digits
_SMALL_INT = 1 << 62
_PLAIN = frozenset((bool, float, type(None)))
_CONTAINERS = frozenset((tuple, list, dict))

_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def one_line(value: object, maxlen: int = 1000) -> str:
    """Return the text of a value as one line of printable characters, cut to size. It never raises.

    What comes from others is shown so: a new line cannot forge a line of a log, and a terminal is told nothing.
    """
    try:
        text = str(value)
    except Exception as exc:  # noqa: BLE001 - a user's __str__ may raise anything
        text = f"<{type(value).__name__}: its text raised {type(exc).__name__}>"
    if len(text) > maxlen:
        text = f"{text[: maxlen - 3]}..."
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def saferepr(obj: Any, maxlen: int = 1024, maxlevels: int = 3) -> str:
    """Return the repr of a value, cut to size. It never raises, whatever the value's own `__repr__` does.

    Args:
        obj: any value.
        maxlen: the longest text to return; what is left out shows as `...`.
        maxlevels: how many containers inside each other are shown.
    """
    if _is_small(obj, min(maxlevels, _DEEP)):
        text = repr(obj)
        if len(text) <= maxlen:
            return text
    text = "".join(_Pen(maxlen, maxlevels).write(obj, 0))
    return text if len(text) <= maxlen else text[: max(maxlen - 3, 0)] + "..."


def _is_small(obj: Any, levels: int) -> bool:
    """Tell whether the built-in repr is cheap and safe: few plain values, in few containers."""
    kind = type(obj)
    if kind is str:
        return len(obj) <= _SHORT
    if kind is int:
        return bool(-_HUGE_INT < obj < _HUGE_INT)
    if kind in _PLAIN:
        return True
    if kind not in _CONTAINERS or levels <= 0 or len(obj) > _SMALL:
        return False
    items = (*obj, *obj.values()) if kind is dict else obj
    for item in items:  # noqa: SIM110 - all() over a generator takes twice as long
        # What most arguments are is judged here, without another call.
        if (type(item) is not int or not -_SMALL_INT < item < _SMALL_INT) and not _is_small(item, levels - 1):
            return False
    return True


class _Pen:
    """Writes until the room is used up, so that a huge value costs no more than a small one."""

    __slots__ = ("maxlevels", "room")

    def __init__(self, maxlen: int, maxlevels: int) -> None:
        self.room = maxlen
        self.maxlevels = maxlevels

    def write(self, obj: Any, level: int) -> Iterable[str]:
        brackets = _BRACKETS.get(type(obj))
        if brackets is None or not obj:
            yield self.spend(_leaf(obj, self.room))
        elif level >= self.maxlevels:
            yield self.spend(f"{brackets[0]}...{brackets[1]}")
        else:
            yield from self.container(obj, level, *brackets)

    def container(self, obj: Any, level: int, opening: str, closing: str) -> Iterable[str]:
        yield self.spend(opening)
        pairs = isinstance(obj, dict)
        # A copy, as another thread may be adding to it; no longer than what could be printed.
        items = list(islice(obj.items() if pairs else obj, max(self.room, 0) + 1))
        for position, item in enumerate(items):
            if position:
                yield self.spend(", ")
            if self.room <= 0:
                yield "..."
                break
            if pairs:
                yield from self.write(item[0], level + 1)
                yield self.spend(": ")
                yield from self.write(item[1], level + 1)
            else:
                yield from self.write(item, level + 1)
        yield ",)" if closing == ")" and len(obj) == 1 else closing

    def spend(self, text: str) -> str:
        self.room -= len(text)
        return text


def _leaf(obj: Any, room: int) -> str:
    room = max(room, 0)
    if isinstance(obj, (str, bytes)) and len(obj) > room:
        return _attempt(lambda: _cut_inside_quotes(repr(obj[:room])), obj)
    text = _attempt(lambda: repr(obj), obj)
    return text if len(text) <= room else text[:room] + "..."


def _cut_inside_quotes(text: str) -> str:
    return f"{text[:-1]}...{text[-1]}"


def _attempt(make: Callable[[], str], obj: Any) -> str:
    try:
        return make()
    except Exception as exc:  # noqa: BLE001 - a user's __repr__ may raise anything
        return f"<{type(obj).__name__} at {id(obj):#x}: its repr raised {type(exc).__name__}>"
