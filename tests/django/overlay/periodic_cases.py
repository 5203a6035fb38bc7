"""Cases for `manage.py test`, with Django's own client: the admin of periodic tasks, and what the model refuses."""

import ast
import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from gettext import GNUTranslations
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection, models, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from mysite.celery import app

from umbel.backend import Record
from umbel.beat.planning import begin, plan, slot_id
from umbel.beat.sending import run_id
from umbel.beat.stores import open_schedules
from umbel.contrib.django import periodic
from umbel.contrib.django.periodic.documents import entry
from umbel.contrib.django.periodic.following import KEPT
from umbel.contrib.django.periodic.forms import PeriodicTaskForm
from umbel.contrib.django.periodic.models import Edit, PeriodicTask
from umbel.contrib.django.periodic.store import TableStore
from umbel.drivers.memory import MemorySchedules
from umbel.ids import uuid
from umbel.schedule_store import Row, State
from umbel.testing.conformance.schedules import Follower

LIST = "/admin/umbel_periodic/periodictask/"
ADD = "myapp_infra.tasks.add"
FORM = {
    "name": "adds", "task": ADD, "enabled": "on", "kind": "interval", "every": "5", "unit": "minutes", "crontab": "", "timezone": "",
    "clocked_at_0": "", "clocked_at_1": "", "args": "[1, 2]", "kwargs": "{}", "headers": "{}", "options": "{}", "misfire": "once",
    "overlap": "allow", "jitter": "0",
}  # fmt: skip


def made(name="adds", **said):
    return PeriodicTask.objects.create(**{"name": name, "task": ADD, "args": [1, 2], "every": 5, **said})


def made_before(name="adds", **said):
    """One that was made a minute ago, so that it may have run."""
    task = made(name, **said)
    models.QuerySet(PeriodicTask).filter(pk=task.pk).update(created=task.created - timedelta(minutes=1))
    return task


def ran(name, runs=3):
    """As if a scheduler had sent it."""
    slot = float(int(time.time()) - 10)
    with closing(open_schedules(app)) as store:
        store.remove([name])
        assert store.advance([State(name, slot, runs, slot_id(name, slot))], fence=int(time.time()))
    return run_id(app, slot_id(name, slot))


def stored(id, result):
    """As if a worker had run it."""
    meta = {"status": "SUCCESS", "result": result, "traceback": None, "children": [], "date_done": None, "task_id": id}
    app.backend.store([Record(id=id, state="SUCCESS", meta=json.dumps(meta).encode())])


