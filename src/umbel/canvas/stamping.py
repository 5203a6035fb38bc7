"""Stamps: headers that say what belongs together, put on all signatures of a canvas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.canvas.signatures import Signature

__all__ = ["StampingVisitor", "stamp", "stamp_links"]

Headers = Mapping[str, Any]


class StampingVisitor(ABC):
    """Says for each part of a canvas which stamps it gets: each method returns them as a dict.

    If a dict has the key `stamped_headers`, only what is listed there are stamps; the rest are ordinary headers.
    """

    @abstractmethod
    def on_signature(self, sig: Signature[Any], **headers: Any) -> dict[str, Any]:
        """Return the stamps of one signature."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Return the stamps of all members of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - for subclasses
        """Called after the members of a group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the stamps of all steps of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027 - for subclasses
        """Called after the steps of a chain."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the stamps of all members of a chord's header."""
        return {}

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:  # noqa: B027 - for subclasses
        """Called after the members of a chord's header."""

    def on_chord_body(self, sig: Any, **header: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the stamps of a chord's body."""
        return {}

    def on_callback(self, callback: Any, **header: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the stamps of a callback."""
        return {}

    def on_errback(self, errback: Any, **header: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the stamps of an errback."""
        return {}


def stamp(sig: Signature[Any], visitor: StampingVisitor | None, append: bool, headers: Headers) -> None:
    """Put stamps on *sig* and on all that it is made of and that follows it."""
    kind = sig.subtask_type
    if kind == "group":
        _stamp_members(sig, sig._parts(), visitor, append, headers, "group")  # noqa: SLF001 - the same package
    elif kind == "chain":
        _stamp_members(sig, sig._parts(), visitor, append, headers, "chain")  # noqa: SLF001
    elif kind == "chord":
        _stamp_chord(sig, visitor, append, headers)
    else:
        _stamp_one(sig, visitor, append, headers)
        stamp_links(sig, visitor, append, headers)


def _stamp_members(
    sig: Signature[Any], members: Iterable[Any], visitor: StampingVisitor | None, append: bool, headers: Headers, kind: str
) -> None:
    _stamp_one(sig, visitor, append, headers)
    if visitor is not None:
        headers = {**headers, **(getattr(visitor, f"on_{kind}_start")(sig, **headers) or {})}
    stamp_links(sig, visitor, append, headers)
    for member in members:
        stamp(member, visitor, append, headers)
    if visitor is not None:
        getattr(visitor, f"on_{kind}_end")(sig, **headers)


def _stamp_chord(sig: Any, visitor: StampingVisitor | None, append: bool, headers: Headers) -> None:
    _stamp_one(sig, visitor, append, headers)
    inner = headers
    if visitor is not None:
        inner = {**headers, **(visitor.on_chord_header_start(sig, **headers) or {})}
    for member in sig.tasks:
        stamp(member, visitor, append, inner)
    if visitor is not None:
        visitor.on_chord_header_end(sig, **inner)
    stamp_links(sig, visitor, append, headers)
    if sig.body is not None:
        if visitor is not None:
            headers = {**headers, **(visitor.on_chord_body(sig, **headers) or {})}
        stamp(sig.body, visitor, append, headers)


def stamp_links(sig: Signature[Any], visitor: StampingVisitor | None, append: bool, headers: Headers) -> None:
    """Put stamps on the callbacks and errbacks of *sig*."""
    for option, hook in (("link", "on_callback"), ("link_error", "on_errback")):
        listed = sig.options.get(option)
        if not listed:
            continue
        found = sig.options[option] = [sig.from_dict(each) if type(each) is dict else each for each in _listed(listed)]
        for each in found:
            more = {} if visitor is None else getattr(visitor, hook)(each, **headers) or {}
            stamp(each, visitor, append, {**headers, **more})


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _stamp_one(sig: Signature[Any], visitor: StampingVisitor | None, append: bool, headers: Headers) -> None:
    given = dict(headers)
    if visitor is not None:
        own = dict(visitor.on_signature(sig, **given) or {})
        if "stamped_headers" not in own and "stamped_headers" in given:
            own["stamped_headers"] = list(own)
        given = {**given, **own, **_joined_names(given, own)}
    names = _names(given)
    values = {key: value for key, value in given.items() if key != "stamped_headers"}
    if not names and not values:
        return
    options = sig.options
    for key, value in values.items():
        options[key] = _appended(options[key], value) if append and key in names and key in options else value
    options["stamped_headers"] = list(dict.fromkeys([*(options.get("stamped_headers") or ()), *names]))


def _joined_names(given: Headers, own: Headers) -> dict[str, Any]:
    if "stamped_headers" not in given and "stamped_headers" not in own:
        return {}
    return {"stamped_headers": list(dict.fromkeys([*_names(given), *_names(own)]))}


def _names(headers: Headers) -> list[str]:
    if "stamped_headers" in headers:
        return list(headers["stamped_headers"] or ())
    return list(headers)


def _appended(old: Any, new: Any) -> list[Any]:
    found = _listed(old)
    return found + [each for each in _listed(new) if each not in found]
