"""The form of a periodic task: what is written into its fields, and what helps to write it."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import available_timezones

from django.core.exceptions import ValidationError  # type: ignore[import-untyped]
from django.utils.html import format_html, format_html_join  # type: ignore[import-untyped]
from django.utils.safestring import SafeString  # type: ignore[import-untyped]
from django.utils.translation import gettext as _  # type: ignore[import-untyped]

from django import forms  # type: ignore[import-untyped]
from umbel.contrib.django.periodic.models import PeriodicTask
from umbel.contrib.django.periodic.words import moment
from umbel.current import get_current_app

__all__ = ["PeriodicTaskForm", "task_names"]

logger = logging.getLogger("celery.django")


class Suggesting(forms.TextInput):  # type: ignore[misc]  # Django has no types
    """A field for text that suggests what it may be."""

    def __init__(self, suggested: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._suggested = suggested

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        """Write it as HTML."""
        known = f"known-{name}"
        field = super().render(name, value, {**(attrs or {}), "list": known, "class": "vTextField", "autocomplete": "off"}, renderer)
        options = format_html_join("", '<option value="{}"></option>', ((each,) for each in self._suggested()))
        return format_html('{}<datalist id="{}">{}</datalist>', field, known, options)


@lru_cache(maxsize=1)
def zones() -> list[str]:
    """Return the names of all time zones."""
    return sorted(available_timezones())


@lru_cache(maxsize=1)
def load_tasks() -> None:
    """Import the modules that define tasks, once: a site does so only when it sends one."""
    try:
        get_current_app().import_default_modules()
    except Exception:
        logger.warning("Not all tasks can be suggested, as a module of them cannot be imported.", exc_info=True)


def task_names() -> list[str]:
    """Return the names of the tasks that the site knows."""
    load_tasks()
    return sorted(name for name in get_current_app().tasks if not name.startswith("celery."))


class JSONText(forms.JSONField):  # type: ignore[misc]
    """JSON, of which is said where it is none."""

    def to_python(self, value: Any) -> Any:
        """Read it."""
        if isinstance(value, str) and value not in self.empty_values:
            try:
                json.loads(value)
            except json.JSONDecodeError as exc:
                text = _(
                    "This is no JSON: look at line %(line)d, column %(column)d. Texts stand in double quotes; it is true, false and null."
                )
                raise ValidationError(text % {"line": exc.lineno, "column": exc.colno}, code="invalid") from exc
            except RecursionError as exc:
                raise ValidationError(_("Too many brackets are in each other."), code="invalid") from exc
        return super().to_python(value)

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Show again what was written, as it was written."""
        return initial if self.disabled else forms.fields.InvalidJSONInput(data)


class Amount(forms.DecimalField):  # type: ignore[misc]
    """A number that is shown as it was written: 3, not 3.000000."""

    def prepare_value(self, value: Any) -> Any:
        """Return what is shown."""
        return f"{value.normalize():f}" if isinstance(value, Decimal) else value


class PeriodicTaskForm(forms.ModelForm):  # type: ignore[misc]
    """The form of one."""

    data: Any  # as it was sent
    seen = forms.CharField(required=False, widget=forms.HiddenInput)  # when the task that is shown was changed

    class Meta:
        """What its fields are."""

        model = PeriodicTask
        fields = "__all__"  # noqa: DJ007 - the admin chooses them
        widgets = {  # noqa: RUF012 - Django's
            "task": Suggesting(task_names),
            "timezone": Suggesting(zones),
            "description": forms.Textarea({"rows": 2, "class": "vLargeTextField"}),
            **{name: forms.Textarea({"rows": 3, "class": "vLargeTextField"}) for name in ("args", "kwargs", "headers", "options")},
        }
        field_classes = {  # noqa: RUF012 - Django's
            "every": Amount,
            **dict.fromkeys(("args", "kwargs", "headers", "options"), JSONText),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["seen"] = stamp(self.instance)

    def clean(self) -> Any:
        """Tell who saves it that somebody else has meanwhile; to save it once more writes over that."""
        cleaned = super().clean()
        now = stamp(self.instance)
        seen = self.cleaned_data.get("seen")
        if seen and now and seen != now:
            again = self.data.copy()
            again[self.add_prefix("seen")] = now
            self.data = again
            text = _(
                "Somebody has changed this task while you had it open, at %(moment)s. Open it anew to see how it is now, or save once more "
                "to write over it."
            )
            raise ValidationError(text % {"moment": moment(self.instance.changed)}, code="conflict")
        return cleaned


def stamp(task: PeriodicTask) -> str:
    """Return what differs after each change of a task; nothing of one that is not saved yet."""
    return "" if task.pk is None else str(task.changed.isoformat())
