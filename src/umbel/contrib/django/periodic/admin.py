"""Periodic tasks in Django's admin."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, ClassVar

from django.conf import settings  # type: ignore[import-untyped]
from django.contrib import admin, messages  # type: ignore[import-untyped]
from django.contrib.admin.actions import delete_selected  # type: ignore[import-untyped]
from django.contrib.admin.models import CHANGE, LogEntry  # type: ignore[import-untyped]
from django.utils.html import format_html, format_html_join  # type: ignore[import-untyped]
from django.utils.safestring import mark_safe  # type: ignore[import-untyped]
from django.utils.translation import gettext  # type: ignore[import-untyped]
from django.utils.translation import gettext_lazy as _

from umbel.beat.sending import Run, problem_of, send_now
from umbel.contrib.django.periodic.documents import entry
from umbel.contrib.django.periodic.forms import PeriodicTaskForm, task_names
from umbel.contrib.django.periodic.known import Known, know
from umbel.contrib.django.periodic.models import PeriodicTask, this_second
from umbel.contrib.django.periodic.words import in_words, moment
from umbel.current import get_current_app

__all__ = ["PeriodicTaskAdmin"]

logger = logging.getLogger("celery.django")

MOST_AT_ONCE = 100  # tasks that one action runs
OTHER_FIELDS = 10  # of a form that confirms deletions, beside one for each task
NEXT = 5
LONGEST_RESULT = 1000  # characters
NOTHING = "-"


@admin.register(PeriodicTask)  # type: ignore[untyped-decorator, unused-ignore]
class PeriodicTaskAdmin(admin.ModelAdmin):  # type: ignore[misc]
    """The list and the form."""

    form = PeriodicTaskForm
    list_display = ("name", "task_in_parts", "in_words", "enabled", "last_run", "next_run")
    list_filter = ("enabled", "kind")
    search_fields = ("name", "task")
    show_full_result_count = False  # it would count the whole table once more
    actions = ("enable", "disable", "run_now", "delete_selected")
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
            _("Further rules"),
            {
                "fields": ("one_off", "max_runs", "starts", "ends", ("misfire", "grace"), "overlap", "jitter"),
                "classes": ("collapse",),
            },
        ),
        (_("Message"), {"fields": ("queue", "priority", "expires", "headers", "options"), "classes": ("collapse",)}),
        (_("What is known"), {"fields": readonly_fields}),
    )

    class Media:
        """What hides the fields of other kinds of schedules; without it all are there."""

        js: ClassVar = ["umbel_periodic/schedule.js"]

    def get_fieldsets(self, request: Any, obj: Any = None) -> Any:
        """Leave out what is known of a task that is not there yet; and, for who may only look, what a form sends back."""
        shown = self.fieldsets[:-1] if obj is None else self.fieldsets
        if obj is None or self.has_change_permission(request, obj):
            return [(None, {"fields": (*shown[0][1]["fields"], "seen")}), *shown[1:]]
        return shown

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
        if task is not None:
            known, problem = know(get_current_app(), [task], following=NEXT)
            task.known = known[task.name]
            self._tell(request, problem)
        return task

    def _tell(self, request: Any, problem: str) -> None:
        if problem:
            self.message_user(request, gettext("Last runs are not shown: %(problem)s") % {"problem": problem}, messages.WARNING)

    @admin.display(description=_("task"), ordering="task")  # type: ignore[untyped-decorator, unused-ignore]
    def task_in_parts(self, task: PeriodicTask) -> Any:
        """Show the name of the task so that it may be broken at its dots: it is the longest in the list."""
        return format_html_join(mark_safe(".<wbr>"), "{}", ((part,) for part in task.task.split(".")))

    @admin.display(description=_("schedule"))  # type: ignore[untyped-decorator, unused-ignore]
    def in_words(self, task: PeriodicTask) -> str:
        """Say when it runs."""
        return in_words(task)

    @admin.display(description=_("last run"))  # type: ignore[untyped-decorator, unused-ignore]
    def last_run(self, task: PeriodicTask) -> str:
        """Say when it ran last, and how that ended."""
        known = known_of(task)
        return NOTHING if known.last is None else format_html("{} {}", whole(known.last), known.state)

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
        return whole(following[0]) if following else NOTHING

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
        self._warn(request, obj)

    def render_change_form(self, request: Any, context: Any, *args: Any, obj: Any = None, **kwargs: Any) -> Any:
        """Show the form, and say first why its runs are not sent, if they are not."""
        if obj is not None and request.method == "GET":
            self._warn(request, obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def _warn(self, request: Any, task: PeriodicTask) -> None:
        app = get_current_app()
        try:
            problem = problem_of(app, entry(task, app))
        except Exception as exc:  # noqa: BLE001 - a row that no form has seen
            problem = str(exc)
        if problem:
            self.message_user(request, gettext("It cannot be sent: %(problem)s") % {"problem": problem}, messages.WARNING)

    @admin.action(description=_("Enable selected periodic tasks"), permissions=["change"])  # type: ignore[untyped-decorator, unused-ignore]
    def enable(self, request: Any, chosen: Any) -> None:
        """Switch them on."""
        count = switch(request, chosen, enabled=True)
        self.message_user(request, gettext("%(count)d periodic tasks are on.") % {"count": count}, messages.SUCCESS)

    @admin.action(description=_("Disable selected periodic tasks"), permissions=["change"])  # type: ignore[untyped-decorator, unused-ignore]
    def disable(self, request: Any, chosen: Any) -> None:
        """Switch them off."""
        count = switch(request, chosen, enabled=False)
        self.message_user(request, gettext("%(count)d periodic tasks are off.") % {"count": count}, messages.SUCCESS)

    @admin.action(description=delete_selected.short_description, permissions=["delete"])  # type: ignore[untyped-decorator, unused-ignore]
    def delete_selected(self, request: Any, chosen: Any) -> Any:
        """Delete them, but no more than what Django takes when it is confirmed: it would answer `Bad Request`, and no more."""
        most = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
        if most is not None and chosen.count() > most - OTHER_FIELDS:
            text = gettext("Choose at most %(count)d to delete at once.") % {"count": most - OTHER_FIELDS}
            self.message_user(request, text, messages.ERROR)
            return None
        return delete_selected(self, request, chosen)

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


def whole(when: Any) -> Any:
    """Write a moment whose day and time are each broken nowhere, as the columns of a list are narrow."""
    day, time = moment(when).split(" ", 1)
    return format_html('<span class="nowrap">{}</span> <span class="nowrap">{}</span>', day, time)


def switch(request: Any, chosen: Any, *, enabled: bool) -> int:
    """Switch tasks on or off, and log it of those that were not so; return how many were chosen."""
    others = list(chosen.filter(enabled=not enabled).only("name"))
    count: int = chosen.update(enabled=enabled)
    text = gettext("Switched on.") if enabled else gettext("Switched off.")
    LogEntry.objects.log_actions(request.user.pk, others, CHANGE, text)
    return count


def run(task: PeriodicTask) -> str:
    """Send one now; return the id of the task."""
    app = get_current_app()
    return send_now(app, Run(replace(entry(task, app), overlap="allow"), this_second().timestamp()))
