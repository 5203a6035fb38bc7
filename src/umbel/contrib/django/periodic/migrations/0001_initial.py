"""The tables."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from django.core import validators  # type: ignore[import-untyped]
from django.db import migrations, models  # type: ignore[import-untyped]

import umbel.contrib.django.periodic.models


class Migration(migrations.Migration):  # type: ignore[misc]  # Django has no types
    """Periodic tasks, and notes of their edits."""

    initial = True

    dependencies: ClassVar[list[Any]] = []

    operations: ClassVar = [
        migrations.CreateModel(
            name="Edit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("task", models.BigIntegerField(null=True)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="PeriodicTask",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "name",
                    models.CharField(
                        help_text="Runs and logs bear it. A renamed task begins anew.", max_length=200, unique=True, verbose_name="name"
                    ),
                ),
                (
                    "task",
                    models.CharField(help_text="The name of the task, such as reports.tasks.make.", max_length=200, verbose_name="task"),
                ),
                ("description", models.TextField(blank=True, verbose_name="description")),
                ("enabled", models.BooleanField(db_index=True, default=True, verbose_name="enabled")),
                (
                    "kind",
                    models.CharField(
                        choices=[("interval", "at intervals"), ("crontab", "by the calendar (cron)"), ("clocked", "once, at a fixed time")],
                        default="interval",
                        max_length=16,
                        verbose_name="runs",
                    ),
                ),
                (
                    "every",
                    models.DecimalField(
                        blank=True,
                        decimal_places=6,
                        max_digits=16,
                        null=True,
                        validators=[validators.MinValueValidator(Decimal("0.000001"))],
                        verbose_name="every",
                    ),
                ),
                (
                    "unit",
                    models.CharField(
                        choices=[("seconds", "seconds"), ("minutes", "minutes"), ("hours", "hours"), ("days", "days")],
                        default="minutes",
                        max_length=16,
                        verbose_name="unit",
                    ),
                ),
                (
                    "crontab",
                    models.CharField(
                        blank=True,
                        help_text="Minute, hour, day of month, month, day of week: 30 9 * * mon-fri is 9:30 on weekdays.",
                        max_length=700,
                        verbose_name="crontab",
                    ),
                ),
                (
                    "timezone",
                    models.CharField(
                        blank=True,
                        help_text="Of the crontab. Empty: that of the app (CELERY_TIMEZONE).",
                        max_length=64,
                        verbose_name="time zone",
                    ),
                ),
                ("clocked_at", models.DateTimeField(blank=True, null=True, verbose_name="at")),
                (
                    "args",
                    models.JSONField(blank=True, default=list, help_text='A JSON list, such as [1, "two"].', verbose_name="arguments"),
                ),
                (
                    "kwargs",
                    models.JSONField(
                        blank=True, default=dict, help_text='A JSON object, such as {"user": 1}.', verbose_name="keyword arguments"
                    ),
                ),
                (
                    "queue",
                    models.CharField(blank=True, help_text="Empty: where the task goes otherwise.", max_length=200, verbose_name="queue"),
                ),
                (
                    "priority",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        null=True,
                        validators=[validators.MinValueValidator(0), validators.MaxValueValidator(255)],
                        verbose_name="priority",
                    ),
                ),
                (
                    "expires",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds after which a run that no worker has begun is dropped.",
                        null=True,
                        validators=[validators.MinValueValidator(0)],
                        verbose_name="expires after",
                    ),
                ),
                ("headers", models.JSONField(blank=True, default=dict, verbose_name="headers")),
                (
                    "options",
                    models.JSONField(
                        blank=True,
                        default=dict,
                        help_text='Of apply_async, as a JSON object, such as {"routing_key": "mail"}.',
                        verbose_name="more options",
                    ),
                ),
                ("one_off", models.BooleanField(default=False, help_text="Run only once.", verbose_name="one-off")),
                (
                    "max_runs",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="In all. Empty: without end.",
                        null=True,
                        validators=[validators.MinValueValidator(1)],
                        verbose_name="most runs",
                    ),
                ),
                ("starts", models.DateTimeField(blank=True, help_text="Nothing runs before.", null=True, verbose_name="starts")),
                ("ends", models.DateTimeField(blank=True, help_text="Nothing runs after.", null=True, verbose_name="ends")),
                (
                    "misfire",
                    models.CharField(
                        choices=[
                            ("once", "run once for all of them"),
                            ("skip", "leave out those older than the grace time"),
                            ("all", "run each of them"),
                        ],
                        default="once",
                        max_length=8,
                        verbose_name="missed runs",
                    ),
                ),
                (
                    "grace",
                    models.FloatField(
                        blank=True,
                        help_text="Seconds after which a missed run is left out.",
                        null=True,
                        validators=[validators.MinValueValidator(0)],
                        verbose_name="grace time",
                    ),
                ),
                (
                    "overlap",
                    models.CharField(
                        choices=[
                            ("allow", "run beside it"),
                            ("skip", "leave this run out"),
                            ("queue", "wait until it has ended"),
                            ("replace", "revoke it and run"),
                        ],
                        default="allow",
                        help_text="All but the first need a result backend.",
                        max_length=8,
                        verbose_name="if the run before goes on",
                    ),
                ),
                (
                    "jitter",
                    models.FloatField(
                        blank=True,
                        default=0,
                        help_text="Seconds by which a run is late at most.",
                        validators=[validators.MinValueValidator(0)],
                        verbose_name="jitter",
                    ),
                ),
                (
                    "since",
                    models.DateTimeField(
                        blank=True,
                        default=umbel.contrib.django.periodic.models.this_second,
                        editable=False,
                        null=True,
                        verbose_name="switched on",
                    ),
                ),
                ("last_run_at", models.DateTimeField(blank=True, editable=False, null=True, verbose_name="last run elsewhere")),
                ("created", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                ("changed", models.DateTimeField(auto_now=True, verbose_name="changed")),
            ],
            options={
                "verbose_name": "periodic task",
                "verbose_name_plural": "periodic tasks",
                "ordering": ["name"],
                "permissions": [("run_periodictask", "Can run periodic tasks now")],
            },
        ),
    ]
