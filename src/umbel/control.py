"""`app.control`: what an app asks of all workers. In this version: not to start tasks, and to end those that run."""

from __future__ import annotations

import signal as signals
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from umbel.ids import LONGEST_NAME, is_name
from umbel.wire.saferepr import saferepr

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Control", "signal_name"]


class Control:
    """The commands of one app. They are written to its broker, so workers that are not running now hear of them, too."""

    def __init__(self, app: Umbel) -> None:
        self._app = app

    def revoke(
        self,
        task_id: str | Sequence[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | int | None = "SIGTERM",
        *,
        reply: bool = False,
        **kwargs: Any,
    ) -> list[dict[str, Any]] | None:
        """Tell all workers, also those that start later, not to run a task. Durable when it returns.

        Args:
            task_id: one id, or many.
            destination: has no effect: a message may be claimed by any worker, so all of them know.
            terminate: also end the task if it runs.
            signal: with what, a name or a number.
            reply: return an empty list instead of None: nobody needs to answer.
            kwargs: Celery's other options of a broadcast have no effect.

        Raises:
            BrokerUnavailable: some ids may not be revoked; to repeat the call is safe.
            ValueError: there is no such signal, or an id cannot be one.
            TypeError: there is no id.
        """
        del destination, kwargs
        if not isinstance(task_id, Iterable):
            raise TypeError(f"{saferepr(task_id, 60)} is no id of a task. Give the id as text, such as result.id, or a list of them.")
        ids = [task_id] if isinstance(task_id, str) else [str(each) for each in task_id]
        strange = next((each for each in ids if not is_name(each)), None)
        if strange is not None:
            raise ValueError(f"{saferepr(strange, 60)} is no id of a task: that is a text of 1 to {LONGEST_NAME} printable characters.")
        name = signal_name(signal) if terminate else ""
        self._app.broker.revoke(ids, ttl=self._time_to_live(), signal=name)
        return [] if reply else None

    def terminate(
        self, task_id: str | Sequence[str], destination: Sequence[str] | None = None, signal: str | int | None = "SIGTERM", **kwargs: Any
    ) -> list[dict[str, Any]] | None:
        """Do as `revoke` does with `terminate=True`."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)

    def _time_to_live(self) -> float:
        value = self._app.conf.task_revoke_expires
        return value.total_seconds() if isinstance(value, timedelta) else float(value)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"app.control.{name} comes with a later version of umbel. There are: revoke, terminate.", name=name, obj=self)


def signal_name(signal: str | int | None) -> str:
    """Return the name of a signal: of `TERM`, `SIGTERM`, 15, `"15"` or None this is `SIGTERM`.

    Raises:
        ValueError: there is no such signal.
    """
    if signal is None:
        return "SIGTERM"
    try:
        word = str(signal).upper()
        if isinstance(signal, int) or word.isdecimal():
            return signals.Signals(int(signal)).name
        return signals.Signals[word if word.startswith("SIG") else f"SIG{word}"].name
    except (KeyError, ValueError):
        raise ValueError(f"There is no signal {signal!r} on this system. Give a name or number, for example SIGTERM or SIGKILL.") from None
