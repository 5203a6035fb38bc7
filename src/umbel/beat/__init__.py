"""Beat: sends periodic tasks when they are due, from any number of schedulers of which one leads.

The way of a run: `service.py` (the loop) → `scheduler.py` (a round: lead, look, send, write) → `leader.py` (who leads) → `timetable.py`
(the entries, and which is next) → `planning.py` (what is due of one; pure) → `sending.py` (messages).

Beside it stand Celery's classes, for those who subclass them: `classic.py` (`ScheduleEntry`, `Scheduler`), `persistent.py`,
`classic_service.py` (the loop). They are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.beat.classic import DEFAULT_MAX_INTERVAL, ScheduleEntry, Scheduler, SchedulingError, event_t
    from umbel.beat.classic_service import EmbeddedService, Service
    from umbel.beat.persistent import PersistentScheduler
    from umbel.beat.sending import BeatLazyFunc

__all__ = [
    "DEFAULT_MAX_INTERVAL", "BeatLazyFunc", "EmbeddedService", "PersistentScheduler", "ScheduleEntry", "Scheduler", "SchedulingError",
    "Service", "event_t",
]  # fmt: skip

WHERE = {
    "BeatLazyFunc": "sending", "EmbeddedService": "classic_service", "PersistentScheduler": "persistent", "Service": "classic_service",
    "DEFAULT_MAX_INTERVAL": "classic", "ScheduleEntry": "classic", "Scheduler": "classic", "SchedulingError": "classic",
    "event_t": "classic",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{WHERE[name]}"), name)
    return value
