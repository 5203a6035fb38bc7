"""What follows a message that carries its workflow in itself, as those of Celery producers do, and those for Celery's workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from msgspec import structs

from umbel import states
from umbel.app import Umbel
from umbel.backend import CeleryPart, Record
from umbel.canvas.builtins import UNLOCK
from umbel.canvas.embed import after_success, ids_in
from umbel.canvas.launch import OwnCall
from umbel.canvas.options import maybe_list
from umbel.canvas.sending import begin
from umbel.canvas.signatures import as_signature
from umbel.canvas.writing import ends
from umbel.context import Context
from umbel.exceptions import ChordError, OperationalError
from umbel.execution.documents import Documents
from umbel.execution.followup import Ending
from umbel.flow import Place
from umbel.publish import Draft
from umbel.result import GroupResult
from umbel.wire import failures
from umbel.wire import message as wire
from umbel.wire.jsontypes import dumps, loads
from umbel.wire.saferepr import saferepr
from umbel.wire.size import limit_of

__all__ = ["EMBEDDED", "EmbeddedFlows", "embedded_in"]

logger = logging.getLogger("celery.worker")
EMBEDDED = Place(flow="")  # of a message that stands in no record
LONGEST_CLAIM = 5.0  # seconds
LONGEST = 10_000  # characters of an exception in the text of another
NAMES = ("callbacks", "errbacks", "chain", "chord")
JOINED = "joined"  # the body of the chord that a `celery.chord_unlock` waits for


def embedded_in(raw: bytes, accept: frozenset[str], limit: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the signatures in the message *raw*, and its headers; nothing, if there are none or it cannot be read."""
    try:
        message = wire.decode(raw, limit=limit)
        args, _, embed = wire.payload(message, accept, limit=limit)
    except Exception:  # noqa: BLE001 - whoever runs it says what is wrong with it
        return {}, {}
    if message.headers.get("task") == UNLOCK and len(args) > 1 and isinstance(args[1], dict):
        return {JOINED: args[1]}, message.headers
    return {name: embed[name] for name in NAMES if embed.get(name)}, message.headers