class Admin(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.boss = User.objects.create_superuser("boss", "boss@example.com")

    def setUp(self):
        self.client.force_login(self.boss)

    def form(self, url=LIST + "add/", **said):
        answer = self.client.post(url, {**FORM, **said})
        return {} if answer.status_code == 302 else dict(answer.context["adminform"].form.errors)

    def errors(self, **said):
        """What a form says of itself, without a page around it."""
        return PeriodicTaskForm({**FORM, **said}).errors

    def act(self, action, *tasks, **headers):
        return self.client.post(LIST, {"action": action, "_selected_action": [task.pk for task in tasks]}, follow=True, headers=headers)

    def test_a_form_makes_a_task(self):
        assert self.form() == {}
        task = PeriodicTask.objects.get()
        assert (task.name, task.every, task.args, task.enabled) == ("adds", 5, [1, 2], True)

    def test_what_cannot_be_scheduled_is_said_at_the_field(self):
        cases = {
            "crontab": {"kind": "crontab", "crontab": "61 * * * *"},
            "every": {"every": ""},
            "clocked_at": {"kind": "clocked"},
            "timezone": {"kind": "crontab", "crontab": "* * * * *", "timezone": "Mars/Olympus"},
            "args": {"args": '{"x": 1}'},
            "kwargs": {"kwargs": "[1]"},
            "ends": {"starts_0": "2027-01-02", "starts_1": "00:00", "ends_0": "2027-01-01", "ends_1": "00:00"},
            "priority": {"priority": "256"},
        }
        for field, said in cases.items():
            with self.subTest(field):
                assert list(self.form(**said)) == [field]
        assert PeriodicTask.objects.count() == 0

    def test_text_that_is_no_json_is_refused_and_the_place_is_said(self):
        assert "look at line 2, column 1." in self.errors(args="[1,\r\n}")["args"][0]
        assert "\\ud800" in self.client.post(LIST + "add/", {**FORM, "args": '["\\ud800"]'}).content.decode()
        for said in ("[1,", "{'x': 1}", "[True]", "[NaN]", "[1e999]", '["\\ud800"]', "[" * 20000):
            with self.subTest(said[:20]):
                assert list(self.errors(args=said)) == ["args"]

    def test_a_wrong_crontab_is_refused_and_its_field_is_named(self):
        cases = {
            "61 * * * *": "Minute cannot be 61. It may be 0-59;", "0 24 * * *": "Hour cannot be 24.", "1,, * * * *": "Minute cannot be 1,,",
            "*/ * * * *": "Minute cannot be */.", "-5 * * * *": "Minute cannot be -5.", "* * 0 * *": "Day of month cannot be 0.",
            "* * * 13 *": "Month cannot be 13.", "* * * * 7": "Day of week cannot be 7. It may be 0-6, sun-sat;", "* * *": "Here are 3.",
            "": "Here are 0.", "@daily": "Here are 1.", "0 0 31 2 *": "None of these months has such a day",
        }  # fmt: skip
        for line, said in cases.items():
            with self.subTest(line):
                assert said in self.errors(kind="crontab", crontab=line)["crontab"][0]

    def test_times_and_numbers_beyond_what_can_be_counted_are_refused(self):
        year = {"clocked_at_0": "0001-01-01", "clocked_at_1": "00:00"}
        assert list(self.errors(kind="clocked", **year)) == ["clocked_at"]
        assert self.errors(every="9999999999", unit="days") == {"every": ["This is too long."]}
        for number in ("0", "-1"):
            assert len(self.errors(every=number)["every"]) == 1
        for field in ("jitter", "grace", "expires"):
            assert self.errors(name=field, **{field: "1e300"}) == {}

    def test_who_saves_what_somebody_else_has_changed_meanwhile_is_told_and_may_write_over_it(self):
        task = made()
        url = f"{LIST}{task.pk}/change/"
        seen = self.client.get(url).context["adminform"].form["seen"].value()
        PeriodicTask.objects.update(enabled=False)
        answer = self.client.post(url, {**FORM, "seen": seen, "queue": "later"})
        form = answer.context["adminform"].form
        assert "Somebody has changed this task" in form.non_field_errors()[0]
        assert not PeriodicTask.objects.get().enabled
        assert self.form(url, seen=form["seen"].value(), queue="later") == {}
        assert PeriodicTask.objects.get().queue == "later"

    def test_who_saves_a_task_whose_arguments_do_not_fit_is_warned(self):
        page = self.client.post(LIST + "add/", {**FORM, "args": "[]"}, follow=True).content.decode()
        assert "It cannot be sent: myapp_infra.tasks.add(x, y) cannot be called so: missing a required argument" in page
        page = self.client.post(LIST + "add/", {**FORM, "name": "later", "options": '{"countdown": "x"}'}, follow=True).content.decode()
        assert "It cannot be sent: " in page

    def test_the_list_says_when_each_runs_ran_and_how_that_ended(self):
        made_before("five")
        made("cron", kind="crontab", crontab="30 9 * * mon-fri", timezone="Europe/Berlin", enabled=False)
        made("once", kind="clocked", clocked_at=datetime(2030, 1, 1, tzinfo=UTC))
        ran("five")
        page = self.client.get(LIST).content.decode()
        for text in ("every 5 minutes", "(Europe/Berlin)", "once, at 2030-01-01 08:00:00", "PENDING"):
            assert text in page

    def test_the_form_shows_the_next_five_runs_and_the_last_one(self):
        task = made_before(kind="crontab", crontab="0 12 * * *")
        sent = ran("adds")
        page = self.client.get(f"{LIST}{task.pk}/change/").content.decode()
        assert page.count(">12:00:00 CST<") + page.count(" 12:00:00 CST") == 5
        assert sent in page
        assert "PENDING" in page
        assert f'<option value="{ADD}">' in page

    def test_actions_switch_off_and_on(self):
        one, other = made("one"), made("other")
        self.act("disable", one, other)
        assert set(PeriodicTask.objects.values_list("enabled", flat=True)) == {False}
        before = PeriodicTask.objects.get(name="one").since - timedelta(days=1)
        PeriodicTask.objects.update(since=before)
        self.act("enable", one)
        one.refresh_from_db()
        assert one.enabled
        assert one.since > before

    def test_who_is_on_keeps_its_times_when_it_is_switched_on(self):
        task = made()
        PeriodicTask.objects.update(since=datetime(2026, 1, 1, tzinfo=UTC))
        self.act("enable", task)
        task.refresh_from_db()
        assert task.since == datetime(2026, 1, 1, tzinfo=UTC)

    def test_whether_it_was_off_is_asked_before_it_is_switched_on(self):  # MySQL assigns from left to right
        with CaptureQueriesContext(connection) as queries:
            PeriodicTask.objects.update(enabled=True)
        [update] = [each["sql"] for each in queries if each["sql"].startswith("UPDATE")]
        assert update.index('"since" = CASE') < update.index('"enabled" = ')

    def test_who_switched_which_is_in_the_history_of_each(self):
        one, other = made("one"), made("other", enabled=False)
        self.act("disable", one, other)
        assert LogEntry.objects.filter(object_id=one.pk, change_message__contains="Switched off", user=self.boss).count() == 1
        assert LogEntry.objects.filter(object_id=other.pk).count() == 0

    def test_a_thousand_are_switched_at_once_and_more_than_can_be_confirmed_are_not_deleted(self):
        PeriodicTask.objects.bulk_create(PeriodicTask(name=f"{n}", task=ADD, every=1) for n in range(1200))
        first = PeriodicTask.objects.first()
        all_of_them = {"select_across": "1", "_selected_action": [first.pk]}
        page = self.client.post(LIST, {"action": "disable", **all_of_them}, follow=True).content.decode()
        assert "1200 periodic tasks are off." in page
        assert PeriodicTask.objects.filter(enabled=True).count() == 0
        page = self.client.post(LIST, {"action": "run_now", **all_of_them}, follow=True).content.decode()
        assert "Choose at most 100 to run at once." in page
        page = self.client.post(LIST, {"action": "delete_selected", **all_of_them}, follow=True).content.decode()
        assert "Choose at most 990 to delete at once." in page
        keys = list(PeriodicTask.objects.values_list("pk", flat=True)[:990])
        sure = {"action": "delete_selected", "_selected_action": keys, "post": "yes"}
        page = self.client.post(LIST, sure, follow=True).content.decode()
        assert "Successfully deleted 990 periodic tasks." in page
        assert PeriodicTask.objects.count() == 210

    def test_run_now_sends_it_and_is_logged(self):
        page = self.act("run_now", made(queue="later")).content.decode()
        assert "Sent adds: " in page
        assert LogEntry.objects.filter(change_message__contains="Run now").exists()
        assert app.broker.depth(["later"])["later"].ready == 1
        app.broker.purge("later")

    def test_run_now_has_a_permission_of_its_own(self):
        task = made()
        clerk = User.objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_periodictask", "change_periodictask"]))
        self.client.force_login(clerk)
        assert "run_now" not in self.client.get(LIST).content.decode()
        assert "Sent adds: " not in self.act("run_now", task).content.decode()

    def test_who_may_only_look_sees_all_and_can_change_nothing(self):
        task = made_before()
        sent = ran("adds")
        guest = User.objects.create_user("guest", is_staff=True)
        guest.user_permissions.set(Permission.objects.filter(codename="view_periodictask"))
        self.client.force_login(guest)
        page = self.client.get(f"{LIST}{task.pk}/change/").content.decode()
        assert sent in page
        assert 'name="_save"' not in page
        assert 'name="action"' not in self.client.get(LIST).content.decode()
        for action in ("run_now", "disable", "enable", "delete_selected"):
            self.act(action, task)
        assert self.client.post(f"{LIST}{task.pk}/change/", {**FORM, "queue": "later"}).status_code == 403
        assert PeriodicTask.objects.filter(enabled=True, queue="").count() == 1

    def test_a_page_costs_as_many_queries_for_a_hundred_tasks_as_for_one(self):
        made("first")
        self.client.get(LIST)
        with self.assertNumQueries(4):  # session, user, how many there are, a page of them
            self.client.get(LIST)
        for number in range(99):
            made(f"task-{number}")
        for page in ("", "?q=task", "?enabled__exact=1&kind__exact=interval", "?o=-2"):
            with self.subTest(page), self.assertNumQueries(4):
                self.client.get(LIST + page)

    def test_everything_is_there_in_simplified_chinese(self):
        made("five")
        page = self.client.get(LIST, headers={"accept-language": "zh-hans"}).content.decode()
        for text in ("每 5 分钟", "周期任务", "立即运行所选的周期任务", "下次运行"):
            assert text in page

    def test_text_of_users_is_escaped(self):
        made("<script>alert(1)</script>", task="<b>y</b>")
        task = made_before("<i>", task="<b>x</b>")
        stored(ran("<i>"), "<script>alert(2)</script>")
        pages = [self.client.get(url).content.decode() for url in (LIST, f"{LIST}{task.pk}/change/")]
        pages.append(self.act("run_now", task).content.decode())
        assert "&lt;script&gt;alert(2)" in pages[1]
        for text in ("<script>alert(", "<b>x</b>", "<i>"):
            assert all(text not in page for page in pages)
        app.broker.purge("celery")

    def test_rows_that_no_form_has_seen_do_not_hide_the_others(self):
        wrongs = (
            {"kind": "crontab", "crontab": "1,, * * * *"}, {"kind": "x"}, {"unit": "x"}, {"every": None}, {"args": {}},
            {"kind": "crontab", "crontab": "* * * * *", "timezone": "Mars"},
        )  # fmt: skip
        for number, wrong in enumerate(wrongs):
            made(f"wrong-{number}", **wrong)
        made("right")
        page = self.client.get(LIST)
        assert "right" in page.content.decode()
        for task in PeriodicTask.objects.all():
            page = self.client.get(f"{LIST}{task.pk}/change/").content.decode()
            assert ("It cannot be sent: " in page) == (task.name != "right"), task.name

    def test_who_saves_a_task_that_the_site_does_not_know_is_warned(self):
        answer = self.client.post(LIST + "add/", {**FORM, "task": "no.such"}, follow=True)
        assert "This site knows no task no.such" in answer.content.decode()

    def test_who_saves_a_task_that_will_not_run_is_warned(self):
        past = {"kind": "clocked", "clocked_at_0": "2020-01-01", "clocked_at_1": "00:00"}
        answer = self.client.post(LIST + "add/", {**FORM, **past}, follow=True)
        assert "It has no next run" in answer.content.decode()
        answer = self.client.post(LIST + "add/", {**FORM, "name": "runs"}, follow=True)
        assert "It has no next run" not in answer.content.decode()

    def test_the_pages_are_shown_though_the_store_does_not_answer(self):
        task = made()
        with self.settings(CELERY_BEAT_STORE_URL="redis://127.0.0.1:1/0"):
            for url in (LIST, f"{LIST}{task.pk}/change/"):
                page = self.client.get(url)
                assert page.status_code == 200
                assert "Last runs are not shown" in page.content.decode()


class Notes(TestCase):
    def test_an_edit_is_noted_when_it_is_committed(self):
        with self.captureOnCommitCallbacks(execute=True):
            task = made()
            assert Edit.objects.count() == 0
        assert list(Edit.objects.values_list("task", flat=True)) == [task.pk]

    def test_an_edit_that_is_rolled_back_is_not_noted(self):
        def edit():
            made()
            raise ZeroDivisionError

        with self.captureOnCommitCallbacks(execute=True), pytest.raises(ZeroDivisionError):
            transaction.atomic(edit)()
        assert Edit.objects.count() == 0

    def test_updates_of_many_rows_deletions_and_bulk_creations_are_noted(self):
        with self.captureOnCommitCallbacks(execute=True):
            made("one"), made("two")
        keys = set(PeriodicTask.objects.values_list("pk", flat=True))
        for change in (
            lambda: PeriodicTask.objects.update(queue="later"),
            lambda: PeriodicTask.objects.bulk_update(PeriodicTask.objects.all(), ["name"]),
            lambda: PeriodicTask.objects.all().delete(),
        ):
            Edit.objects.all().delete()
            with self.captureOnCommitCallbacks(execute=True):
                change()
            assert set(Edit.objects.values_list("task", flat=True)) == keys
        Edit.objects.all().delete()
        with self.captureOnCommitCallbacks(execute=True):
            PeriodicTask.objects.bulk_create(PeriodicTask(name=f"{n}", task=ADD, every=1) for n in range(1200))
        assert list(Edit.objects.values_list("task", flat=True)) == [None]


class Refused(TestCase):
    def test_times_without_a_zone_are_those_of_the_site(self):
        with self.settings(USE_TZ=False):
            task = PeriodicTask(name="once", task=ADD, kind="clocked", clocked_at=datetime(2030, 1, 1, 8))
            task.full_clean()
            assert entry(task, app).schedule.clocked_time == datetime(2030, 1, 1, tzinfo=UTC)

    def test_a_name_that_cannot_be_printed_is_refused(self):
        with pytest.raises(ValidationError):
            PeriodicTask(name="a\x1b[2J", task=ADD, every=1).full_clean()

    def test_the_schedule_of_the_whole_form_is_that_of_the_scheduler(self):
        task = PeriodicTask(
            name="all", task=ADD, kind="crontab", crontab="*/5 9-17 * * mon-fri", timezone="Asia/Shanghai", queue="q", priority=3,
            expires=60, headers={"a": 1}, options={"routing_key": "k"}, one_off=True, misfire="skip", grace=5, overlap="skip", jitter=2,
            starts=datetime(2026, 1, 1, tzinfo=UTC), ends=datetime(2027, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        task.full_clean()
        said = entry(task, app)
        assert said.options == {"routing_key": "k", "queue": "q", "priority": 3, "expires": 60, "headers": {"a": 1}}
        assert (said.max_runs, said.misfire, said.grace, said.overlap, said.jitter) == (1, "skip", 5, "skip", 2)
        assert said.starts == datetime(2026, 1, 1, tzinfo=UTC).timestamp()


BEAT_TABLES = """
CREATE TABLE django_celery_beat_intervalschedule (id integer PRIMARY KEY, every integer, period varchar(24));
CREATE TABLE django_celery_beat_crontabschedule (id integer PRIMARY KEY, minute varchar(240), hour varchar(96), day_of_week varchar(64),
  day_of_month varchar(124), month_of_year varchar(64), timezone varchar(63));
CREATE TABLE django_celery_beat_clockedschedule (id integer PRIMARY KEY, clocked_time datetime);
CREATE TABLE django_celery_beat_solarschedule (id integer PRIMARY KEY, event varchar(24), latitude decimal, longitude decimal);
CREATE TABLE django_celery_beat_periodictask (id integer PRIMARY KEY, name varchar(200), task varchar(200), args text, kwargs text,
  queue varchar(200), exchange varchar(200), routing_key varchar(200), expires datetime, enabled bool, last_run_at datetime,
  total_run_count integer, date_changed datetime, description text, crontab_id integer, interval_id integer, solar_id integer,
  one_off bool, start_time datetime, priority integer, headers text, clocked_id integer, expire_seconds integer);
INSERT INTO django_celery_beat_intervalschedule VALUES (1, 10, 'minutes'), (2, 500000, 'microseconds');
INSERT INTO django_celery_beat_crontabschedule VALUES (1, '0, 30', '9-17', 'mon-fri', '*', '*', 'Asia/Shanghai'),
  (2, '77', '*', '*', '*', '*', 'UTC');
INSERT INTO django_celery_beat_clockedschedule VALUES (1, '2030-01-01 00:00:00');
INSERT INTO django_celery_beat_solarschedule VALUES (1, 'sunset', 52.5, 13.4);
"""
BEAT_TASK = """INSERT INTO django_celery_beat_periodictask
  (name, task, args, kwargs, headers, enabled, one_off, total_run_count, description,
  queue, routing_key, priority, expire_seconds, last_run_at, interval_id, crontab_id, clocked_id, solar_id)
  VALUES (%s, 'a.b', %s, '{}', '{}', %s, %s, 7, 'why', %s, %s, %s, %s, %s, %s, %s, %s, %s)"""


class Import(TestCase):
    def setUp(self):
        with connection.cursor() as cursor:
            for statement in BEAT_TABLES.split(";")[:-1]:
                cursor.execute(statement)
        self.old("发送日报", args="[1]", queue="q", routing_key="k", priority=3, expire_seconds=60, ran="2026-01-01 00:00:00", interval=1)
        self.old("half a second", interval=2)
        self.old("cron", crontab=1, enabled=False)
        self.old("once", clocked=1, one_off=True)
        self.old("sunset", solar=1)
        self.old("no json", args="[1", interval=1)
        self.old("no minute", crontab=2)
        self.old("never")

    def old(self, name, *, args="[]", enabled=True, one_off=False, **of):
        columns = ("queue", "routing_key", "priority", "expire_seconds", "ran", "interval", "crontab", "clocked", "solar")
        with connection.cursor() as cursor:
            cursor.execute(BEAT_TASK, [name, args, enabled, one_off, *map(of.get, columns)])

    def carry_out(self, *options):
        out, err = StringIO(), StringIO()
        call_command("umbel_import_beat", *options, stdout=out, stderr=err)
        return out.getvalue().strip(), err.getvalue()

    def test_a_dry_run_says_what_would_be_done_and_does_nothing(self):
        assert self.carry_out("--dry-run")[0] == "4 would be taken over, 0 would be updated, 0 left as they are, 4 cannot be taken over."
        assert PeriodicTask.objects.count() == 0

    def test_tasks_are_taken_over_as_they_are(self):
        self.carry_out()
        daily = PeriodicTask.objects.get(name="发送日报")
        assert (daily.kind, daily.every, daily.unit, daily.args, daily.queue, daily.priority, daily.expires) == (
            "interval", 10, "minutes", [1], "q", 3, 60,
        )  # fmt: skip
        assert (daily.options, daily.description, daily.since) == ({"routing_key": "k"}, "why", None)
        assert daily.last_run_at == datetime(2026, 1, 1, tzinfo=UTC)
        assert str(PeriodicTask.objects.get(name="half a second").every) == "0.500000"
        cron = PeriodicTask.objects.get(name="cron")
        assert (cron.crontab, cron.timezone, cron.enabled) == ("0,30 9-17 * * mon-fri", "Asia/Shanghai", False)
        once = PeriodicTask.objects.get(name="once")
        assert (once.kind, once.clocked_at, once.one_off) == ("clocked", datetime(2030, 1, 1, tzinfo=UTC), True)

    def test_what_cannot_be_taken_over_is_told_with_the_reason(self):
        told = self.carry_out()[1]
        for text in (
            "'sunset' is not taken over: it runs by the sun",
            "solar('sunset', 52.5, 13.4)",
            "'no json' is not taken over: args: this is no JSON: ",
            "'no minute' is not taken over: crontab: Minute cannot be 77.",
            "'never' is not taken over: it has no schedule.\n",
        ):
            assert text in told
        assert told.count("\n") == 4

    def test_a_second_time_changes_nothing_unless_it_is_to_update(self):
        self.carry_out()
        PeriodicTask.objects.filter(name="cron").update(enabled=True, description="edited")
        assert self.carry_out()[0] == "0 taken over, 0 updated, 4 left as they are, 4 cannot be taken over."
        assert PeriodicTask.objects.get(name="cron").description == "edited"
        assert self.carry_out("--update")[0].startswith("0 taken over, 4 updated")
        assert PeriodicTask.objects.get(name="cron").description == "why"
        assert PeriodicTask.objects.count() == 4

    def test_what_came_due_while_neither_ran_is_not_lost(self):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE django_celery_beat_periodictask SET date_changed = '2026-01-01' WHERE name = 'once'")
            cursor.execute("UPDATE django_celery_beat_clockedschedule SET clocked_time = '2026-01-02'")
        self.carry_out()
        once = entry(PeriodicTask.objects.get(name="once"), app)
        assert plan(once, begin(once, time.time()), 0, time.time()).slots == [datetime(2026, 1, 2, tzinfo=UTC).timestamp()]


class ImportOfNothing(TestCase):
    def test_a_database_without_those_tables_is_told(self):
        with pytest.raises(CommandError, match="has no tables of django-celery-beat"):
            call_command("umbel_import_beat")

    def test_a_site_that_is_not_migrated_is_told_how(self):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE umbel_periodic_periodictask RENAME TO away")
        with pytest.raises(CommandError, match=r"Make it with: python manage\.py migrate umbel_periodic"):
            call_command("umbel_import_beat")


class Files(TestCase):
    def test_the_migrations_say_what_the_models_do(self):
        call_command("makemigrations", "umbel_periodic", "--check", "--dry-run", verbosity=0)

    def test_each_text_is_there_in_simplified_chinese(self):
        folder = Path(periodic.__file__).parent
        texts = {
            node.args[0].value
            for file in folder.glob("*.py")
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"_", "gettext", "gettext_lazy", "gettext_noop"}
            and isinstance(node.args[0], ast.Constant)
        }  # fmt: skip
        assert len(texts) > 80
        with (folder / "locale/zh_Hans/LC_MESSAGES/django.mo").open("rb") as file:
            chinese = GNUTranslations(file)
        assert {text for text in texts if chinese.gettext(text) == text} == set()


class Follow(TestCase):
    """A scheduler's view: the table over a store in memory."""

    def setUp(self):
        self.below = MemorySchedules(f"memory://{uuid()}")
        self.store = TableStore(self.below)
        self.store.leads = True
        self.reader = Follower(self.store)

    def edit(self, change):
        with self.captureOnCommitCallbacks(execute=True):
            change()

    def test_rows_of_the_table_and_of_the_store_beneath_are_seen_and_the_table_is_right(self):
        self.below.put([Row("paused", b'{"enabled":false}'), Row("adds", b'{"enabled":false}')])
        made()
        assert set(self.reader.look()) == {"adds", "paused"}
        assert b'"run_every":300' in self.reader.rows["adds"]
        self.below.put([Row("adds", b"{}"), Row("paused", b"{}")])
        assert self.reader.look() == ["paused"]

    def test_a_large_table_is_listed_in_pages_and_once(self):
        PeriodicTask.objects.bulk_create(PeriodicTask(name=f"{n}", task=ADD, every=1) for n in range(25))
        self.reader.look(limit=10)
        assert (len(self.reader.rows), self.reader.pages) == (25, 3)
        assert [self.reader.look() for _ in range(3)] == [[], [], []]
        assert self.reader.wholes == 0

    def test_a_store_beneath_that_has_lost_its_rows_takes_away_no_row_of_the_table(self):
        self.below.put([Row("paused", b"{}")])
        made()
        self.reader.look()
        self.store._below = MemorySchedules(f"memory://{uuid()}")
        assert self.reader.look() == ["paused"]
        assert set(self.reader.rows) == {"adds"}

    def test_what_sql_has_done_to_a_large_table_is_found_by_and_by(self):
        PeriodicTask.objects.bulk_create(PeriodicTask(name=f"{n}", task=ADD, every=1) for n in range(2500))
        self.reader.look()
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM umbel_periodic_periodictask WHERE name = '7'")
            cursor.execute("UPDATE umbel_periodic_periodictask SET queue = 'q' WHERE name = '2400'")
            cursor.execute("UPDATE umbel_periodic_periodictask SET name = 'new' WHERE name = '1200'")
        seen = [name for _ in range(3) for name in self.reader.look()]
        assert sorted(seen) == ["1200", "2400", "7", "new"]
        assert len(self.reader.rows) == 2499

    def test_notes_are_read_in_any_order_and_are_forgotten(self):
        PeriodicTask.objects.bulk_create(PeriodicTask(name=f"{n}", task=ADD, every=1) for n in range(1500))
        Edit.objects.bulk_create([Edit(pk=10, task=None)])
        self.reader.look()
        last = PeriodicTask.objects.get(name="1499")
        models.QuerySet(PeriodicTask).filter(pk=last.pk).update(queue="q")
        Edit.objects.create(pk=12, task=0)
        assert self.reader.look() == []
        Edit.objects.create(pk=11, task=last.pk)
        assert self.reader.look() == ["1499"]
        PeriodicTask.objects.filter(name__gt="1000").delete()  # fewer are compared sooner
        for _ in range(KEPT + 2):
            self.reader.look()
        assert Edit.objects.count() == 0

    def test_a_change_of_many_rows_is_taken_over_at_once(self):
        PeriodicTask.objects.bulk_create(PeriodicTask(name=f"{n}", task=ADD, every=1) for n in range(5000))
        self.reader.look()
        self.edit(lambda: PeriodicTask.objects.update(queue="q"))
        assert len(self.reader.look()) == 5000

    def test_names_that_change_places_are_no_removals(self):
        one, other = made("one"), made("other", every=7)
        self.reader.look()
        for task, name in ((one, "spare"), (other, "one"), (one, "other")):
            task.name = name
            task.save()
        assert sorted(self.reader.look()) == ["one", "other"]
        assert b'"run_every":420' in self.reader.rows["one"]

    def test_a_task_that_is_gone_leaves_no_state(self):
        task = made()
        self.reader.look()
        self.below.advance([State("adds", 1.0, 1, "")], fence=1)
        self.edit(task.delete)
        assert self.reader.look() == ["adds"]
        assert self.below.states(["adds"]) == {}

    def test_who_follows_another_scheduler_sees_edits_and_writes_nothing(self):
        self.store.leads = False
        task, other = made(), made("other")
        self.reader.look()
        self.below.advance([State("adds", 1.0, 1, "")], fence=1)
        self.edit(task.delete)
        assert self.reader.look() == ["adds"]
        assert set(self.below.states(["adds"])) == {"adds"}
        models.QuerySet(PeriodicTask).filter(pk=other.pk).update(queue="by SQL")
        with self.assertNumQueries(2):  # notes, and what they name; no page of the table
            assert self.reader.look() == []
        self.edit(lambda: PeriodicTask.objects.bulk_create(PeriodicTask(name=f"{n}", task=ADD, every=1) for n in range(1200)))
        assert len(self.reader.look()) >= 1200
        self.store.leads = True
        assert self.reader.look() == []
        assert b"by SQL" in self.reader.rows["other"]

    def test_a_task_that_is_made_anew_in_one_transaction_begins_anew(self):
        task = made(one_off=True)
        self.reader.look()
        self.below.advance([State("adds", time.time() + 5, 1, "")], fence=1)
        self.edit(lambda: (task.delete(), made(one_off=True)))
        assert self.reader.look() == ["adds", "adds"]
        assert set(self.reader.rows) == {"adds"}
        assert self.store.states(["adds"]) == {}

    def test_the_state_of_an_older_task_of_the_same_name_is_none(self):
        self.below.advance([State("adds", time.time() - 5, 1, "")], fence=1)
        task = made()
        self.reader.look()
        assert self.store.states(["adds"]) == {}
        task.since = None
        task.save()
        assert set(self.store.states(["adds"])) == {"adds"}

    def test_who_asks_anew_gets_all_again(self):
        made()
        self.reader.look()
        again = Follower(self.store)
        assert again.look() == ["adds"]
