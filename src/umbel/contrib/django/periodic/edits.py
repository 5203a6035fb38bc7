"""Notes of what has changed in the table, made as the change is committed, for the scheduler that leads.

A note only makes it quick: who changes the table by other ways, or is killed right after the commit, is found by the comparison that the
scheduler goes through the table with (`following.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db import DatabaseError, transaction  # type: ignore[import-untyped]
from django.db.models.signals import post_delete, post_save  # type: ignore[import-untyped]

__all__ = ["MOST", "connect", "note"]

logger = logging.getLogger("celery.django")

MOST = 1000  # rows that are noted one by one


def connect() -> None:
    """Note what is saved and deleted."""
    from umbel.contrib.django.periodic.models import PeriodicTask

    post_save.connect(on_change, sender=PeriodicTask, dispatch_uid="umbel.periodic.saved")
    post_delete.connect(on_change, sender=PeriodicTask, dispatch_uid="umbel.periodic.deleted")


def on_change(instance: Any, using: str, **_: Any) -> None:
    """Note one."""
    note([instance.pk], using=using)


def note(keys: Sequence[int | None], *, using: str) -> None:
    """Note rows when the transaction commits; nothing if it is rolled back."""
    if keys:
        noted = [None] if len(keys) > MOST or None in keys else list(keys)
        transaction.on_commit(partial(write, noted, using), using=using)


def write(keys: Sequence[int | None], using: str) -> None:
    """Write notes."""
    from umbel.contrib.django.periodic.models import Edit

    try:
        Edit.objects.using(using).bulk_create([Edit(task=key) for key in keys])
    except DatabaseError as exc:  # the change is there, and who made it has not failed
        logger.warning("An edit of the periodic tasks takes effect later than it could: its note cannot be written: %s", exc)
