"""The table of periodic tasks, and the list of edits that schedulers follow."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator  # type: ignore[import-untyped]
from django.db import models  # type: ignore[import-untyped]
from django.utils import timezone  # type: ignore[import-untyped]
from django.utils.translation import gettext_lazy as _  # type: ignore[import-untyped]

from umbel.contrib.django.periodic import edits

__all__ = ["Edit", "PeriodicTask"]

HIGHEST_PRIORITY = 255


def this_second() -> datetime:
    """Return the time without its fraction: runs are named by it."""
    now: datetime = timezone.now()
    return now.replace(microsecond=0)


class PeriodicTaskQuerySet(models.QuerySet):  # type: ignore[misc]  # Django has no types
    """Changes of many rows in one statement send no signals, so they are noted here."""

    def update(self, **kwargs: Any) -> int:
        """Update rows, and note which."""
        if kwargs.get("enabled") is True:
            off = models.When(enabled=False, then=models.Value(this_second()))
            since = models.Case(off, default=models.F("since"), output_field=models.DateTimeField())
            kwargs = {"since": since, **kwargs}  # first: MySQL assigns in this order, and what follows sees what was assigned
        kwargs.setdefault("changed", timezone.now())
        touched = list(self.order_by().values_list("pk", flat=True)[: edits.MOST + 1])
        changed: int = super().update(**kwargs)
        edits.note(touched, using=self.db)
        return changed

    update.alters_data = True  # type: ignore[attr-defined]  # no template calls it

    def bulk_create(self, objs: Iterable[PeriodicTask], *args: Any, **kwargs: Any) -> list[PeriodicTask]:
        """Create rows, and note which."""
        created: list[PeriodicTask] = super().bulk_create(objs, *args, **kwargs)
        edits.note([task.pk for task in created], using=self.db)
        return created

    bulk_create.alters_data = True  # type: ignore[attr-defined]


class PeriodicTask(models.Model):  # type: ignore[misc]  # Django has no types
    """One periodic task: what is sent when."""

    class Kind(models.TextChoices):  # type: ignore[misc]
        """How a schedule is said."""

        INTERVAL = "interval", _("at intervals")
        CRONTAB = "crontab", _("by the calendar (cron)")
        CLOCKED = "clocked", _("once, at a fixed time")

    class Unit(models.TextChoices):  # type: ignore[misc]
        """Of an interval."""

        SECONDS = "seconds", _("seconds")
        MINUTES = "minutes", _("minutes")
        HOURS = "hours", _("hours")
        DAYS = "days", _("days")

    class Misfire(models.TextChoices):  # type: ignore[misc]
        """What becomes of runs that were missed."""

        ONCE = "once", _("run once for all of them")
        SKIP = "skip", _("leave out those older than the grace time")
        ALL = "all", _("run each of them")

    class Overlap(models.TextChoices):  # type: ignore[misc]
        """What is done if the run before has not ended."""

        ALLOW = "allow", _("run beside it")
        SKIP = "skip", _("leave this run out")
        QUEUE = "queue", _("wait until it has ended")
        REPLACE = "replace", _("revoke it and run")

    name = models.CharField(_("name"), max_length=200, unique=True, help_text=_("Runs and logs bear it. A renamed task begins anew."))
    task = models.CharField(_("task"), max_length=200, help_text=_("The name of the task, such as reports.tasks.make."))
    description = models.TextField(_("description"), blank=True)
    enabled = models.BooleanField(_("enabled"), default=True, db_index=True)

    kind = models.CharField(_("runs"), max_length=16, choices=Kind.choices, default=Kind.INTERVAL)
    every = models.DecimalField(
        _("every"), max_digits=16, decimal_places=6, null=True, blank=True, validators=[MinValueValidator(Decimal("0.000001"))],
    )  # fmt: skip
    unit = models.CharField(_("unit"), max_length=16, choices=Unit.choices, default=Unit.MINUTES)
    crontab = models.CharField(
        _("crontab"), max_length=700, blank=True,
        help_text=_("Minute, hour, day of month, month, day of week: 30 9 * * mon-fri is 9:30 on weekdays."),
    )  # fmt: skip
    timezone = models.CharField(
        _("time zone"), max_length=64, blank=True, help_text=_("Of the crontab. Empty: that of the app (CELERY_TIMEZONE).")
    )
    clocked_at = models.DateTimeField(_("at"), null=True, blank=True)

    args = models.JSONField(_("arguments"), default=list, blank=True, help_text=_('A JSON list, such as [1, "two"].'))
    kwargs = models.JSONField(_("keyword arguments"), default=dict, blank=True, help_text=_('A JSON object, such as {"user": 1}.'))

    queue = models.CharField(_("queue"), max_length=200, blank=True, help_text=_("Empty: where the task goes otherwise."))
    priority = models.PositiveSmallIntegerField(
        _("priority"), null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(HIGHEST_PRIORITY)]
    )
    expires = models.FloatField(
        _("expires after"), null=True, blank=True, validators=[MinValueValidator(0)],
        help_text=_("Seconds after which a run that no worker has begun is dropped."),
    )  # fmt: skip
    headers = models.JSONField(_("headers"), default=dict, blank=True)
    options = models.JSONField(
        _("more options"), default=dict, blank=True, help_text=_('Of apply_async, as a JSON object, such as {"routing_key": "mail"}.')
    )

    one_off = models.BooleanField(_("one-off"), default=False, help_text=_("Run only once."))
    max_runs = models.PositiveIntegerField(
        _("most runs"), null=True, blank=True, validators=[MinValueValidator(1)], help_text=_("In all. Empty: without end.")
    )
    starts = models.DateTimeField(_("starts"), null=True, blank=True, help_text=_("Nothing runs before."))
    ends = models.DateTimeField(_("ends"), null=True, blank=True, help_text=_("Nothing runs after."))
    misfire = models.CharField(_("missed runs"), max_length=8, choices=Misfire.choices, default=Misfire.ONCE)
    grace = models.FloatField(
        _("grace time"), null=True, blank=True, validators=[MinValueValidator(0)],
        help_text=_("Seconds after which a missed run is left out."),
    )  # fmt: skip
    overlap = models.CharField(
        _("if the run before goes on"), max_length=8, choices=Overlap.choices, default=Overlap.ALLOW,
        help_text=_("All but the first need a result backend."),
    )  # fmt: skip
    jitter = models.FloatField(
        _("jitter"), default=0, blank=True, validators=[MinValueValidator(0)], help_text=_("Seconds by which a run is late at most.")
    )

    since = models.DateTimeField(_("switched on"), null=True, blank=True, editable=False, default=this_second)
    last_run_at = models.DateTimeField(_("last run elsewhere"), null=True, blank=True, editable=False)
    created = models.DateTimeField(_("created"), auto_now_add=True)
    changed = models.DateTimeField(_("changed"), auto_now=True)

    _was_enabled = True  # as it was read

    objects = PeriodicTaskQuerySet.as_manager()

    class Meta:
        """Names, order, and who may run tasks beside their schedule."""

        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")
        ordering: ClassVar = ["name"]
        permissions: ClassVar = [("run_periodictask", "Can run periodic tasks now")]

    def __str__(self) -> str:
        return str(self.name)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save it. What was missed while it was off is not made up for."""
        if self.enabled and not self._was_enabled:
            self.since = this_second()
            if kwargs.get("update_fields") is not None:
                kwargs["update_fields"] = {*kwargs["update_fields"], "since"}
        super().save(*args, **kwargs)
        self._was_enabled = self.enabled

    @classmethod
    def from_db(cls, db: Any, field_names: Any, values: Any) -> PeriodicTask:
        """Make the object of a row, and remember whether it was on."""
        task: PeriodicTask = super().from_db(db, field_names, values)
        task._was_enabled = task.__dict__.get("enabled", True)
        return task

    def clean(self) -> None:
        """Make the real entry of it: what the scheduler would refuse is said at the field."""
        from umbel.contrib.django.periodic.checking import check

        check(self)


class Edit(models.Model):  # type: ignore[misc]  # Django has no types
    """Which row has changed, for schedulers: written when the change is committed."""

    task = models.BigIntegerField(null=True)  # its key, not a foreign one, as it may be gone; None: too many to name

    class Meta:
        """Nobody chooses it."""

        default_permissions: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return f"{self.task}"
