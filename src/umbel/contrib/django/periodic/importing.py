"""Reading the tables of django-celery-beat, without that package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from django.apps.registry import Apps  # type: ignore[import-untyped]
from django.core.exceptions import ValidationError  # type: ignore[import-untyped]
from django.db import connections, models  # type: ignore[import-untyped]

from umbel.contrib.django.periodic.models import PeriodicTask, this_second

__all__ = ["CannotConvertError", "NoTablesError", "convert", "read"]

PREFIX: Final = "django_celery_beat_"
MICROSECONDS: Final = 1_000_000
CHAR, INT, WHEN = models.TextField, models.BigIntegerField, models.DateTimeField
COLUMNS: Final[Mapping[str, Mapping[str, Any]]] = {
    "intervalschedule": {"every": INT, "period": CHAR},
    "crontabschedule": {
        "minute": CHAR, "hour": CHAR, "day_of_week": CHAR, "day_of_month": CHAR, "month_of_year": CHAR, "timezone": CHAR,
    },
    "clockedschedule": {"clocked_time": WHEN},
    "solarschedule": {"event": CHAR, "latitude": models.FloatField, "longitude": models.FloatField},
    "periodictask": {
        "name": CHAR, "task": CHAR, "args": CHAR, "kwargs": CHAR, "headers": CHAR, "queue": CHAR, "exchange": CHAR, "routing_key": CHAR,
        "priority": INT, "expires": WHEN, "expire_seconds": INT, "one_off": models.BooleanField, "enabled": models.BooleanField,
        "start_time": WHEN, "last_run_at": WHEN, "date_changed": WHEN, "description": CHAR,
        "interval_id": INT, "crontab_id": INT, "clocked_id": INT, "solar_id": INT,
    },
}  # fmt: skip


class NoTablesError(Exception):
    """The database has no tables of django-celery-beat."""


class CannotConvertError(Exception):
    """A row says what a periodic task of umbel's table cannot."""


def read(using: str) -> Iterator[dict[str, Any]]:
    """Yield each of its tasks, with what it says of its schedule under `interval`, `crontab`, `clocked` or `solar`.

    Raises:
        NoTablesError: there are none.
    """
    if PREFIX + "periodictask" not in connections[using].introspection.table_names():
        raise NoTablesError(f"The database {using!r} has no tables of django-celery-beat. --database names another one.")
    schedules = {kind: {row["id"]: row for row in table(f"{kind}schedule", using)} for kind in ("interval", "crontab", "clocked", "solar")}
    for row in table("periodictask", using):
        chosen = next((kind for kind in ("interval", "crontab", "solar", "clocked") if row.get(f"{kind}_id") is not None), None)
        yield row | ({chosen: schedules[chosen].get(row[f"{chosen}_id"])} if chosen else {})


def table(name: str, using: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one of its tables: those of the columns that its version has."""
    connection = connections[using]
    if PREFIX + name not in connection.introspection.table_names():
        return
    with connection.cursor() as cursor:
        present = {column.name for column in connection.introspection.get_table_description(cursor, PREFIX + name)}
    meta = type("Meta", (), {"managed": False, "db_table": PREFIX + name, "app_label": "umbel_periodic", "apps": Apps()})
    fields = {column: make(null=True) for column, make in COLUMNS[name].items() if column in present}
    model = type(name, (models.Model,), {"__module__": __name__, "Meta": meta, **fields})
    yield from model.objects.using(using).order_by("pk").values("id", *fields).iterator()  # type: ignore[attr-defined]


def convert(row: Mapping[str, Any]) -> PeriodicTask:
    """Make a periodic task of a row, not saved.

    Raises:
        CannotConvertError: with the reason.
    """
    ran = row["last_run_at"] or row.get("date_changed")  # it counts from there, too: what is due meanwhile is not lost
    task = PeriodicTask(
        name=row["name"], task=row["task"], description=row.get("description") or "", enabled=row["enabled"],
        one_off=bool(row.get("one_off")),
        args=parsed(row, "args", list), kwargs=parsed(row, "kwargs", dict), headers=parsed(row, "headers", dict), queue=row["queue"] or "",
        options={key: row[key] for key in ("exchange", "routing_key") if row.get(key)}, priority=row.get("priority"),
        expires=row.get("expire_seconds"), starts=row.get("start_time"), ends=row["expires"], last_run_at=ran,
        since=None if ran else this_second(), **schedule_fields(row),
    )  # fmt: skip
    try:
        task.clean_fields()
        task.clean()
    except ValidationError as exc:
        raise CannotConvertError("; ".join(f"{field}: {' '.join(texts)}" for field, texts in exc.message_dict.items())) from exc
    return task


def parsed(row: Mapping[str, Any], column: str, kind: type) -> Any:
    """Return what JSON is in a column of text."""
    try:
        found = json.loads(row.get(column) or "null")
    except (ValueError, RecursionError) as exc:
        raise CannotConvertError(f"{column}: this is no JSON: {exc}") from exc
    return kind() if found is None else found


def schedule_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of its schedule."""
    if (interval := row.get("interval")) is not None:
        if interval["period"] == "microseconds":
            return {"kind": "interval", "every": Decimal(interval["every"]) / MICROSECONDS, "unit": "seconds"}
        return {"kind": "interval", "every": Decimal(interval["every"]), "unit": interval["period"]}
    if (cron := row.get("crontab")) is not None:
        fields = (cron[field].replace(" ", "") for field in ("minute", "hour", "day_of_month", "month_of_year", "day_of_week"))
        return {"kind": "crontab", "crontab": " ".join(fields), "timezone": cron.get("timezone") or ""}
    if (clocked := row.get("clocked")) is not None:
        return {"kind": "clocked", "clocked_at": clocked["clocked_time"]}
    if (sun := row.get("solar")) is not None:
        said = f"solar({sun['event']!r}, {sun['latitude']:g}, {sun['longitude']:g})"
        raise CannotConvertError(f"it runs by the sun, which this table does not say: write {said} into beat_schedule")
    raise CannotConvertError("it has no schedule")
