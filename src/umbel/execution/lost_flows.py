"""Workflows of which nothing can be known any more: what waits for them would wait for ever, so it is told that they have failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from umbel import states
from umbel.app import Umbel
from umbel.backend import Arrival, ResultBackend
from umbel.canvas.fresh import result_in
from umbel.context import Context
from umbel.exceptions import DecodeError
from umbel.execution.documents import Documents
from umbel.execution.flow_reader import FlowReader, chunks
from umbel.execution.followup import Ending, digest
from umbel.flow import Node
from umbel.publish import Draft

__all__ = ["LostFlows"]

logger = logging.getLogger("celery.worker")
MOST = 1000  # flows of which it is known that they were told of


class LostFlows:
    """Belongs to the follower, in its thread; each flow is told of once."""

    def __init__(
        self, app: Umbel, backend: ResultBackend, documents: Documents, reader: FlowReader, *, check: Callable[[], None],
        store: Callable[[Sequence[tuple[Ending, Node]]], None],
        errbacks: Callable[[Ending, Sequence[Mapping[str, Any]]], Iterable[Draft]], send: Callable[[Sequence[Draft]], None],
    ) -> None:  # fmt: skip
        self._app, self._backend, self._documents, self._reader = app, backend, documents, reader
        self._check, self._store, self._errbacks, self._send = check, store, errbacks, send
        self._told: dict[str, None] = {}  # the last ones

    def member(self, arrival: Arrival) -> None:
        """Say that the join is gone to which a task brings its value, or its failure, and end what else is known of its workflow."""
        if arrival.flow in self._told:
            return
        logger.warning(
            "%s has ended, and the workflow %s that waits for it is gone: nothing follows it, and the result of the workflow is a FAILURE. "
            "If its record has expired, raise umbel_flow_expires; if the result server has lost it, give that one a memory that it keeps.",
            arrival.id, arrival.flow,
        )  # fmt: skip
        self.end(arrival.flow, arrival.id)

    def end(self, flow: str, after: str) -> None:
        """Let all of *flow* fail that has not ended: what follows *after* cannot be known, and nothing else would end it.

        What waits in a queue or runs meanwhile may still succeed, and says so then.
        """
        if flow in self._told:
            return
        waiting: dict[str, Node] = {result_in(flow): Node(id=result_in(flow), signature={})}
        waiting |= {node.id: node for node in self._reader.whole(flow)}
        waiting.pop(after, None)
        exc = DecodeError(f"The record of the workflow {flow} is gone, or broken: what follows {after or 'a join of it'} is not known.")
        heard: tuple[str, ...] = ()
        for some in chunks(list(waiting.values())):
            self._check()
            found = zip(some, self._backend.get([node.id for node in some]), strict=True)
            dead, drafts = list[tuple[Ending, Node]](), list[Draft]()
            for node in (node for node, data in found if data is None or not self._has_ended(data)):
                document = self._documents.write_surely(Context(id=node.id), states.FAILURE, exc)
                ending = Ending(flow=flow, node=None, id=node.id, failure=document, heard=heard)
                drafts += self._errbacks(ending, node.follow.errbacks)
                heard += tuple(map(digest, node.follow.errbacks))
                dead.append((ending, node))
            self._store(dead)
            self._send(drafts)
        self._told = {**dict.fromkeys(list(self._told)[-MOST:]), flow: None}

    def _has_ended(self, document: bytes) -> bool:
        try:
            return self._app.read_meta(document)["status"] in states.READY_STATES
        except Exception:  # noqa: BLE001 - rubbish may raise anything, and is no end
            return False
