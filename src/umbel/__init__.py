"""umbel: a distributed task queue that speaks Celery's API, settings and messages."""

from __future__ import annotations

from umbel import states
from umbel.app import Celery, Umbel
from umbel.current import current_app, current_task
from umbel.ids import uuid
from umbel.shared import shared_task
from umbel.task import Task

__all__ = ["Celery", "Task", "Umbel", "__version__", "current_app", "current_task", "shared_task", "states", "uuid"]

__version__ = "0.1.0"
