"""Schedules in words, in the language of who reads."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.utils import timezone  # type: ignore[import-untyped]
from django.utils.translation import get_language, gettext_noop  # type: ignore[import-untyped]
from django.utils.translation import gettext as _

from umbel.contrib.django.periodic.documents import aware, schedule
from umbel.schedules import ParseException, from_dict

__all__ = ["in_words", "moment"]

ONE: Final = {
    "seconds": gettext_noop("every second"), "minutes": gettext_noop("every minute"), "hours": gettext_noop("every hour"),
    "days": gettext_noop("every 24 hours"),
}  # fmt: skip
MANY: Final = {
    "seconds": gettext_noop("every %(count)s seconds"), "minutes": gettext_noop("every %(count)s minutes"),
    "hours": gettext_noop("every %(count)s hours"), "days": gettext_noop("every %(count)s days"),
}  # fmt: skip


def in_words(task: Any) -> str:
    """Say when it runs. A crontab is in words in English, and elsewhere as it is written."""
    try:
        said = schedule(task)
        if task.kind == "interval":
            count = f"{task.every.normalize():f}"
            return str(_(ONE[task.unit]) if count == "1" else _(MANY[task.unit]) % {"count": count})
        if task.kind == "clocked":
            return str(_("once, at %(moment)s") % {"moment": moment(task.clocked_at)})
        if (get_language() or "en").startswith("en"):
            return from_dict(said).describe()
        return f"{task.crontab} ({task.timezone})" if task.timezone else str(task.crontab)
    except (TypeError, ValueError, KeyError, ParseException):
        return str(_("unusable"))


def moment(when: datetime) -> str:
    """Write a moment in the zone of who reads."""
    return str(timezone.localtime(aware(when)).strftime("%Y-%m-%d %H:%M:%S %Z"))
