"""Whether a row can be an entry: said at the field that is wrong, in the words of the scheduler."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError  # type: ignore[import-untyped]
from django.utils.translation import gettext as _  # type: ignore[import-untyped]

from umbel.contrib.django.periodic.documents import entry, schedule
from umbel.current import get_current_app
from umbel.exceptions import ImproperlyConfigured
from umbel.schedules import from_dict
from umbel.schedules.base import own_zone

__all__ = ["check"]

FIELDS = {"interval": "every", "crontab": "crontab", "clocked": "clocked_at"}


def check(task: Any) -> None:
    """Refuse what cannot be scheduled.

    Raises:
        ValidationError: the texts, by field.
    """
    wrong: dict[str, str] = {}
    for field, kind, text in (
        ("args", list, _("Write a JSON list, such as [1, 2].")),
        ("kwargs", dict, _('Write a JSON object, such as {"user": 1}.')),
        ("headers", dict, _('Write a JSON object, such as {"user": 1}.')),
        ("options", dict, _('Write a JSON object, such as {"user": 1}.')),
    ):
        if getattr(task, field) in (None, ""):
            setattr(task, field, kind())
        if not isinstance(getattr(task, field), kind):
            wrong[field] = text
    if task.jitter is None:
        task.jitter = 0
    if task.starts is not None and task.ends is not None and task.ends < task.starts:
        wrong["ends"] = _("It ends before it starts.")
    wrong |= wrong_schedule(task)
    if not wrong:
        try:
            entry(task, get_current_app())
        except (TypeError, ValueError, ImproperlyConfigured) as exc:
            raise ValidationError(str(exc)) from exc
    else:
        raise ValidationError(wrong)


def wrong_schedule(task: Any) -> dict[str, str]:
    """Return what is wrong with its schedule, by field."""
    try:
        own_zone(task.timezone or None)
    except ValueError as exc:
        return {"timezone": str(exc)}
    if task.kind not in FIELDS:
        return {}  # the field says it
    try:
        from_dict(schedule(task))
    except (TypeError, ValueError) as exc:
        return {FIELDS[task.kind]: str(exc)}
    return {}
