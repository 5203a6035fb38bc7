"""Carrying out what follows in workflows: steps are sent, values go to joins, what cannot start any more is told to have failed.

All of it may be repeated: whoever is interrupted here has not acknowledged the message, or not marked the join as sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import structs

from umbel import publish, states
from umbel.app import Umbel
from umbel.backend import Arrival, Gone, Over, Record, ResultBackend
from umbel.broker import Broker
from umbel.canvas.launch import OwnCall, call_of, draft_of
from umbel.canvas.sending import delay_of
from umbel.context import Context
from umbel.exceptions import ChordError, OperationalError
from umbel.execution.documents import Documents
from umbel.execution.embedded import EmbeddedFlows
from umbel.execution.errbacks import errback_node
from umbel.execution.flow_reader import FlowReader, Unreadable, chunks
from umbel.execution.followup import Due, Ending, Steps, after_join, after_task, digest, packed, unpacked
from umbel.execution.lost_flows import LostFlows
from umbel.flow import Join, Node, Place
from umbel.ids import uuid
from umbel.meta import result_of
from umbel.publish import Draft
from umbel.wire.saferepr import saferepr

__all__ = ["Follower", "Halted"]

logger = logging.getLogger("celery.worker")
T = TypeVar("T")
News = tuple[list[Due], list[Ending]]  # joins that are over, and tasks that have ended, with what was carried out
LONGEST = 10_000  # characters of an exception in the text of another


class Halted(Exception):  # noqa: N818 - no error: it is the lease that ended
    """The lease has ended meanwhile: nothing more may be written."""


class Follower:
    """Runs in the thread that settles, which alone calls it."""

    def __init__(
        self, app: Umbel, broker: Broker, backend: ResultBackend, documents: Documents, *,
        expires: float | None, result_expires: float | None, may_write: Callable[[], bool], clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._app, self._broker, self._backend, self._documents = app, broker, backend, documents
        self._reader = FlowReader(backend, app.accepted_content(), self._check)
        self._embedded = EmbeddedFlows(
            app, documents, send=self._send, store=self._store_all, errbacks=self._errbacks, read=self._failure, expires=result_expires
        )  # fmt: skip
        self._clock = clock
        self._lost = LostFlows(
            app, backend, documents, self._reader, check=self._check, store=self._store, errbacks=self._errbacks, send=self._send
        )
        self._expires, self._result_expires, self._may_write = expires, result_expires, may_write

    def follow(self, endings: Sequence[Ending]) -> None:
        """Carry out all that follows *endings*. One that cannot be followed, whatever the reason, holds up no other.

        Raises:
            OperationalError: a server is away; perhaps a part is done, and all may be repeated.
            Halted: the lease has ended.
        """
        for ending in endings:
            if not ending.flow:
                self._follow_embedded(ending)
        ours = [ending for ending in endings if ending.flow and self._keeps(ending)]
        for ending in ours:
            if ending.until:
                self._keep_alive(ending, ending.until)
        self._go_on([ending for ending in ours if not ending.until], [])

    def _follow_embedded(self, ending: Ending) -> None:
        self._check()
        try:
            self._embedded.follow(ending)
        except (OperationalError, Halted):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, it ends no worker; it is logged
            for failed in self._broken_off(ending, exc)[1]:
                self._follow_embedded(failed)

    def release(self, overs: Sequence[Over]) -> None:
        """Carry out what follows joins that are over; raises as `follow` does. One of which a message is refused holds up no other."""
        try:
            self._go_on([], [Due(over) for over in overs])
        except OperationalError as exc:
            if not getattr(exc, "refused", False) or len(overs) == 1:
                raise
            for over in overs:
                try:
                    self.release([over])
                except OperationalError as one:  # it comes again
                    if not getattr(one, "refused", False):
                        raise

    def _keeps(self, ending: Ending) -> bool:
        if not self._backend.keeps_flows:
            logger.error(
                "%s is a part of a workflow, and the result backend of this worker keeps none: nothing follows it. Give the worker the "
                "result_backend of those who send.", ending.id,
            )  # fmt: skip
        return self._backend.keeps_flows

    def _go_on(self, endings: list[Ending], dues: list[Due]) -> None:
        """Go from what ended to what ends with it, until nothing does."""
        released: list[Over] = []
        while endings or dues:
            released += [due.over for due in dues]
            first = self._each(self._after_tasks, endings, self._broken_off)
            second = self._each(self._after_joins, dues, self._broken_join)
            dues, endings = [*first[0], *second[0]], [*first[1], *second[1]]
        # Invariant: a join is marked as sent last, when all that ends with it is told, or nobody would come back to tell it.
        for some in chunks(released):
            self._check()
            self._backend.sent(some)

    def _after_tasks(self, endings: Sequence[Ending]) -> News:
        return self._carry_out(self._of_tasks(endings))

    def _after_joins(self, dues: Sequence[Due]) -> News:
        return self._carry_out(list(self._of_joins(dues)))

    def _each(self, work: Callable[[Sequence[T]], News], items: Sequence[T], broken: Callable[[T, Exception], News]) -> News:
        """Do *work* with *items*; if that fails in a way that nobody foresaw, with each by itself. *broken* ends what fails again."""
        if not items:
            return [], []
        try:
            return work(items)
        except (OperationalError, Halted):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, it ends no worker; who ends it logs it
            if len(items) == 1:
                return broken(items[0], exc)
        found = [self._each(work, [item], broken) for item in items]
        return [due for dues, _ in found for due in dues], [ending for _, endings in found for ending in endings]

    def _broken_off(self, ending: Ending, exc: Exception) -> News:
        """Let what is behind *ending* fail with *exc*; if that fails, too, it is only logged."""
        if ending.value is None:
            logger.critical("What is behind %s, which has failed, cannot be told.", ending.id, exc_info=exc)
            return [], []
        logger.critical("What follows %s cannot be carried out: it fails.", ending.id, exc_info=exc)
        document = self._documents.write_surely(Context(id=ending.id), states.FAILURE, exc)
        return [], [structs.replace(ending, value=None, failure=document, told=False, broken_off=True)]

    def _broken_join(self, due: Due, exc: Exception) -> News:
        """Let what is behind a join fail with *exc*; if that fails, too, end what is known of its workflow."""
        flow, failure = due.over.flow, b""
        if not due.failure:
            logger.critical("What follows a join of the workflow %s cannot be carried out: it fails.", flow, exc_info=exc)
            failure = self._documents.write_surely(Context(id=flow), states.FAILURE, exc)
            return self._each(self._after_joins, [structs.replace(due, failure=failure)], self._broken_join)
        logger.critical("What is behind a join of the workflow %s cannot be told.", flow, exc_info=exc)
        return [], []

    def _check(self) -> None:
        if not self._may_write():
            raise Halted

    # What follows

    def _of_tasks(self, endings: Sequence[Ending]) -> list[tuple[Ending, Steps]]:
        nodes = self._reader.nodes((each.flow, each.node) for each in endings if each.node is not None)
        found = []
        for each in endings:
            node = nodes.get((each.flow, each.node)) if each.node is not None else None
            if node is None and each.node is not None:
                logger.warning(
                    "%s belongs to the workflow %s, which is gone, or broken: nothing follows it. If it has expired, raise "
                    "umbel_flow_expires.", each.id, each.flow,
                )  # fmt: skip
                self._lost.end(each.flow, each.id)
            elif node is not None and isinstance(node.signature, Unreadable) and each.value is None and each.told and each.raw:
                logger.error("The errbacks of %s, which failed, are not told: %s", each.id, node.signature.why)
            found.append((each, after_task(each, node)))
        return found

    def _of_joins(self, dues: Sequence[Due]) -> Iterator[tuple[Ending, Steps]]:
        for some in chunks(dues):
            self._check()
            data = self._backend.join_data([(due.over.flow, due.over.join) for due in some])
            for due, found in zip(some, data, strict=True):
                if found is not None and (join := self._reader.join(due.over, found)) is not None:
                    yield from self._of_join(due, join)
                else:
                    self._lost.end(due.over.flow, due.after)

    def _of_join(self, due: Due, join: Join) -> list[tuple[Ending, Steps]]:
        over, value, failure, heard = due.over, None, due.failure, tuple[str, ...]()
        if failure:
            pass  # what is to follow cannot be carried out
        elif over.failed is not None:
            heard, document = unpacked(over.failure)
            failure = self._behind(over, document, join)
        elif (values := self._reader.values(over)) is None:
            return []  # another worker has sent it meanwhile
        else:
            value, failure = self._joined(over, values)
        ending = Ending(
            flow=over.flow, node=None, id=due.after or over.failed or join.group, value=value, failure=failure, root=due.root,
            heard=heard, priority=due.priority,
        )  # fmt: skip
        return [(ending, after_join(join.follow, ending))]

    def _behind(self, over: Over, document: bytes, join: Join) -> bytes:
        """Return the failure of what is behind a join that failed: a ChordError; members of a group, and joins, get the same exception."""
        if join.to_group or not join.follow.steps:
            return document
        exc = ChordError(f"Dependency {over.failed} raised {saferepr(self._failure(document)[0], LONGEST)}")
        return self._documents.write_surely(Context(id=over.failed), states.FAILURE, exc)

    def _failure(self, document: bytes) -> tuple[BaseException, str | None]:
        """Read the document of a failure."""
        try:
            meta = self._app.read_meta(document)
            exc = result_of(meta)
        except Exception as error:  # noqa: BLE001 - rubbish may raise anything, and those behind fail all the same
            return error, None
        return exc if isinstance(exc, BaseException) else Exception(exc), meta.get("traceback")

    def _joined(self, over: Over, values: Sequence[bytes]) -> tuple[bytes | None, bytes]:
        """Return the list of *values*, encoded, or why it cannot be made: the document of a failure."""
        try:
            return self._documents.join(values), b""
        except Exception as exc:  # noqa: BLE001 - whatever the record holds, it ends no worker
            logger.error("The values of a join of the workflow %s cannot be read: %s", over.flow, saferepr(exc, LONGEST))  # noqa: TRY400
            return None, self._documents.write_surely(Context(id=over.flow), states.FAILURE, exc)

    # Doing it

    def _carry_out(self, todo: Sequence[tuple[Ending, Steps]]) -> News:
        """Do what was decided; return the joins that are over with it, and the tasks that have ended with it."""
        nodes = self._reader.nodes((ending.flow, number) for ending, steps in todo for number in (*steps.starts, *steps.doomed))
        for ending, steps in todo:
            if any((ending.flow, number) not in nodes for number in (*steps.starts, *steps.doomed)):
                self._lost.end(ending.flow, ending.id)
        drafts: list[Draft] = []
        dead: list[tuple[Ending, Node]] = []
        arrivals: list[Arrival] = []
        for ending, steps in todo:
            body = nodes.get((ending.flow, steps.doomed[0])) if steps.doomed and ending.node is None else None
            # Of a join, its body is what failed.
            drafts += self._errbacks(
                ending if body is None else structs.replace(ending, id=body.id, task=str(body.signature.get("task") or "")), steps.errbacks
            )
            # An errback of a whole chain does not hear of its first step, and again of a body behind it; but one that is a member's own,
            # and its body's, too, hears of both. Whoever comes to the join must know: so it goes there with the failure.
            heard = () if ending.told and ending.node is not None else ending.heard
            arrivals += [packed(each, heard) for each in steps.arrivals]
            heard = (*ending.heard, *map(digest, steps.errbacks))
            dead += [
                self._doomed(structs.replace(ending, heard=heard), number, nodes)
                for number in steps.doomed
                if (ending.flow, number) in nodes
            ]
            known = [number for number in steps.starts if (ending.flow, number) in nodes]
            made, failed = self._starts(ending, known, nodes)
            drafts += made
            dead += failed
        self._store(dead)
        self._send(drafts)
        return self._arrive(arrivals, {ending.id: ending for ending, _ in todo}), [ending for ending, _ in dead]

    def _starts(
        self, ending: Ending, numbers: Sequence[int], nodes: Mapping[tuple[str, int], Node]
    ) -> tuple[list[Draft], list[tuple[Ending, Node]]]:
        """Make the messages of what starts. What cannot be sent has failed: those behind it must hear of it."""
        drafts, failed = [], []
        for number in numbers:
            node = nodes[ending.flow, number]
            try:
                drafts += draft_of(self._start(ending, number, node))
            except (OperationalError, Halted):
                raise
            except Exception as exc:  # noqa: BLE001 - whatever a signature holds, it ends no worker
                logger.error("%s[%s] cannot be sent: %s", node.signature.get("task") or "The task ", node.id, saferepr(exc, LONGEST))  # noqa: TRY400 - ours
                document = self._documents.write_surely(Context(id=node.id), states.FAILURE, exc)
                failed.append((Ending(flow=ending.flow, node=number, id=node.id, failure=document, root=ending.root), node))
        return drafts, failed

    def _keep_alive(self, ending: Ending, until: float) -> int:
        """Let the record live on if it may be gone at *until*, or soon after; return when it was written to.

        A join is written to with each of its parts, so this is for long waits, and for long ways without joins.
        """
        now = self._clock()
        if ending.node is None and not ending.until:  # a join, which has just been written to
            ending = structs.replace(ending, since=int(now))
        if self._expires is None or until - ending.since <= self._expires / 2:
            return ending.since
        self._check()
        self._backend.begin_flow(ending.flow, {}, {}, expires=self._expires + max(0.0, until - now))
        return int(now)

    def _start(self, ending: Ending, number: int, node: Node) -> Draft | OwnCall:
        if isinstance(node.signature, Unreadable):
            raise node.signature.why
        value = () if node.signature.get("immutable") or ending.value is None else (self._documents.read_value(ending.value),)
        since = self._keep_alive(ending, self._clock() + delay_of(self._app, node.signature.get("options") or {}))
        place = Place(flow=ending.flow, node=number, copy=uuid(), turn=node.turn, since=since)
        return call_of(self._app, node, place, value, **ending.parentage)

    def _doomed(self, ending: Ending, number: int, nodes: Mapping[tuple[str, int], Node]) -> tuple[Ending, Node]:
        node = nodes[ending.flow, number]
        exc, traceback = self._failure(ending.failure)
        request = Context(id=node.id, task=node.signature.get("task"), parent_id=ending.id, group=option(node, "group_id"))
        document = self._documents.write_surely(request, states.FAILURE, exc, traceback)
        # Behind a join its body has failed, and its errbacks hear of it. Of a chain those of the step that failed do, and no others.
        ended = Ending(
            flow=ending.flow, node=number, id=node.id, failure=document, told=ending.node is None or ending.broken_off, root=ending.root,
            heard=ending.heard, task=str(node.signature.get("task") or ""),
        )  # fmt: skip
        return ended, node

    def _errbacks(self, ending: Ending, signatures: Sequence[Mapping[str, Any]]) -> Iterator[Draft]:
        for position, signature in enumerate(signatures):
            if ending.heard and digest(signature) in ending.heard:
                continue
            exc, traceback = self._failure(ending.failure)
            try:
                node, value = errback_node(self._app, signature, ending, position, exc, traceback)
                place = Place(flow=ending.flow, copy=uuid()) if self._backend.keeps_flows else None
                yield from draft_of(call_of(self._app, node, place, value, **ending.parentage))
            except OperationalError:
                raise
            except Exception:
                logger.exception("The errback %s of %s cannot be sent.", signature.get("task"), ending.id)

    def _store(self, dead: Sequence[tuple[Ending, Node]]) -> None:
        records = [
            Record(id=ending.id, state=states.FAILURE, meta=ending.failure, expires=self._result_expires)
            for ending, node in dead
            if not option(node, "ignore_result")
        ]
        self._store_all(records)

    def _store_all(self, records: Sequence[Record]) -> None:
        for some in chunks(records):
            self._check()
            self._backend.store(some)

    def _send(self, drafts: Sequence[Draft]) -> None:
        for some in chunks(drafts):
            self._check()
            self._broker.publish([each.item for each in some])
            publish.announce(some)

    def _arrive(self, arrivals: Sequence[Arrival], endings: Mapping[str, Ending]) -> list[Due]:
        dues: dict[tuple[str, int], Due] = {}
        for some in chunks(arrivals):
            self._check()
            for arrival, over in zip(some, self._backend.arrive(some, expires=self._expires), strict=True):
                if isinstance(over, Gone):
                    self._lost.member(arrival)
                elif over is not None:
                    dues[over.flow, over.join] = Due(over, arrival.id, endings[arrival.id].root, endings[arrival.id].priority)
        return list(dues.values())


def option(node: Node, name: str) -> Any:
    """Return an option of the signature of *node*."""
    return (node.signature.get("options") or {}).get(name)
