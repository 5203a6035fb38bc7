"""Sending groups and chords whose members may be many: 500 at a time, so that a generator of any length needs little memory.

The join of a chord is written before its first member is sent, and grows with each batch. Invariant: it has grown by a batch before the
batch before that one is sent. So it is never over while members are still to come.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain as joined
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from umbel import publish, states
from umbel.backend import Arrival
from umbel.canvas.chords import HEADER_ID, gives_value
from umbel.canvas.compile import Compiler, Start
from umbel.canvas.fresh import flow_beside, fresh_id
from umbel.canvas.groups import members
from umbel.canvas.launch import OwnCall
from umbel.canvas.options import LINKS, maybe_list
from umbel.canvas.sending import CHUNK, begin, drafts_of, has_id, name_flow, publish_as, send
from umbel.canvas.signatures import as_signature
from umbel.canvas.spread import ITS_OWN, spread
from umbel.meta import build_meta, encode_meta
from umbel.result import GroupResult

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["split", "start_chord", "start_group", "with_header"]

logger = logging.getLogger("umbel.canvas")


def start_group(
    app: Umbel, sig: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], how: dict[str, Any]
) -> GroupResult[Any]:
    """Send the members as they come, 500 at a time, so that a generator of any length needs little memory."""
    fixed = options.get("task_id") or sig.options.get("task_id")
    own = fixed or fresh_id()
    outer = _outer(sig, args, kwargs, options)
    places, results = count(), list[Any]()
    source = members(sig)
    while batch := list(islice(source, CHUNK)):
        compiler = Compiler(own if not results and not fixed else flow_beside(own))
        starts: list[Start] = []
        for member in batch:
            copied = member.clone()
            for errback in outer.errbacks:
                copied.link_error(as_signature(errback).clone())
            spread(copied, outer.args, outer.kwargs, outer.options)
            if (result := copied.freeze(None, own, None, None, None, next(places))) is not None:  # None: an empty chain
                results.append(result)
            starts += compiler.starts(copied)
        send(app, compiler, starts, how)
    return GroupResult(own, results, app=app)


class _Outer:
    """What a group says to each of its members."""

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], errbacks: list[Any]) -> None:
        self.args, self.kwargs, self.options, self.errbacks = args, kwargs, options, errbacks


def _outer(sig: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> _Outer:
    said = sig._merge((), None, options)[2]  # noqa: SLF001
    further = {key: value for key, value in said.items() if key not in ITS_OWN and key not in LINKS}
    own_kwargs = {key: value for key, value in sig.kwargs.items() if key != "tasks"}
    if sig.immutable:
        return _Outer(sig.args, own_kwargs, further, maybe_list(said.get("link_error")))
    return _Outer((*args, *sig.args), {**own_kwargs, **kwargs}, further, maybe_list(said.get("link_error")))


# --- chords


def with_header(sig: Any, header: Iterable[Any], body: Any) -> Any:
    """Return a copy of the chord *sig* with other members and another body."""
    return sig._copy(sig.args, {**sig.kwargs, "header": list(header), "body": body}, sig.options, sig.immutable)  # noqa: SLF001


def split(sig: Any) -> tuple[list[Any], Iterator[Any] | None]:
    """Return the members of a chord that are sent at once, and none; or none, and all of them, which are not."""
    source = members(sig)
    few = list(islice(source, CHUNK + 1))
    return (few, None) if len(few) <= CHUNK else ([], joined(few, source))


def start_chord(
    app: Umbel, sig: Any, source: Iterator[Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any],
    how: dict[str, Any],
) -> Any:  # fmt: skip
    """Send a chord with the members that *source* yields; return the result of its body."""
    outer = with_header(sig, (), sig.body)
    spread(outer, (), None, options)
    own, fixed = outer.options, has_id(sig, options)
    result = outer.body.freeze(own.get("task_id"), own.get("group_id"), None, None, None, own.get("group_index"))
    compiler = Compiler(flow_beside(result.id) if fixed else result.id)
    sending = _Sending(app, own.get(HEADER_ID) or fresh_id(), compiler, how)
    sending.body(outer.body)
    if fixed:
        name_flow(app, result.id, compiler)
    sending.send(_batches(sig, source, args, kwargs, options))
    first = result
    while first.parent is not None:
        first = first.parent
    first.parent = GroupResult(sending.group, sending.results, app=app)
    return result


def _batches(
    sig: Any, source: Iterator[Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[list[Any]]:
    """Yield copies of the members, 500 at a time; what is said to the chord is said to them."""
    while batch := list(islice(source, CHUNK)):
        part = with_header(sig, batch, None)
        spread(part, args, kwargs, options)
        yield list(part.tasks)


class _Sending:
    """The header of one chord while it is sent."""

    def __init__(self, app: Umbel, group: str, compiler: Compiler, how: Mapping[str, Any]) -> None:
        self.app, self.group, self.how, self._compiler = app, group, how, compiler
        self.results: list[Any] = []
        self._join = self._size = 0
        self._places = count()

    def body(self, body: Any) -> None:
        """Compile what follows the header."""
        self._join = self._compiler.join(self.group, body)

    def send(self, batches: Iterator[list[Any]]) -> None:
        """Send all members. If that ends early, what was sent already must not wait for the rest: the join fails."""
        ready: list[publish.Draft | OwnCall] = []
        some_sent = False
        try:
            for batch in batches:
                drafts = self._prepared(batch)
                some_sent = some_sent or bool(ready)
                publish_as(self.app, ready, self.how)
                ready = drafts
            publish_as(self.app, ready, self.how)
        except BaseException as exc:
            self._give_up(exc, some_sent)
            raise

    def _prepared(self, batch: list[Any]) -> list[publish.Draft | OwnCall]:
        """Let the join wait for a batch, and build its messages."""
        for member in batch:
            if (result := member.freeze(None, self.group, None, None, None, next(self._places))) is not None:  # None: an empty chain
                self.results.append(result)
        by = sum(map(gives_value, batch))
        position = self._grown(by)
        drafts = drafts_of(self.app, self._compiler.parts(batch, self._join, position))
        begin(self.app, self._compiler)
        self._compiler.clear()
        self._size = position + by
        return drafts

    def _grown(self, by: int) -> int:
        """Return the position of the first new part. A member may have made the join grow, too, or have ended it: then none matters."""
        if not self._size:
            self._compiler.resize(self._join, by)
            return 0
        position = self.app.backend.grow(self._compiler.flow, self._join, by, key=f"the {self._size} before")
        return self._size if position is None else position

    def _give_up(self, exc: BaseException, some_sent: bool) -> None:
        """Let the join fail with *exc* at its last part; if no member was sent, leave nothing."""
        flow, backend, conf = self._compiler.flow, self.app.backend, self.app.conf
        try:
            if not some_sent:
                backend.forget_flows([flow])
                return
            last = self.results[-1].id
            failure = encode_meta(build_meta(last, states.FAILURE, exc), serializer=conf.result_serializer)
            part = Arrival(flow=flow, join=self._join, position=self._size - 1, id=last, value=None, failure=failure)
            backend.arrive([part], expires=conf.umbel_flow_expires)
        except Exception:
            logger.warning("A chord was sent in part, and nobody could be told: its body will not start.", exc_info=True)
