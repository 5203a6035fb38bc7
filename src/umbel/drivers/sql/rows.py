"""The document of a result as columns, and back.

Celery keeps the bare result in a column, encoded by `result_serializer`, and the rest beside it. JSON is cut into its fields and put
together again without reading what is in them, so that what comes back is what was written, to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from umbel.exceptions import DecodeError
from umbel.wire import jsontypes
from umbel.wire.compression import unpacked_document
from umbel.wire.serializers import content_types, decode, encode

__all__ = ["Form", "Row", "form_of", "to_document", "to_row"]

Row = dict[str, Any]  # by column

EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue")  # of `result_extended`
SHORT = {"name": 155, "worker": 155, "queue": 155}  # characters in a column
PICKLED = b"\x80"  # how a result of Celery before 5.7 begins, whatever the serializer


class Form(Protocol):
    """How fields are written."""

    def split(self, document: bytes) -> dict[str, bytes]:
        """Cut a document into its fields, each encoded."""

    def join(self, fields: Mapping[str, bytes]) -> bytes:
        """Undo that."""

    def read(self, field: bytes) -> Any:
        """Return the plain value of a field."""

    def write(self, value: Any) -> bytes:
        """Encode a plain value."""

    def result(self, column: bytes) -> bytes:
        """Return the result in a column as a field."""


class JSONForm:
    """The usual one."""

    def __init__(self, accept: frozenset[str]) -> None:
        self._accept = accept
        self._decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

    def split(self, document: bytes) -> dict[str, bytes]:
        try:
            return {name: bytes(raw) for name, raw in self._decoder.decode(document).items()}
        except msgspec.DecodeError:  # it holds what only Python calls JSON, such as NaN
            fields = jsontypes.parse(document)
            if not isinstance(fields, dict):
                raise DecodeError("What is to be stored is not the document of a result.") from None
            return {name: self.write(value) for name, value in fields.items()}

    def join(self, fields: Mapping[str, bytes]) -> bytes:
        return b"{" + b", ".join(b"%s: %s" % (jsontypes.quote(name).encode(), value) for name, value in fields.items()) + b"}"

    def read(self, field: bytes) -> Any:
        return jsontypes.parse(field)

    def write(self, value: Any) -> bytes:
        return jsontypes.dumps(value).encode()

    def result(self, column: bytes) -> bytes:
        return self.write(unpickled(column, self._accept)) if column.startswith(PICKLED) else column


class OtherForm:
    """By another serializer, whose documents must be read to be cut."""

    def __init__(self, serializer: str, accept: frozenset[str]) -> None:
        self._serializer, self._accept = serializer, accept
        (self._type,) = content_types([serializer])
        self._own = frozenset([self._type])

    def split(self, document: bytes) -> dict[str, bytes]:  # it is of this process
        return {name: self.write(value) for name, value in decode(document, self._type, "utf-8", self._own).items()}

    def join(self, fields: Mapping[str, bytes]) -> bytes:
        return self.write({name: self.read(value) for name, value in fields.items()})

    def read(self, field: bytes) -> Any:
        return decode(field, self._type, "utf-8", self._accept)

    def write(self, value: Any) -> bytes:
        return encode(self._serializer, value)[2]

    def result(self, column: bytes) -> bytes:
        if column.startswith(PICKLED) and self._serializer != "pickle":
            return self.write(unpickled(column, self._accept))
        return column


def form_of(serializer: str, accept: frozenset[str]) -> Form:
    """Return how results are written by *serializer*; *accept* has the content types that may be read."""
    return JSONForm(accept) if serializer == "json" else OtherForm(serializer, accept)


def unpickled(column: bytes, accept: frozenset[str]) -> Any:
    """Read a result of Celery before 5.7.

    Raises:
        ContentDisallowed: nobody said that pickles are to be trusted.
    """
    return decode(column, "application/x-python-serialize", "binary", accept)


def to_row(document: bytes, state: str, form: Form) -> Row:
    """Return the columns of a document, without those that only the backend knows."""
    fields = form.split(unpacked_document(document))
    null = form.write(None)
    done = form.read(fields.pop("date_done", null))
    children = fields.pop("children", null)
    fields.pop("task_id", None)
    fields.pop("status", None)
    row: Row = {
        "status": state,
        "result": fields.pop("result", null),
        "date_done": naive(done),
        "traceback": form.read(fields.pop("traceback", null)),
        "children": None if children == null else children,
        "stamps": stamps_of(fields, form),
        **extended_of(fields, form),
    }
    if done is not None and done != canonical(row["date_done"]):
        fields["date_done"] = form.write(done)
    row["umbel_more"] = form.join(fields) if fields else None
    return row


def stamps_of(fields: dict[str, bytes], form: Form) -> bytes | None:
    """Take the stamps out of *fields*."""
    if "stamped_headers" not in fields:
        return None
    names = form.read(fields.pop("stamped_headers")) or ()
    stamps = {name: form.read(fields.pop(name)) for name in names if name in fields}
    return form.write({"stamped_headers": list(names), "stamps": stamps})


def extended_of(fields: dict[str, bytes], form: Form) -> Row:
    """Take what `result_extended` adds out of *fields*. What is too long for its column stays there as well."""
    row: Row = dict.fromkeys(EXTENDED)
    for name in EXTENDED:
        if name not in fields:
            continue
        if name in {"args", "kwargs"}:
            row[name] = fields.pop(name)
            continue
        row[name] = form.read(fields[name])
        if len(str(row[name])) <= SHORT.get(name, 155):
            del fields[name]
        else:
            row[name] = str(row[name])[: SHORT[name]]
    return row


def to_document(row: Row, form: Form) -> bytes:
    """Put the document together, in the order in which it is written."""
    more = form.split(row["umbel_more"]) if row.get("umbel_more") else {}
    null = form.write(None)
    fields = {
        "status": form.write(row["status"]),
        "result": null if row["result"] is None else form.result(row["result"]),
        "traceback": form.write(row["traceback"]),
        "children": row.get("children") or null,
        "date_done": form.write(done_text(row["date_done"], more, form)),
    }
    last = {"fence": more.pop("fence")} if "fence" in more else {}
    fields |= {name: more.pop(name) for name in ("group_id", "parent_id") if name in more}
    stamped = form.read(row["stamps"]) if row.get("stamps") else {}
    fields |= {name: form.write(value) for name, value in (stamped.get("stamps") or {}).items()}
    if row.get("name") is not None:
        fields |= {name: field_of(row[name], name, form) for name in EXTENDED}
    if stamped:
        fields["stamped_headers"] = form.write(stamped.get("stamped_headers"))
    return form.join(fields | more | {"task_id": form.write(row["task_id"])} | last)


def field_of(value: Any, name: str, form: Form) -> bytes:
    """Return a column of `result_extended` as a field."""
    return value if name in {"args", "kwargs"} and value is not None else form.write(value)


def done_text(column: datetime | None, more: dict[str, bytes], form: Form) -> str | None:
    """Return when it ended: as it was written, if nobody has written another time since; a column may hold whole seconds only."""
    text = form.read(more.pop("date_done")) if "date_done" in more else None
    written = naive(text)
    if column is not None and written is not None and abs(column - written) <= timedelta(seconds=1):
        return str(text)
    return canonical(column)


def naive(text: Any) -> datetime | None:
    """Return a time as the column has it: UTC, and without saying so."""
    if text is None:
        return None
    time = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def canonical(time: datetime | None) -> str | None:
    """Return the text of a time in the column."""
    return None if time is None else time.replace(tzinfo=UTC).isoformat()
