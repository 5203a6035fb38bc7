"""The headers and properties of a task message that are read, and of which types they must be.

The parent of a worker reads them without the body (`message.glance`), who runs the task reads all of it
(`message.decode`): both go by these types, so that what the one lets pass the other can read.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from umbel.exceptions import DecodeError
from umbel.ids import LONGEST_NAME, is_name
from umbel.wire.saferepr import saferepr

__all__ = ["Glimpse", "Headers", "check_names"]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
Limits = Annotated[list[Annotated[float, msgspec.Meta(ge=0)] | None], msgspec.Meta(max_length=2)]


class DeliveryInfo(msgspec.Struct, gc=False):
    """Where a producer sent a message."""

    routing_key: str | None = None


class Properties(msgspec.Struct, gc=False):
    """What surrounds the headers."""

    priority: int | None = None
    delivery_info: DeliveryInfo | None = None


class Headers(msgspec.Struct, gc=False):
    """The headers that decide something. Those that only tell (`origin`, `argsrepr`) may hold what they want."""

    task: Name
    id: Name
    retries: Count | None = None
    eta: str | None = None
    expires: str | None = None
    ignore_result: bool | None = None
    group: str | None = None
    group_index: Count | None = None
    root_id: str | None = None
    parent_id: str | None = None
    timelimit: Limits | None = None
    replaced_task_nesting: Count | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    compression: str | None = None
    umbel_sent: float | None = None  # seconds since the epoch
    umbel_flow: str | None = None  # the place in a workflow: `umbel.flow.Place` as JSON
    umbel_copy: str | None = None  # what the message is a copy of, and which: of the copies one starts


class Glimpse(msgspec.Struct, gc=False):
    """An envelope without its body."""

    headers: Headers
    properties: Properties | None = None


def check_names(task: str, id: str) -> None:
    """Refuse a name or id that could not stand in a line of a log.

    Raises:
        DecodeError: one of them is too long, or has control characters in it.
    """
    for header, text in (("task", task), ("id", id)):
        if not is_name(text):
            raise DecodeError(
                f"The header {header!r} of a task message is {saferepr(text, 60)}. "
                f"It must be a text of 1 to {LONGEST_NAME} printable characters."
            )
