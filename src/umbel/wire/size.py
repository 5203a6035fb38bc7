"""How large a message or a result may be: the settings `task_message_max_size` and `result_max_size`."""

from __future__ import annotations

from umbel.exceptions import DecodeError, EncodeError

__all__ = ["ADVICE", "DEFAULT_LIMIT", "check_read", "check_written", "limit_of"]

DEFAULT_LIMIT = 64 * 1024 * 1024  # bytes; what a network of 1 Gbit/s carries within a broker's deadline
UNLIMITED = 1 << 40
ADVICE = "Put large data in a store (a file, a row, an object key) and pass a reference"


def limit_of(setting: int | None) -> int:
    """Return the most bytes that a setting allows; None and 0 allow any number."""
    return setting or UNLIMITED


def check_written(what: str, size: int, limit: int, setting: str) -> None:
    """Refuse to write what is too large.

    Raises:
        EncodeError: *size* is above *limit*; the text says both, the setting, and what to do.
    """
    if size > limit:
        raise EncodeError(f"{what} has {size} bytes; {setting} allows {limit}. {ADVICE}, or raise the setting (None: no limit).")


def check_read(size: int, limit: int) -> None:
    """Refuse to read a message that is too large.

    Raises:
        DecodeError: *size* is above *limit*; the text says both, the setting, and what to do.
    """
    if size > limit:
        raise DecodeError(f"it has {size} bytes; task_message_max_size allows {limit} here. {ADVICE}, or raise the setting.")
