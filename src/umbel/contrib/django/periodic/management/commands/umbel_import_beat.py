"""`manage.py umbel_import_beat`: take over the periodic tasks of django-celery-beat."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError  # type: ignore[import-untyped]
from django.db import connections, router, transaction  # type: ignore[import-untyped]

from umbel.contrib.django.periodic.documents import COLUMNS
from umbel.contrib.django.periodic.importing import CannotConvertError, NoTablesError, convert, read
from umbel.contrib.django.periodic.models import PeriodicTask

__all__ = ["Command"]

BATCH = 500


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """What it says is its help."""

    help = "Takes over the periodic tasks that django-celery-beat has in its tables; that package need not be installed."

    def add_arguments(self, parser: Any) -> None:
        """Add its options."""
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be done.")
        parser.add_argument("--update", action="store_true", help="Make tasks that are there already as they are in django-celery-beat.")
        parser.add_argument("--database", default="default", help="The database that has those tables.")

    def handle(self, *, dry_run: bool, update: bool, database: str, **_: Any) -> None:
        """Do it: all or nothing."""
        check_own_table()
        there = dict(PeriodicTask.objects.values_list("name", "pk"))
        new: list[PeriodicTask] = []
        changed: list[PeriodicTask] = []
        left = refused = 0
        try:
            for row in read(database):
                key = there.get(row["name"])
                if key is not None and not update:
                    left += 1
                    continue
                try:
                    task = convert(row)
                except CannotConvertError as exc:
                    refused += 1
                    self.stderr.write(f"{row['name']!r} is not taken over: {str(exc).rstrip('.')}.")
                    continue
                task.pk = key
                (new if key is None else changed).append(task)
        except NoTablesError as exc:
            raise CommandError(str(exc)) from exc
        if not dry_run:
            save(new, changed)
        would = "would be " if dry_run else ""
        self.stdout.write(
            f"{len(new)} {would}taken over, {len(changed)} {would}updated, {left} left as they are, {refused} cannot be taken over."
        )


def check_own_table() -> None:
    """Say what to do if the table that is to take them is not there.

    Raises:
        CommandError: it is not.
    """
    using, table = router.db_for_write(PeriodicTask), PeriodicTask._meta.db_table  # noqa: SLF001 - public, in spite of its name
    if table not in connections[using].introspection.table_names():
        raise CommandError(f"The database {using!r} has no table {table} yet. Make it with: python manage.py migrate umbel_periodic")


def save(new: list[PeriodicTask], changed: list[PeriodicTask]) -> None:
    """Write them in one transaction."""
    with transaction.atomic(using=router.db_for_write(PeriodicTask)):
        PeriodicTask.objects.bulk_create(new, batch_size=BATCH)
        fields = [column for column in COLUMNS if column not in ("pk", "name")] + ["description"]
        PeriodicTask.objects.bulk_update(changed, fields, batch_size=BATCH)
