"""The example project as real processes: a copy in a temporary folder, a site, a worker, an SMTP server."""

import contextlib
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.conftest import own_database, remove_keys
from tests.processes import Running, wait_for
from tests.rabbitmq import delete_queues
from tests.servers import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
OVERLAY = Path(__file__).resolve().parent / "overlay"
BIN = Path(sys.executable).parent


class Example:
    """One copy of the example project, with its own database, broker and mail."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder / "mysite"
        ignored = shutil.ignore_patterns("*.sqlite3*", "mail", "__pycache__")
        shutil.copytree(ROOT / "examples" / "mysite", self.folder, ignore=ignored)
        shutil.copytree(OVERLAY, self.folder, ignore=ignored, dirs_exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "UMBEL_", "DJANGO_", "EMAIL_"))}
        self.env = {**kept, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "BROKER_URL": "", "RESULT_URL": "", **env}
        self.url = ""

    def run(self, *arguments: str, **env: str) -> Running:
        """Starts a program of the environment's bin folder in the project's folder."""
        log = self.folder.parent / f"{Path(arguments[0]).name}-{uuid.uuid4().hex[:6]}.log"
        return Running([str(BIN / arguments[0]), *arguments[1:]], cwd=self.folder, env={**self.env, **env}, log=log)

    @contextlib.contextmanager
    def worker(self, *options: str, **env: str) -> Iterator[Running]:
        """A worker that is ready."""
        with self.run("umbel", "-A", "mysite", "worker", "-l", "INFO", *options, **env) as worker:
            worker.waits_to_print(" ready.", 30)
            yield worker

    def migrate(self) -> None:
        with self.run("python", "manage.py", "migrate", "--verbosity", "0") as migration:
            assert migration.exit_code(60) == 0, migration.tail()

    @contextlib.contextmanager
    def site(self, *options: str, **env: str) -> Iterator[Running]:
        """A site that answers."""
        before, address = self.url, f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        with self.run("python", "manage.py", "runserver", "--noreload", *options, address, **env) as site:
            wait_for(lambda: self._answers() or site.process.poll() is not None, 30, site.tail)
            assert site.process.poll() is None, site.tail()
            yield site
        self.url = before

    def _answers(self) -> bool:
        try:
            return self.call("GET", "/api/result/00000000-0000-0000-0000-000000000000/")[0] > 0
        except OSError:
            return False

    def call(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        """One HTTP request: the status and the JSON of the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            with answer:
                text = answer.read()
                return answer.code, json.loads(text) if text.startswith(b"{") else {"text": text.decode(errors="replace")}

    def result(self, task_id: str, deadline: float = 20) -> dict:
        """What the result view says of a task when it is done."""

        def done() -> dict:
            answer = self.call("GET", f"/api/result/{task_id}/")[1]
            return answer if answer.get("ready") else {}

        return wait_for(done, deadline, lambda: f"task {task_id}: {self.call('GET', f'/api/result/{task_id}/')}")

    def shell(self, code: str, deadline: float = 60, **env: str) -> str:
        """Runs Python in the project, as `manage.py shell -c` would, and gives what it printed."""
        # The package first: its __init__ reads the settings, which the overlay's settings are not yet when they import it.
        prelude = "import mysite, django; django.setup()\n"
        with self.run("python", "-c", prelude + code, **{"DJANGO_SETTINGS_MODULE": "mysite.settings", **env}) as program:
            assert program.exit_code(deadline) == 0, program.tail()
            return program.log()


@contextlib.contextmanager
def on_redis(server: str, folder: Path) -> Iterator[Example]:
    prefix = f"umbel-test-{uuid.uuid4().hex}:"
    try:
        broker, results = (urlunsplit(urlsplit(server)._replace(path=path)) for path in ("/3", "/2"))
        yield Example(folder, BROKER_URL=broker, RESULT_URL=results, KEY_PREFIX=prefix)
    finally:
        remove_keys(server, prefix)


BROKERS = [
    pytest.param("sqlite"), pytest.param("redis", marks=pytest.mark.redis), pytest.param("postgresql", marks=pytest.mark.postgres),
    pytest.param("amqp", marks=pytest.mark.amqp),
]  # fmt: skip


@pytest.fixture(scope="module", params=BROKERS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """A migrated copy of the example, on each broker in turn: one URL says which."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        example = Example(folder)
        example.migrate()
        yield example
    elif request.param == "postgresql":
        with own_database(request.getfixturevalue("postgres_server")) as url:
            example = Example(folder, BROKER_URL=url, RESULT_URL=url)
            example.migrate()
            yield example
    elif request.param == "amqp":
        url = request.getfixturevalue("amqp_url")
        delete_queues(url, "celery", "later")
        example = Example(folder, BROKER_URL=url)
        example.migrate()
        yield example
        delete_queues(url, "celery", "later")
    else:
        with on_redis(request.getfixturevalue("redis_server"), folder) as example:
            example.migrate()
            yield example


@pytest.fixture
def sqlite_example(tmp_path: Path) -> Example:
    """A fresh copy on SQLite, not migrated."""
    return Example(tmp_path)
