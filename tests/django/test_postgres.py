"""Django with its broker in its own PostgreSQL database: migrations, and calls inside its transactions."""

import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from umbel.drivers.postgres.schema import migrations

pytestmark = pytest.mark.postgres

SETTINGS = """
import os
SECRET_KEY = "x"
INSTALLED_APPS = ["umbel.contrib.django"]
USE_TZ = True
if os.environ.get("PROJECT_NAME"):
    DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PROJECT_NAME"], "USER": "postgres",
        "HOST": "{host}", "PORT": "{port}"}}}}
else:
    DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}}}
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = "{url}"
CELERY_BROKER_TRANSPORT_OPTIONS = CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {{"migrate": False}}
CELERY_TASK_PUBLISH_USING = os.environ.get("PUBLISH_USING")
"""
INIT = """
import os
from umbel import Celery
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")

@app.task(name="add")
def add(x, y):
    return x + y
"""
PRELUDE = """
import django, project
django.setup()
from django.db import connection, transaction
from project import add, app
def ready():
    return app.broker.depth(["celery"])["celery"].ready
"""


class Project:
    def __init__(self, folder, url):
        parts = urlsplit(url)
        (folder / "project").mkdir()
        (folder / "project" / "settings.py").write_text(SETTINGS.format(url=url, host=parts.hostname, port=parts.port))
        (folder / "project" / "__init__.py").write_text(INIT)
        self.folder, self.name = folder, parts.path.lstrip("/")

    def run(self, *arguments, **env):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "UMBEL_", "DJANGO_"))}
        settings = {"DJANGO_SETTINGS_MODULE": "project.settings", "PYTHONPATH": str(self.folder), "PROJECT_NAME": self.name}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=self.folder, env=kept | settings | env, capture_output=True, text=True, timeout=60, check=False)

    def script(self, code, **env):
        done = self.run("-c", PRELUDE + code, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def manage(self, *arguments, **env):
        done = self.run("-m", "django", *arguments, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path, postgres_database):
    return Project(tmp_path, postgres_database)


def test_migrating_the_project_makes_the_tables_in_its_database(project):
    said = project.manage("migrate")
    assert "Applying umbel.0001_tables... OK" in said
    assert project.script("add.delay(1, 2)\nprint(ready())") == ["1"]
    assert project.script("print(app.broker.migrate())") == ["[]"]


def test_a_project_on_another_kind_of_database_migrates_and_makes_nothing(project):
    assert "Applying umbel.0001_tables... OK" in project.manage("migrate", PROJECT_NAME="")
    said = project.run("-c", PRELUDE + "add.delay(1, 2)")
    assert "has no tables of umbel" in said.stderr


def test_every_migration_of_the_driver_is_one_of_django(project):
    shown = project.manage("showmigrations", "--plan")
    assert [line.split()[-1] for line in shown.splitlines()] == [f"umbel.{each.name}" for each in migrations()]
    assert "No changes detected" in project.manage("makemigrations", "--check")


ROLLED_BACK = """
with transaction.atomic():
    {call}
    print(ready())
    transaction.set_rollback(True)
print(ready())
with transaction.atomic():
    {call}
    print(ready())
print(ready())
"""


@pytest.mark.parametrize(
    ("call", "using"),
    [
        ("add.apply_async((1, 2), using='default')", ""),
        ("add.apply_async((1, 2), using=connection)", ""),
        ("add.delay(1, 2)", "default"),
        ("exec('with app.publish_using(connection): add.delay(1, 2)')", ""),
    ],
)
def test_a_call_is_part_of_djangos_transaction(project, call, using):
    project.manage("migrate")
    env = {"PUBLISH_USING": using} if using else {}
    assert project.script(ROLLED_BACK.format(call=call), **env) == ["0", "0", "0", "1"]


def test_without_the_setting_a_call_is_sent_at_once(project):
    project.manage("migrate")
    assert project.script(ROLLED_BACK.format(call="add.delay(1, 2)")) == ["1", "1", "2", "2"]


def test_a_call_outside_of_a_transaction_is_sent_at_once_by_the_setting_too(project):
    project.manage("migrate")
    assert project.script("add.delay(1, 2)\nprint(ready())", PUBLISH_USING="default") == ["1"]


def test_an_alias_that_there_is_not_is_named(project):
    project.manage("migrate")
    done = project.run("-c", PRELUDE + "add.apply_async((1, 2), using='nowhere')")
    assert "Sending through the database 'nowhere' failed" in done.stderr
