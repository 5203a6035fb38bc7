"""The app of Django."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig  # type: ignore[import-untyped]
from django.db import router  # type: ignore[import-untyped]
from django.utils.translation import gettext_lazy as _  # type: ignore[import-untyped]

from umbel.beat.stores import Layer, layers

if TYPE_CHECKING:
    from umbel.schedule_store import ScheduleStore

__all__ = ["PeriodicConfig"]


class PeriodicConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """`umbel.contrib.django.periodic`."""

    name = "umbel.contrib.django.periodic"
    label = "umbel_periodic"
    verbose_name = _("Periodic tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell schedulers of the table, and note edits of it."""
        from umbel.contrib.django.periodic import edits

        edits.connect()
        layer = Layer(where, with_table)
        if layer not in layers:
            layers.append(layer)


def where() -> str:
    """Say which table it is, in which database."""
    from umbel.contrib.django.periodic.models import PeriodicTask

    table = PeriodicTask._meta.db_table  # noqa: SLF001 - public, in spite of its name
    return f"the table {table} of Django's database {router.db_for_write(PeriodicTask)!r}"


def with_table(below: ScheduleStore) -> ScheduleStore:
    """Lay the table over a store of schedules."""
    from umbel.contrib.django.periodic.store import TableStore

    return TableStore(below)
