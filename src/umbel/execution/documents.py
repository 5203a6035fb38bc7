"""Writing the documents of results by the settings of an app: in a child of what its task did, in the parent of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.app import Umbel
from umbel.context import Context
from umbel.exceptions import EncodeError
from umbel.meta import build_meta, encode_meta
from umbel.wire.saferepr import one_line, saferepr
from umbel.wire.serializers import content_types, decode, encode
from umbel.wire.size import check_written, limit_of

__all__ = ["Documents"]

BINARY = frozenset({"application/x-python-serialize", "application/x-msgpack"})
KEPT = 20_000  # characters at the end of a traceback that is too long


class Documents:
    """Writes documents; none is larger than `result_max_size`."""

    def __init__(self, app: Umbel, conf: Mapping[str, Any]) -> None:
        self._app = app
        self._extended, self._limit = bool(conf["result_extended"]), limit_of(conf["result_max_size"])
        (self._kind,) = content_types([conf["result_serializer"]])
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

    def value(self, request: Context, value: Any) -> bytes:
        """Write what a task returned for those that follow it.

        Raises:
            EncodeError: it cannot be written, or is too large.
        """
        data = encode(self._form["serializer"], value)[2]
        if len(data) > self._limit:
            check_written(f"What {request.task} returned", len(data), self._limit, "result_max_size")
        return data

    def read_value(self, data: bytes) -> Any:
        """Read what `value` wrote."""
        return decode(data, self._kind, "binary" if self._kind in BINARY else "utf-8", frozenset({self._kind}))

    def join(self, values: Sequence[bytes]) -> bytes:
        """Write many values as one: the list of them."""
        if self._kind == "application/json":
            return b"[" + b",".join(values) + b"]"
        return encode(self._form["serializer"], [self.read_value(each) for each in values])[2]

    def _write(self, request: Context, state: str, result: Any, traceback: str | None, *, extended: bool) -> bytes:
        meta = build_meta(
            request.id or "", state, result, traceback=traceback, request=request, now=self._app.now(), extended=extended,
            fence=request.fence,
        )  # fmt: skip
        return encode_meta(meta, **self._form, limit=self._limit)
