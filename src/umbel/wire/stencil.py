"""The envelope of a task's calls, written once and cut where two calls differ.

What surrounds the holes is whatever `message.encode` wrote around the values of one example.
"""

from __future__ import annotations

from binascii import b2a_base64

import msgspec

from umbel.wire.jsontypes import quote

__all__ = ["Slip", "Stencil"]


class Slip(msgspec.Struct, frozen=True, gc=False):
    """What differs between two calls of one task, beside the arguments themselves."""

    id: str
    tag: str  # of the delivery
    reply_to: str
    origin: str
    argsrepr: str
    kwargsrepr: str
    sent: str  # when, as JSON writes the number
    run: str = ""  # the name of a run of a periodic task; empty: it is none


class Stencil:
    """An envelope with holes."""

    __slots__ = ("_parts",)

    def __init__(self, raw: bytes, slip: Slip, body: bytes) -> None:
        """Cut an envelope where it has these values, which must occur nowhere else in it.

        Raises:
            ValueError: the envelope has them in another order.
        """
        rest = raw.decode("ascii")
        self._parts: list[str] = []
        for value in _in_order(slip, body):
            before, found, rest = rest.partition(value)
            if not found:
                raise ValueError(f"{value} is not where a stencil has it: the order of the fields was changed in one place only.")
            self._parts += before, value
        self._parts.append(rest)

    def fill(self, slip: Slip, body: bytes) -> bytes:
        """Return the envelope of one call; its body is in UTF-8."""
        parts = self._parts.copy()
        parts[1::2] = _in_order(slip, body)
        return "".join(parts).encode("ascii")


def _in_order(slip: Slip, body: bytes) -> tuple[str, ...]:
    """Return the values in the order and in the form in which an envelope has them: only free text needs JSON's escapes."""
    text, task_id = b2a_base64(body, newline=False).decode("ascii"), slip.id
    free = quote(slip.argsrepr), quote(slip.kwargsrepr), quote(slip.origin)
    run = (quote(slip.run),) if slip.run else ()
    return text, task_id, task_id, *free, slip.sent, *run, task_id, slip.reply_to, slip.tag
