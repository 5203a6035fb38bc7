"""Names that Celery's users import from `celery.utils.serialization`."""

from __future__ import annotations

from base64 import b64decode as _b64decode
from base64 import b64encode as _b64encode
from typing import Any

__all__ = ["b64decode", "b64encode", "strtobool"]

_WORDS = {**dict.fromkeys(("1", "true", "yes", "on", "y", "t"), True), **dict.fromkeys(("0", "false", "no", "off", "n", "f"), False)}


def b64encode(data: bytes | str) -> str:
    """Return base64 as text."""
    return _b64encode(data.encode() if isinstance(data, str) else data).decode("ascii")


def b64decode(text: str | bytes) -> bytes:
    """Return the bytes of a base64 text."""
    return _b64decode(text)


def strtobool(term: Any) -> Any:
    """Return what a word such as `yes` or `off` means; anything but text as it is.

    Raises:
        TypeError: the word means neither.
    """
    if not isinstance(term, str):
        return term
    try:
        return _WORDS[term.lower()]
    except KeyError:
        raise TypeError(f"Cannot coerce {term!r} to type bool. Use one of: {', '.join(_WORDS)}.") from None
