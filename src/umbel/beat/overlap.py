"""Whether the run before has ended, for entries that must not run beside themselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from umbel.beat.planning import ran_at
from umbel.beat.sending import memory, run_id
from umbel.beat.timetable import Due
from umbel.exceptions import OperationalError
from umbel.states import READY_STATES

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["PATIENCE", "Overlaps", "last_id"]

logger = logging.getLogger("celery.beat")

PATIENCE = 0.5  # seconds for which all else waits for results


def last_id(app: Umbel, due: Due) -> str:
    """Return the id of the task of the run before."""
    return run_id(app, due.state.id, due.entry.options)


class Overlaps:
    """Asks for the results of last runs, all at once, in a thread of its own: while they do not come, what may overlap is sent."""

    def __init__(self, app: Umbel) -> None:
        self._app = app
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="beat-results")
        self._asked: Future[Sequence[bytes | None]] | None = None
        self._silent = False  # was it said that no answer comes?

    def still_running(self, dues: Sequence[Due], now: float) -> dict[str, bool | None]:
        """Answer for each entry by name whether its last run has not ended; None: nobody knows now.

        A run has ended when its result says so. One without a result has not, though its worker was killed: its message comes back. After
        `result_expires` a result is gone, and nobody knows: it counts as ended. Its message has expired by then, if it has not begun.
        """
        asks = {due.entry.name: last_id(self._app, due) for due in dues if self._may_run(due, now)}
        if not asks:
            return {due.entry.name: False for due in dues}
        documents = self._documents(list(asks.values()))
        if documents is None:
            return {due.entry.name: None if due.entry.name in asks else False for due in dues}
        found = dict(zip(asks, documents, strict=True))
        return {due.entry.name: due.entry.name in asks and not has_ended(self._app, due, found[due.entry.name]) for due in dues}

    def _may_run(self, due: Due, now: float) -> bool:
        return bool(due.state.id) and now - (due.state.sent or ran_at(due.entry, due.state)) <= memory(self._app)

    def _documents(self, ids: Sequence[str]) -> Sequence[bytes | None] | None:
        """Return what is stored of *ids*; None: no answer came. While one is waited for, nothing is asked, and nobody waits again."""
        if self._asked is not None and not self._asked.done():
            return None
        self._asked = self._thread.submit(self._app.backend.get, ids)
        try:
            documents = self._asked.result(PATIENCE)
        except (OperationalError, TimeoutError) as exc:
            if not self._silent:
                logger.error(  # noqa: TRY400 - the sentence says it
                    "beat: Entries that must not overlap wait, as whether their runs before have ended cannot be read: %s",
                    exc or f"no answer in {PATIENCE:g} s.",
                )
            self._silent = True
            return None
        if self._silent:
            self._silent = False
            logger.info("beat: The results of runs can be read again.")
        return documents

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def has_ended(app: Umbel, due: Due, document: bytes | None) -> bool:
    """Answer whether the result of the run before, as it was read, says that it has ended."""
    if document is None:
        return False
    try:
        return app.read_meta(document)["status"] in READY_STATES
    except Exception as exc:  # noqa: BLE001 - whatever stands there holds up no entry
        logger.warning("beat: The result of %s cannot be read, and counts as ended: %s", due.state.id, exc)
        return True
