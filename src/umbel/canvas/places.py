"""What follows a message that stands in a flow: it will follow what takes the place of that message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel.canvas.fresh import fresh_id
from umbel.canvas.records import decode_node
from umbel.flow import Follow, Place

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["any_number", "follow_at"]

LARGEST_NUMBER = 1 << 53  # of a node: JSON of any language can say it


def any_number() -> int:
    """Return the number of a node: derived as ids are, and so large that no two of a flow are the same."""
    return int(fresh_id().replace("-", "")[:13], 16) % LARGEST_NUMBER


def follow_at(app: Umbel, place: Place | None, who: str) -> Follow:
    """Return what follows the message at *place*.

    Raises:
        LookupError: its flow is gone; *who* says whose it was.
    """
    if place is None:
        return Follow()
    if place.node is None:
        return Follow(parts=(place.part,) if place.part is not None else ())
    (data,) = app.backend.nodes([(place.flow, place.node)])
    if data is None:
        raise LookupError(
            f"{who} belongs to the workflow {place.flow}, which is gone: nothing can replace it. "
            "If it has expired, raise umbel_flow_expires."
        )
    return decode_node(data, app.accepted_content()).follow
