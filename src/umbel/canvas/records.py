"""Nodes and joins of a flow as the bytes that a result backend keeps.

A node has two parts: its *head*, which says where it stands and is plain JSON, and the signatures, which may need the serializer of
their app. So a worker that may not, or cannot, read the arguments of a task still knows what is behind it, and fails that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from umbel.exceptions import DecodeError, EncodeError
from umbel.flow import Follow, Join, Member, Node, Part
from umbel.wire.jsontypes import dumps, loads, parse
from umbel.wire.serializers import decode, encode

__all__ = ["decode_head", "decode_join", "decode_members", "decode_node", "encode_join", "encode_members", "encode_node"]

T = TypeVar("T")


class _Head(msgspec.Struct, frozen=True):
    id: str
    steps: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()
    links: tuple[int, ...] = ()


class _Join(msgspec.Struct, frozen=True):
    size: int
    group: str
    steps: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()
    to_group: bool = False


class _Members(msgspec.Struct, frozen=True):
    members: list[Member]


def encode_node(node: Node, serializer: str = "json") -> bytes:
    """Write a node as it is kept. The arguments of its task may need the serializer of its app.

    Raises:
        EncodeError: the arguments cannot be written.
    """
    try:
        return _written(node, serializer)
    except EncodeError as exc:
        raise EncodeError(f"The arguments of {node.signature['task']}, or its options, cannot be sent: {exc}") from exc


def _written(node: Node, serializer: str) -> bytes:
    head = {"id": node.id, **_edges(node.follow)}
    rest = {"signature": node.signature, "errbacks": list(node.follow.errbacks)}
    if serializer == "json":
        return dumps({**head, **rest}).encode("ascii")
    content_type, content_encoding, data = encode(serializer, rest)
    return b"\x00".join((dumps(head).encode("ascii"), content_type.encode(), content_encoding.encode(), data))


def decode_node(data: bytes, accept: frozenset[str]) -> Node:
    """Read a node.

    Raises:
        DecodeError: it is none.
        ContentDisallowed: it was written with a serializer that is not accepted.
    """
    head = decode_head(data)
    try:
        rest = _rest(data, accept)
        follow = msgspec.structs.replace(head.follow, errbacks=tuple(map(dict, rest["errbacks"])))
        return Node(id=head.id, signature={**rest["signature"], "task": str(rest["signature"]["task"])}, follow=follow)
    except (LookupError, TypeError, ValueError) as exc:
        raise DecodeError(f"What is kept of the task {head.id} cannot be read: {type(exc).__name__}: {exc}") from exc


def decode_head(data: bytes) -> Node:
    """Read where a node stands, and nothing of its task: it has no signature, and no errbacks.

    Raises:
        DecodeError: it is none.
    """
    head = _read(data.split(b"\x00", 1)[0], _Head)
    return Node(id=head.id, signature={}, follow=Follow(steps=head.steps, parts=head.parts, links=head.links))


def encode_join(join: Join) -> bytes:
    """Write what is to be known of a join. It has no callbacks and errbacks of its own: those are its body's."""
    many = {"to_group": True} if join.to_group else {}
    return dumps({"size": join.size, "group": join.group, **_edges(join.follow), **many}).encode("ascii")


def decode_join(data: bytes) -> Join:
    """Read what is known of a join.

    Raises:
        DecodeError: it is none.
    """
    found = _read(data, _Join)
    return Join(size=found.size, group=found.group, follow=Follow(steps=found.steps, parts=found.parts), to_group=found.to_group)


def encode_members(members: Sequence[Member]) -> bytes:
    """Write tasks that have no node. It stands beside the nodes; nobody needs it but who looks at a workflow."""
    return dumps({"members": msgspec.to_builtins(members)}).encode("ascii")


def decode_members(data: bytes) -> list[Member] | None:
    """Read what `encode_members` wrote; None: it is something else."""
    if not data.startswith(b'{"members": '):
        return None
    return _read(data, _Members).members


def _rest(data: bytes, accept: frozenset[str]) -> Any:
    if b"\x00" not in data:
        return loads(data)
    _, content_type, content_encoding, rest = data.split(b"\x00", 3)
    return decode(rest, content_type.decode(), content_encoding.decode(), accept)


def _edges(follow: Follow) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins({"steps": follow.steps, "parts": follow.parts, "links": follow.links})
    return {name: edges for name, edges in found.items() if edges}


def _read(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.convert(parse(data), kind)
    except (ValueError, TypeError, RecursionError) as exc:
        raise DecodeError(f"What is kept of a workflow cannot be read: {data[:60]!r}: {exc}") from exc
