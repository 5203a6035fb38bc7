"""Writing the documents of results by the settings of an app: in a child of what its task did, in the parent of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.app import Umbel
from umbel.context import Context
from umbel.exceptions import EncodeError
from umbel.meta import build_meta, encode_meta
from umbel.wire.saferepr import one_line, saferepr
from umbel.wire.size import limit_of

__all__ = ["Documents"]

KEPT = 20_000  # characters at the end of a traceback that is too long


class Documents:
    """Writes documents; none is larger than `result_max_size`."""

    def __init__(self, app: Umbel, conf: Mapping[str, Any]) -> None:
        self._app = app
        self._extended, self._limit = bool(conf["result_extended"]), limit_of(conf["result_max_size"])
        self._form = {"serializer": conf["result_serializer"], "compression": conf["result_compression"]}

    def write(self, request: Context, state: str, result: Any, traceback: str | None = None) -> bytes:
        """Write one state of the task of *request*.

        Raises:
            EncodeError: the result cannot be written, or is too large.
        """
        try:
            return self._write(request, state, result, traceback, extended=self._extended)
        except EncodeError as exc:
            exc.args = (f"What {request.task} returned cannot be stored. {exc}",)
            raise

    def write_surely(self, request: Context, state: str, result: Any, traceback: str | None = None) -> bytes:
        """Do the same and leave out what cannot be written: whoever waits for this task must hear how it ended."""
        try:
            return self._write(request, state, result, traceback, extended=self._extended)
        except EncodeError as exc:
            short = traceback and traceback[-KEPT:]
            told = EncodeError(f"{one_line(saferepr(result))} cannot be stored. {one_line(exc)}")
            bare = Context(id=request.id, fence=request.fence)
            return self._write(bare, state, told if isinstance(result, BaseException) else one_line(told), short, extended=False)

    def _write(self, request: Context, state: str, result: Any, traceback: str | None, *, extended: bool) -> bytes:
        meta = build_meta(
            request.id or "", state, result, traceback=traceback, request=request, now=self._app.now(), extended=extended,
            fence=request.fence,
        )  # fmt: skip
        return encode_meta(meta, **self._form, limit=self._limit)
