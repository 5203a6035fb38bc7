"""Whether a row can be an entry: said at the field that is wrong, in the language of who reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC
from typing import Any, Final

from django.core.exceptions import ValidationError  # type: ignore[import-untyped]
from django.utils.translation import gettext as _  # type: ignore[import-untyped]
from django.utils.translation import gettext_lazy

from umbel.contrib.django.periodic.documents import aware, entry, schedule
from umbel.cron import expand
from umbel.current import get_current_app
from umbel.exceptions import ImproperlyConfigured
from umbel.ids import is_name
from umbel.schedules import ParseException, from_dict
from umbel.schedules.base import own_zone
from umbel.schedules.crontab import IN_CRON

__all__ = ["check"]

JSON: Final = (("args", list), ("kwargs", dict), ("headers", dict), ("options", dict))
ALLOWED: Final = {  # of a crontab: what each field is, and what may be in it
    "minute": (gettext_lazy("Minute"), "0-59"),
    "hour": (gettext_lazy("Hour"), "0-23"),
    "day_of_month": (gettext_lazy("Day of month"), "1-31"),
    "month_of_year": (gettext_lazy("Month"), "1-12, jan-dec"),
    "day_of_week": (gettext_lazy("Day of week"), "0-6, sun-sat"),
}


def check(task: Any) -> None:
    """Refuse what cannot be scheduled.

    Raises:
        ValidationError: the texts, by field.
    """
    if task.jitter is None:
        task.jitter = 0
    wrong = dict([*wrong_names(task), *wrong_documents(task), *wrong_times(task), *wrong_schedule(task)])
    if wrong:
        raise ValidationError(wrong)
    app = get_current_app()
    if task.overlap != "allow" and not app.conf.result_backend:
        text = _("Whether the run before has ended is known from its result: set CELERY_RESULT_BACKEND, or choose the first.")
        raise ValidationError({"overlap": text})
    if task.kind == "interval" and task.every <= 0:
        return  # the field says it
    try:
        entry(task, app)
    except (TypeError, ValueError, ImproperlyConfigured) as exc:
        raise ValidationError(str(exc)) from exc


def wrong_names(task: Any) -> Iterator[tuple[str, str]]:
    """Yield what logs and brokers could not bear."""
    for field in ("name", "task"):
        if getattr(task, field) and not is_name(getattr(task, field)):
            yield field, _("There is a character in it that cannot be printed.")


def wrong_documents(task: Any) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with what is written as JSON."""
    for field, kind in JSON:
        if getattr(task, field) in (None, ""):
            setattr(task, field, kind())
        if not isinstance(getattr(task, field), kind):
            yield field, _("Write a JSON list, such as [1, 2].") if kind is list else _('Write a JSON object, such as {"user": 1}.')
            continue
        try:
            json.dumps(getattr(task, field), allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            yield field, _("This cannot be written as JSON, and not be sent: %(problem)s") % {"problem": exc}


def wrong_times(task: Any) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with moments."""
    for field in ("clocked_at", "starts", "ends"):
        moment = getattr(task, field)
        try:
            if moment is not None and aware(moment).astimezone(UTC).timestamp() < 0:
                yield field, _("Write a time after 1970.")
        except (OverflowError, ValueError):
            yield field, _("Write a time after 1970.")
    if task.starts is not None and task.ends is not None and task.ends < task.starts:
        yield "ends", _("It ends before it starts.")


def wrong_schedule(task: Any) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with its schedule."""
    try:
        own_zone(task.timezone or None)
    except ValueError:
        text = _("This system knows no time zone %(zone)s. Write a name such as Europe/Berlin.")
        yield "timezone", text % {"zone": task.timezone}
    if task.kind == "crontab":
        if text := wrong_crontab(task.crontab):
            yield "crontab", text
    elif task.kind == "interval":
        if text := wrong_interval(task):
            yield "every", text
    elif task.kind == "clocked" and task.clocked_at is None:
        yield "clocked_at", _("It is to run once, and has no time. Say when.")


def wrong_crontab(line: str) -> str:
    """Return what is wrong with a line of cron."""
    fields = line.split()
    if len(fields) != len(IN_CRON):
        text = _("Write five fields with spaces between: minute, hour, day of month, month, day of week. Here are %(count)d.")
        return str(text % {"count": len(fields)})
    for name, said in zip(IN_CRON, fields, strict=True):
        try:
            expand(said, name)
        except (ValueError, ParseException):
            field, allowed = ALLOWED[name]
            text = _("%(field)s cannot be %(said)s. It may be %(allowed)s; * is each, 1,3 are some, 1-5 is a range, */5 is each fifth.")
            return str(text % {"field": field, "said": said, "allowed": allowed})
    try:
        from_dict({"kind": "crontab", **dict(zip(IN_CRON, fields, strict=True))})
    except ValueError:
        return str(_("None of these months has such a day: this would never run."))
    return ""


def wrong_interval(task: Any) -> str:
    """Return what is wrong with an interval; that it is above zero is said elsewhere."""
    if task.every is None:
        return str(_("It is to run at intervals, and has none. Say how long."))
    try:
        from_dict(schedule(task))
    except ValueError:
        return str(_("This is too long."))
    return ""
