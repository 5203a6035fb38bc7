"""Settings given behind the options of a command: `umbel worker -- worker_prefetch_multiplier=1`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umbel.config_values import from_text
from umbel.settings_table import SETTINGS

__all__ = ["parse_overrides"]

WORD = re.compile(r"(?P<key>\.?[A-Za-z][\w.]*)=(?:\((?P<cast>\w+)\))?(?P<text>.*)", re.DOTALL)


def truth(text: str) -> bool:
    """Read a boolean."""
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return known[text.lower()]


CASTS: Mapping[str, Callable[[str], Any]] = {
    "any": str, "bool": truth, "dict": json.loads, "float": float, "int": int,
    "json": json.loads, "list": json.loads, "string": str, "tuple": lambda text: tuple(json.loads(text)),
}  # fmt: skip


def parse_overrides(words: Sequence[str], namespace: str) -> dict[str, Any]:
    """Return the settings that *words* set.

    Args:
        words: `name=value`, `namespace.name=value`, `.name=value` (of *namespace*), each with `(type)` before the value
            where it should be read as another type than the setting has.
        namespace: what `.name` is in: `worker` makes `worker_name`.

    Raises:
        ValueError: a word is no setting, or its value cannot be read; the text says which.
    """
    return dict(one(word, namespace) for word in words)


def one(word: str, namespace: str) -> tuple[str, Any]:
    """Return the setting and the value of one word."""
    found = WORD.fullmatch(word)
    if found is None:
        raise ValueError(f"{word!r} is not a setting. Write it as worker_prefetch_multiplier=1.")
    key = found["key"]
    name = f"{namespace}_{key[1:]}" if key.startswith(".") else key.replace(".", "_")
    if name not in SETTINGS and f"{namespace}_{name}" in SETTINGS:
        name = f"{namespace}_{name}"
    if found["cast"] is None:
        setting = SETTINGS.get(name)
        return name, found["text"] if setting is None else from_text(setting, found["text"])
    return name, cast(found["cast"], found["text"], word)


def cast(kind: str, text: str, word: str) -> Any:
    """Read *text* as the type *kind*."""
    if kind not in CASTS:
        raise ValueError(f"{word!r}: there is no type {kind!r}. Known: {', '.join(CASTS)}.")
    try:
        return CASTS[kind](text)
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"{word!r}: {text!r} cannot be read as {kind}.") from None
