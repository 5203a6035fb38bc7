"""Periodic tasks that a program adds: they join those of the setting `beat_schedule`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Periodic"]

logger = logging.getLogger("celery.beat")


class Periodic:
    """The part of an app that `add_periodic_task` is."""

    conf: Any
    _read = False  # have the settings been?
    _added: dict[str, dict[str, Any]]  # before

    def add_periodic_task(
        self, schedule: Any, sig: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, name: str | None = None,
        **opts: Any,
    ) -> str:  # fmt: skip
        """Add a periodic task to `beat_schedule`; call it when `on_after_configure` or `on_after_finalize` is sent.

        Args:
            schedule: seconds, a timedelta, a crontab or another schedule.
            sig: a task, or a signature of one, whose arguments and options go along.
            args: more arguments.
            kwargs: more keyword arguments.
            name: of the entry; the text of *sig* by default.
            opts: options of `apply_async`, and what an entry may say besides, such as `misfire` or `overlap`.

        Returns:
            The name of the entry.
        """
        is_task = hasattr(sig, "s")
        signature = sig.s(*args, **(kwargs or {})) if is_task else sig.clone(args, kwargs)
        key = name or repr(signature)
        own = {option: opts.pop(option) for option in OWN if option in opts}
        entry = {
            "schedule": schedule, "task": signature.task, "args": tuple(signature.args), "kwargs": dict(signature.kwargs),
            "options": {**signature.options, **opts}, **own,
        }  # fmt: skip
        if self._read:
            self._enter({key: entry})
        else:
            self._warn_of_twins(self._added, key)
            self._added[key] = entry
        return key

    def enter_added(self) -> None:
        """Enter into `beat_schedule` what was added before the settings were read."""
        self._read, added, self._added = True, self._added, {}
        if added:
            self._enter(added)

    def _enter(self, entries: Mapping[str, Any]) -> None:
        before = dict(self.conf.beat_schedule or {})
        for key in entries:
            self._warn_of_twins(before, key)
        self.conf.beat_schedule = {**before, **entries}

    def _warn_of_twins(self, before: Mapping[str, Any], key: str) -> None:
        if key in before:
            logger.warning("The periodic task %r is there twice: the last one counts. Give each a name= of its own.", key)


OWN = ("misfire", "grace", "overlap", "jitter", "starts", "ends", "since", "enabled", "one_off", "max_runs", "relative", "last_run_at")
