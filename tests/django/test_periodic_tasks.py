"""Periodic tasks in a table of a real site, and a real scheduler that follows it."""

import contextlib
import json
import sqlite3
import subprocess
import time

import psycopg
import pytest
from tests.conftest import own_database
from tests.django.conftest import BIN, Example
from tests.processes import wait_for

SETTINGS = {"DJANGO_SETTINGS_MODULE": "periodic_settings"}
EDITOR = """
import json, sys
import mysite, django; django.setup()
from django.db import connection, transaction
from django.utils import timezone
from umbel.contrib.django.periodic.models import PeriodicTask
def new(name, **said):
    said = {"task": "myapp_infra.tasks.add", "args": [1, 2], "every": 1, "unit": "seconds", **said}
    return PeriodicTask.objects.create(name=name, **said)
for line in sys.stdin:
    exec(json.loads(line))
    print("done", flush=True)
"""


class Site:
    """A migrated copy of the example with the table, a scheduler, and a process that edits."""

    def __init__(self, example):
        self.example = example
        example.env |= SETTINGS
        example.migrate()

    @contextlib.contextmanager
    def beat(self):
        with self.example.run("umbel", "-A", "mysite", "beat", "-l", "INFO") as beat:
            beat.waits_to_print(" leads (term", 30)
            yield beat

    @contextlib.contextmanager
    def editor(self):
        """A process of the site: runs what it is given, and answers when that was committed."""
        command = [str(BIN / "python"), "-c", EDITOR]
        editor = subprocess.Popen(
            command, cwd=self.example.folder, env=self.example.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        with editor:

            def edit(code):
                print(json.dumps(code), file=editor.stdin, flush=True)
                assert editor.stdout.readline() == "done\n"

            yield edit
            editor.stdin.close()

    def states(self):
        with contextlib.closing(sqlite3.connect(self.example.folder / "umbel.sqlite3", timeout=20)) as database:
            return database.execute("SELECT * FROM umbel_schedule_states").fetchall()

    def umbel(self, *arguments):
        with self.example.run("umbel", "-A", "mysite", "beat", *arguments) as command:
            assert command.exit_code(30) == 0, command.tail()
            return command.log()

    def sql(self, statement, *values):
        with contextlib.closing(sqlite3.connect(self.example.folder / "db.sqlite3", timeout=20)) as database, database:
            return database.execute(statement, values).fetchall()


@pytest.fixture
def site(sqlite_example):
    return Site(sqlite_example)


def times_sent(beat, name):
    return beat.log().count(f"Sending due task {name} ")


def test_an_edit_of_the_table_takes_effect_within_two_seconds(site):
    with site.beat() as beat, site.editor() as edit:
        edit("new('tick')")
        wait_for(lambda: times_sent(beat, "tick") >= 1, 3.5, beat.tail)  # a run is due a second after the row is made
        edit("PeriodicTask.objects.filter(name='tick').update(enabled=False)")
        assert_silent_after(2, beat, "tick")
        edit("PeriodicTask.objects.filter(name='tick').update(enabled=True)")
        wait_for(lambda: times_sent(beat, "tick") >= 4, 10, beat.tail)
        edit("task = PeriodicTask.objects.get(); task.name = 'tock'; task.save()")
        wait_for(lambda: times_sent(beat, "tock") >= 1, 4, beat.tail)
        edit("PeriodicTask.objects.all().delete()")
        assert_silent_after(2, beat, "tock")
        assert "Edits of periodic tasks are not seen" not in beat.log()
        assert "    . entries -> those of the table umbel_periodic_periodictask of Django's database 'default'" in beat.log()


def test_an_edit_by_sql_is_found_and_one_that_is_rolled_back_has_no_effect(site):
    with site.beat() as beat, site.editor() as edit:
        edit("new('tick', every=1, unit='days')")
        edit(ROLLED_BACK)
        site.sql("UPDATE umbel_periodic_periodictask SET unit = 'seconds'")
        wait_for(lambda: times_sent(beat, "tick") >= 1, 4, beat.tail)
        site.sql("DELETE FROM umbel_periodic_periodictask")
        assert_silent_after(2, beat, "tick")
        assert times_sent(beat, "ghost") == 0


ROLLED_BACK = """
try:
    with transaction.atomic():
        new("ghost")
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
"""


def test_the_command_line_shows_and_switches_the_rows_of_the_table(site):
    with site.beat() as beat, site.editor() as edit:
        edit("new('tick')")
        wait_for(lambda: times_sent(beat, "tick") >= 1, 5, beat.tail)
        (row,) = [json.loads(line) for line in site.umbel("list", "--json").splitlines()]
        assert (row["name"], row["enabled"], row["task"]) == ("tick", True, "myapp_infra.tasks.add")
        assert row["runs"] >= 1
        assert "tick" in site.umbel("next", "tick")
        site.umbel("pause", "tick")
        assert site.sql("SELECT enabled FROM umbel_periodic_periodictask") == [(0,)]
        assert_silent_after(2, beat, "tick")
        assert len(site.umbel("run", "tick").strip()) == 36
        site.umbel("resume", "tick")
        before = times_sent(beat, "tick")
        wait_for(lambda: times_sent(beat, "tick") > before, 5, beat.tail)


def test_a_row_that_cannot_be_used_is_told_and_holds_up_no_other(site):
    with site.beat() as beat, site.editor() as edit:
        edit("new('bad', kind='crontab', crontab='61 * * * *'); new('tick')")
        wait_for(lambda: times_sent(beat, "tick") >= 2, 6, beat.tail)
        beat.waits_to_print("The periodic task 'bad' cannot be used and is not sent", 5)


def test_a_task_that_is_made_anew_under_the_same_name_begins_anew(site):
    with site.beat() as beat, site.editor() as edit:
        edit("new('once', one_off=True)")
        wait_for(lambda: times_sent(beat, "once") == 1, 6, beat.tail)
        assert_silent_after(0, beat, "once")
        edit("PeriodicTask.objects.all().delete()")
        wait_for(lambda: '"once"' not in site.umbel("list", "--json") and not site.states(), 6, beat.tail)
        edit("new('once', one_off=True)")
        wait_for(lambda: times_sent(beat, "once") == 2, 6, beat.tail)


def test_what_is_known_goes_on_while_the_table_cannot_be_read(site):
    with site.beat() as beat, site.editor() as edit:
        edit("new('tick')")
        wait_for(lambda: times_sent(beat, "tick") >= 1, 5, beat.tail)
        site.sql("ALTER TABLE umbel_periodic_edit RENAME TO away")
        beat.waits_to_print("Edits of periodic tasks are not seen", 5)
        before = times_sent(beat, "tick")
        wait_for(lambda: times_sent(beat, "tick") >= before + 3, 8, beat.tail)
        site.sql("ALTER TABLE away RENAME TO umbel_periodic_edit")
        beat.waits_to_print("can be read again", 5)


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.mark.postgres
def test_a_worker_that_is_the_scheduler_runs_what_a_table_in_postgresql_says_also_when_its_connections_were_cut(postgres_server, tmp_path):
    with own_database(postgres_server) as url:
        example = Example(tmp_path, BROKER_URL=url, RESULT_URL=url, SITE_DATABASE=url)
        site = Site(example)
        with example.worker("-B", "-P", "threads", "-c", "1") as worker, site.editor() as edit:
            edit("new('tick', kwargs={}, starts=timezone.now(), headers={'x': '日报'})")
            worker.waits_to_print("Task myapp_infra.tasks.add", 10)
            worker.waits_to_print(" succeeded in ", 10)
            with psycopg.connect(url, autocommit=True) as database:
                database.execute(CUT)
            edit("connection.close()")
            edit("PeriodicTask.objects.update(name='tock')")
            wait_for(lambda: times_sent(worker, "tock") >= 2, 15, worker.tail)


def assert_silent_after(seconds, beat, name):
    """Nothing more of it is sent, two seconds after an edit."""
    ends = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > ends, seconds + 5)
    before, ends = times_sent(beat, name), time.monotonic() + 2.5
    wait_for(lambda: time.monotonic() > ends, 10)
    assert times_sent(beat, name) == before, beat.tail()


def test_the_admin_the_import_and_what_a_scheduler_sees_pass_their_cases_in_the_site(site):
    with site.example.run("python", "manage.py", "test", "periodic_cases", "--failfast") as cases:
        assert cases.exit_code(100) == 0, cases.tail()
