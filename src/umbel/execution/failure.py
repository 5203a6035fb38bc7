"""What a failure looks like to those who read it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

__all__ = ["ErrorInfo"]

Kind = type[BaseException]
OURS = str(Path(__file__).parent.parent)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception with its traceback as text (`einfo` of handlers and signals)."""

    exception: BaseException
    kind: Kind
    tb: TracebackType | None
    text: str

    @classmethod
    def of(cls, exc: BaseException) -> ErrorInfo:
        """Describe *exc* as it was raised by the task: the frames of umbel that called it are left out."""
        tb = exc.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename.startswith(OURS) and tb.tb_next is not None:
            tb = tb.tb_next
        return cls(exc, type(exc), tb, "".join(traceback.format_exception(type(exc), exc, tb)))

    @property
    def type(self) -> Kind:
        """The class of the exception."""
        return self.kind

    @property
    def traceback(self) -> str:
        """The text."""
        return self.text

    @property
    def exc_info(self) -> tuple[Kind, BaseException, TracebackType | None]:
        """As `sys.exc_info` gives it."""
        return self.kind, self.exception, self.tb

    def __str__(self) -> str:
        return self.text
