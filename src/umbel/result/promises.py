"""What is called at the end of a result: `then`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from weakref import ref

from umbel.result_wait import Waiting, hub_of

__all__ = ["fulfil", "promise"]

logger = logging.getLogger("celery.result")


class Promised(Waiting):
    """Who waits for results to call something; needs no thread of its own."""

    def __init__(self, find: Callable[[], Any], ids: Iterable[str], done: Callable[[Any], None]) -> None:
        super().__init__(self.look)
        self._find, self._left, self._done = find, set(ids), done

    def look(self) -> None:
        """Take what came; runs in the thread of the hub."""
        result = self._find()
        if result is None:
            return
        hub = hub_of(result.backend)
        try:
            for task_id, document in self.taken():
                if task_id in self._left and result.take(task_id, document):
                    self._left.remove(task_id)
                    hub.leave(self, [task_id])
        except Exception:  # it cannot be read, or the backend stayed away
            hub.leave(self)
            logger.exception("What was to be called at the end of %r is not called.", result)
            return
        if not self._left:
            self._done(result)


def promise(result: Any, ids: Iterable[str], callback: Callable[..., Any], on_error: Callable[..., Any] | None, *, weak: bool) -> None:
    """Let the hub call *callback* or *on_error* with *result* when all of *ids*, which have not ended, have."""
    hub, gone = hub_of(result.backend), list[Promised]()
    # The hub forgets at its next turn who waits for a result that is not there any more: this may run in the midst of anything.
    find = ref(result, lambda _: hub.gone.extend(gone)) if weak else lambda: result
    waiting = Promised(find, ids, lambda each: fulfil(each, callback, on_error))
    gone.append(waiting)
    hub.join(waiting, ids)


def fulfil(result: Any, callback: Callable[..., Any], on_error: Callable[..., Any] | None) -> None:
    """Call what is to be called at the end of *result*."""
    try:
        chosen = on_error if result.failed_or_revoked() else callback
        if chosen is not None:
            chosen(result)
    except Exception:
        logger.exception("What was to be called at the end of %r failed.", result)
