"""Periodic tasks in Django's admin."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from typing import Any
from zoneinfo import available_timezones

from django.contrib import admin, messages  # type: ignore[import-untyped]
from django.utils.html import format_html, format_html_join  # type: ignore[import-untyped]
from django.utils.safestring import SafeString  # type: ignore[import-untyped]
from django.utils.translation import gettext  # type: ignore[import-untyped]
from django.utils.translation import gettext_lazy as _

from django import forms  # type: ignore[import-untyped]
from umbel.beat.sending import Run, send_now
from umbel.contrib.django.periodic.documents import entry
from umbel.contrib.django.periodic.known import Known, know
from umbel.contrib.django.periodic.models import PeriodicTask, this_second
from umbel.contrib.django.periodic.words import in_words, moment
from umbel.current import get_current_app

__all__ = ["PeriodicTaskAdmin"]

logger = logging.getLogger("celery.django")

MOST_AT_ONCE = 100  # tasks that one action runs
NEXT = 5
LONGEST_RESULT = 1000  # characters
NOTHING = "-"


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


class PeriodicTaskForm(forms.ModelForm):  # type: ignore[misc]
    """The form of one."""

    class Meta:
        """Suggestions."""

        model = PeriodicTask
        fields = "__all__"  # noqa: DJ007 - the admin chooses them
        widgets = {"task": Suggesting(task_names), "timezone": Suggesting(zones)}  # noqa: RUF012 - Django's


@admin.register(PeriodicTask)  # type: ignore[untyped-decorator, unused-ignore]
class PeriodicTaskAdmin(admin.ModelAdmin):  # type: ignore[misc]
    """The list and the form."""

    form = PeriodicTaskForm
    list_display = ("name", "task", "in_words", "enabled", "last_run", "next_run")
    list_filter = ("enabled", "kind")
    search_fields = ("name", "task")
    show_full_result_count = False  # it would count the whole table once more
    actions = ("enable", "disable", "run_now")
    save_as = True
    readonly_fields = ("last_run", "last_result", "runs", "next_runs", "since", "created", "changed")
    fieldsets = (
        (None, {"fields": ("name", "task", "description", "enabled")}),
        (
            _("Schedule"),
            {
                "fields": ("kind", ("every", "unit"), ("crontab", "timezone"), "clocked_at"),
                "description": _("Say how it runs, and fill in what belongs to that."),
            },
        ),
        (_("Arguments"), {"fields": ("args", "kwargs")}),
        (
            _("Runs"),
            {
                "fields": ("one_off", "max_runs", "starts", "ends", ("misfire", "grace"), "overlap", "jitter"),
                "classes": ("collapse",),
            },
        ),
        (_("Message"), {"fields": ("queue", "priority", "expires", "headers", "options"), "classes": ("collapse",)}),
        (_("What is known"), {"fields": readonly_fields}),
    )

    # --- what is known of them

    def get_changelist_instance(self, request: Any) -> Any:
        """Ask what is known of a whole page at once."""
        page = super().get_changelist_instance(request)
        tasks = list(page.result_list)
        known, problem = know(get_current_app(), tasks)
        for task in tasks:
            task.known = known[task.name]
        page.result_list = tasks
        self._tell(request, problem)
        return page

    def get_object(self, request: Any, object_id: str, from_field: str | None = None) -> Any:
        """Ask what is known of one."""
        task = super().get_object(request, object_id, from_field)
        if task is not None and request.method == "GET":
            known, problem = know(get_current_app(), [task], following=NEXT)
            task.known = known[task.name]
            self._tell(request, problem)
        return task

    def _tell(self, request: Any, problem: str) -> None:
        if problem:
            self.message_user(request, gettext("Last runs are not shown: %(problem)s") % {"problem": problem}, messages.WARNING)

    @admin.display(description=_("schedule"))  # type: ignore[untyped-decorator, unused-ignore]
    def in_words(self, task: PeriodicTask) -> str:
        """Say when it runs."""
        return in_words(task)

    @admin.display(description=_("last run"))  # type: ignore[untyped-decorator, unused-ignore]
    def last_run(self, task: PeriodicTask) -> str:
        """Say when it ran last, and how that ended."""
        known = known_of(task)
        return NOTHING if known.last is None else f"{moment(known.last)} {known.state}"

    @admin.display(description=_("last result"))  # type: ignore[untyped-decorator, unused-ignore]
    def last_result(self, task: PeriodicTask) -> str:
        """Show the id of the last task, and what came of it."""
        known = known_of(task)
        if not known.id:
            return NOTHING
        outcome = ""
        try:
            outcome = "" if known.state in ("", "PENDING", "UNKNOWN") else repr(known.result.result)
        except Exception as exc:  # noqa: BLE001 - whatever a class of the result's does
            outcome = str(exc)
        return str(format_html("<code>{}</code><br>{} {}", known.id, known.state, outcome[:LONGEST_RESULT]))

    @admin.display(description=_("runs so far"))  # type: ignore[untyped-decorator, unused-ignore]
    def runs(self, task: PeriodicTask) -> int:
        """Say how often it ran."""
        return known_of(task).runs

    @admin.display(description=_("next run"))  # type: ignore[untyped-decorator, unused-ignore]
    def next_run(self, task: PeriodicTask) -> str:
        """Say when it runs next."""
        following = known_of(task).next if task.enabled else ()
        return moment(following[0]) if following else NOTHING

    @admin.display(description=_("next runs"))  # type: ignore[untyped-decorator, unused-ignore]
    def next_runs(self, task: PeriodicTask) -> str:
        """Show the next five; of one that is off, those that it would have."""
        following = known_of(task).next
        return str(format_html_join("", "{}<br>", ((moment(each),) for each in following))) or NOTHING

    # --- what is done

    def save_model(self, request: Any, obj: PeriodicTask, form: Any, change: bool) -> None:
        """Save it, and say what may not be meant."""
        super().save_model(request, obj, form, change)
        if obj.enabled and not know(get_current_app(), [obj])[0][obj.name].next:
            self.message_user(request, gettext("It has no next run: its time has passed, or it ran often enough."), messages.WARNING)
        if obj.task not in task_names():
            text = gettext("This site knows no task %(task)s. If no worker does, its runs fail.") % {"task": obj.task}
            self.message_user(request, text, messages.WARNING)

    @admin.action(description=_("Enable selected periodic tasks"), permissions=["change"])  # type: ignore[untyped-decorator, unused-ignore]
    def enable(self, request: Any, chosen: Any) -> None:
        """Switch them on."""
        count = chosen.update(enabled=True, changed=this_second())
        self.message_user(request, gettext("%(count)d periodic tasks are on.") % {"count": count}, messages.SUCCESS)

    @admin.action(description=_("Disable selected periodic tasks"), permissions=["change"])  # type: ignore[untyped-decorator, unused-ignore]
    def disable(self, request: Any, chosen: Any) -> None:
        """Switch them off."""
        count = chosen.update(enabled=False, changed=this_second())
        self.message_user(request, gettext("%(count)d periodic tasks are off.") % {"count": count}, messages.SUCCESS)

    @admin.action(description=_("Run selected periodic tasks now"), permissions=["run"])  # type: ignore[untyped-decorator, unused-ignore]
    def run_now(self, request: Any, chosen: Any) -> None:
        """Send them now, beside their schedule."""
        tasks = list(chosen[: MOST_AT_ONCE + 1])
        if len(tasks) > MOST_AT_ONCE:
            self.message_user(request, gettext("Choose at most %(count)d to run at once.") % {"count": MOST_AT_ONCE}, messages.ERROR)
            return
        for task in tasks:
            try:
                sent = run(task)
            except Exception as exc:
                logger.warning("The periodic task %s cannot be run now.", task.name, exc_info=True)
                text = gettext("Cannot run %(name)s: %(problem)s") % {"name": task.name, "problem": exc}
                self.message_user(request, text, messages.ERROR)
                continue
            self.log_change(request, task, gettext("Run now: %(id)s") % {"id": sent})
            self.message_user(request, gettext("Sent %(name)s: %(id)s") % {"name": task.name, "id": sent}, messages.SUCCESS)

    def has_run_permission(self, request: Any) -> bool:
        """Answer whether somebody may run them now."""
        return bool(request.user.has_perm("umbel_periodic.run_periodictask"))


def known_of(task: PeriodicTask) -> Known:
    """Return what was asked before; of a new one there is nothing."""
    return getattr(task, "known", None) or Known()


def run(task: PeriodicTask) -> str:
    """Send one now; return the id of the task."""
    app = get_current_app()
    return send_now(app, Run(replace(entry(task, app), overlap="allow"), this_second().timestamp()))