class EmbeddedFlows:
    """Carries out what follows such messages, in the thread that settles; each step may be repeated."""

    def __init__(
        self, app: Umbel, documents: Documents, *, send: Callable[[Sequence[Draft]], None], store: Callable[[Sequence[Record]], None],
        errbacks: Callable[[Ending, Sequence[Mapping[str, Any]]], Iterable[Draft]],
        read: Callable[[bytes], tuple[BaseException, str | None]], expires: float | None,
    ) -> None:  # fmt: skip
        self._app, self._documents, self._send, self._store, self._errbacks = app, documents, send, store, errbacks
        self._read, self._expires = read, expires
        self._claim = min(LONGEST_CLAIM, app.conf.worker_lease / 2)
        self._accept, self._limit = app.accepted_content(), limit_of(app.conf.task_message_max_size)

    def follow(self, ending: Ending) -> None:
        """Carry out what follows *ending*; raises what `Follower.follow` does."""
        embed, headers = embedded_in(ending.raw, self._accept, self._limit)
        if not embed:
            return
        if JOINED in embed:
            self._join(ending, embed[JOINED])
            return
        if ending.value is None:
            exc = self._read(ending.failure)[0]
            self._send(list(self._errbacks(ending, embed.get("errbacks") or ()) if ending.told else ()))
            self._part(ending, embed.get("chord"), headers, states.FAILURE, failures.describe(exc))
            self._fail_steps(ending, embed.get("chain") or (), exc)
            return
        value = self._documents.read_value(ending.value)
        self._start(ending, embed, value)
        self._part(ending, embed.get("chord"), headers, states.SUCCESS, value)

    def _start(self, ending: Ending, embed: Mapping[str, Any], value: Any) -> None:
        """Send what follows a success. What cannot be sent has failed, and those behind it."""
        try:
            found = after_success(self._app, embed, value, {**ending.parentage, "root_id": ending.root or ending.id})
            for flow in found.flows:
                begin(self._app, flow)
            found.written.open_chords()
            for call in found.drafts:
                if isinstance(call, OwnCall):
                    call.send()
        except OperationalError:
            raise
        except Exception as exc:
            logger.exception("What follows %s cannot be sent.", ending.id)
            document = self._documents.write_surely(Context(id=ending.id), states.FAILURE, exc)
            failed = structs.replace(ending, value=None, failure=document)
            self._fail_steps(failed, embed.get("chain") or (), exc)
            return
        self._send([draft for draft in found.drafts if isinstance(draft, Draft)])

    def _fail_steps(self, ending: Ending, chain: Sequence[Mapping[str, Any]], exc: BaseException) -> None:
        """Let the steps behind a failure fail with it, up to a chord, whose header has failed then. They stand in reverse."""
        before = list(takewhile(lambda step: step.get("subtask_type") != "chord", reversed(chain)))
        self._store_failed(ending, ids_in(before))
        if len(before) == len(chain):
            for last in chain[:1]:
                self._fail_parts(ending, last, failures.describe(exc))
            return
        *rest, chord = chain[: len(chain) - len(before)]
        header, body = chord["kwargs"].get("header") or (), chord["kwargs"].get("body") or {}
        ids = ids_in(header)
        self._store_failed(ending, ids)
        options = body.get("options") or {}
        behind = {**body, "options": {**options, "chain": [*rest, *(options.get("chain") or ())]}}
        self._fail_header(ending, behind, next(iter(ids), ending.id), failures.describe(exc))

    def _store_failed(self, ending: Ending, ids: Mapping[str, str]) -> None:
        """Store that tasks behind a failure have failed with it, each for who waits for it."""
        exc, traceback = self._read(ending.failure)
        self._store([
            Record(
                id=each, state=states.FAILURE, expires=self._expires, reply_to=reply_to,
                meta=self._documents.write_surely(Context(id=each, parent_id=ending.id), states.FAILURE, exc, traceback),
            )
            for each, reply_to in ids.items()
        ])  # fmt: skip

    # Chords of Celery producers

    def _join(self, ending: Ending, body: Mapping[str, Any]) -> None:
        """End a chord as the `celery.chord_unlock` says that has ended."""
        if ending.value is None:
            exc = self._read(ending.failure)[0]
            self._fail_body(ending, body, exc, f"chord_unlock could not be retried: {saferepr(exc, LONGEST)}")
            return
        found = self._documents.read_value(ending.value)
        if "failed" in found:
            self._fail_header(ending, body, found["failed"], found["with"])
        else:
            self._start_body(ending, body, found["values"])

    def _start_body(self, ending: Ending, body: Mapping[str, Any], values: Sequence[Any]) -> None:
        rest = (body.get("options") or {}).get("chain") or ()
        self._start(ending, {"chain": [*rest, body]}, values)

    def _part(self, ending: Ending, body: Mapping[str, Any] | None, place: Mapping[str, Any], state: str, result: Any) -> None:
        """Note a part of a chord, and end the chord with the last."""
        group = place.get("group") or place.get("group_id")
        if not body or not group:
            return
        part = CeleryPart(
            group=group, index=place.get("group_index"), id=ending.id, document=dumps([1, ending.id, state, result]).encode(),
            claim=self._claim,
        )  # fmt: skip
        found = self._app.backend.celery_part(part, expires=self._expires)
        if found is None:
            return
        parts = [loads(each) for each in found]
        failed = next((each for each in parts if each[2] in states.PROPAGATE_STATES), None)
        if failed is None:
            self._start_body(ending, body, self._values(group, parts))
        else:
            self._fail_header(ending, body, failed[1], failed[3])
        self._app.backend.celery_chord_sent(group, failed=failed is not None)

    def _values(self, group: str, parts: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the values of *parts*, nested as the results of the header, which the sender has saved if one ends with a group."""
        saved = GroupResult.restore(group, app=self._app)
        if saved is None:
            return [each[3] for each in parts]
        values = {each[1]: each[3] for each in parts}
        found: list[Any] = nested(saved, values)
        return [*found, *values.values()]  # what was added later stands behind them

    def _fail_header(self, ending: Ending, body: Mapping[str, Any], failed: str, described: Any) -> None:
        exc = failures.rebuild(described)
        self._fail_body(ending, body, exc, f"Dependency {failed} raised {saferepr(exc, LONGEST)}")

    def _fail_body(self, ending: Ending, body: Mapping[str, Any], cause: BaseException, why: str) -> None:
        """Let a body fail: the members of a group with *cause*, one task with a ChordError that says *why*."""
        options = body.get("options") or {}
        exc = cause if body.get("subtask_type") == "group" else ChordError(why)
        document = self._documents.write_surely(Context(id=str(options.get("task_id") or "")), states.FAILURE, exc)
        failed = structs.replace(ending, value=None, failure=document, raw=b"")
        rest = options.get("chain") or ()
        self._store_failed(structs.replace(failed, id=_id_of(body)), ids_in((*rest, body)))
        for first, errbacks in _firsts(body):
            self._send(list(self._errbacks(structs.replace(failed, id=_id_of(first), task=str(first.get("task"))), errbacks)))
        self._fail_parts(failed, rest[0] if rest else body, failures.describe(exc))

    def _fail_parts(self, ending: Ending, last: Mapping[str, Any], described: Any) -> None:
        """Note the parts of chords that a canvas ends with which will not run."""
        for end in ends(as_signature(last)):
            if end.subtask_type is None:
                part = structs.replace(ending, id=_id_of(end))
                self._part(part, end.options.get("chord"), end.options, states.FAILURE, described)


def _id_of(sig: Mapping[str, Any]) -> str:
    return str((sig.get("options") or {}).get("task_id") or "")


def _firsts(sig: Mapping[str, Any], outer: Sequence[Any] = ()) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Yield the tasks that a canvas starts with, and the errbacks of each: its own, and those of what it stands in."""
    kwargs, kind = sig.get("kwargs") or {}, sig.get("subtask_type")
    errbacks: list[Mapping[str, Any]] = []
    for each in (*maybe_list((sig.get("options") or {}).get("link_error")), *outer):
        if each not in errbacks:
            errbacks.append(each)
    if kind == "chain":
        for step in (kwargs.get("tasks") or ())[:1]:
            yield from _firsts(step, errbacks)
    elif kind in {"group", "chord"}:
        for member in kwargs.get("tasks" if kind == "group" else "header") or ():
            yield from _firsts(member, errbacks)
    else:
        yield sig, errbacks


def nested(result: Any, values: dict[str, Any]) -> Any:
    """Return the value of a result, or the list of those of its members; each is taken out of *values*."""
    if isinstance(result, GroupResult):
        return [nested(each, values) for each in result.results]
    return values.pop(result.id, None)
