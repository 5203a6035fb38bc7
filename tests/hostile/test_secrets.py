"""Passwords in URLs and options never appear: not in logs, errors, banners, reports, nor in what is stored."""

import contextlib
import dataclasses
import logging
import socket
import socketserver
import subprocess
import sys
import threading
import traceback
from urllib.parse import quote

import pytest
from tests import servers
from tests.hostile.conftest import hostile_on
from tests.processes import wait_for

from umbel import Celery
from umbel.exceptions import ImproperlyConfigured, KombuError, NotSupported

SECRET = "Xq7zT/w#r@d:%kLm9"  # a marked password with all that a URL must quote
QUOTED = quote(SECRET, safe="")
PARTS = ("Xq7zT", "kLm9")  # no part of it either


def clean(text):
    """Fail if the secret, quoted or not, or a part of it, is in the text."""
    found = [line for line in text.splitlines() if any(each in line for each in (SECRET, QUOTED, *PARTS))]
    assert not found, "\n".join(found)


def told(call):
    """Return all that an error says: its traceback with causes, its arguments, its repr."""
    try:
        call()
    except (KombuError, ImproperlyConfigured, NotSupported, OSError, ValueError, TypeError) as exc:
        return "".join([*traceback.format_exception(exc), repr(exc), repr(exc.args), str(exc)])
    raise AssertionError("no error")


class Echo(socketserver.BaseRequestHandler):
    """A server that answers with what it was sent, as Redis does to a command that it does not know."""

    def handle(self):
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                words = [line for line in data.split(b"\r\n") if line and line[:1] not in b"*$"]
                self.request.sendall(b"-ERR unknown command, with args beginning with: " + b" ".join(words) + b"\r\n")


@pytest.fixture(scope="module")
def echo():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def mute():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def locked_redis():
    """A Redis server with the secret as its password."""
    if servers.find_binary(servers.REDIS) is None:
        pytest.skip("needs Redis")
    plain = servers.REDIS.command
    kind = dataclasses.replace(servers.REDIS, command=lambda *where: [*plain(*where), "--requirepass", SECRET], greets=answers)
    with servers.private(kind) as url:
        yield url.removeprefix("redis://")


def answers(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"-NOAUTH")


def urls(echo, mute):
    closed = servers.free_port()
    return {
        "refused": f"redis://:{QUOTED}@127.0.0.1:{closed}/0",
        "refused, with a user": f"redis://umbel:{QUOTED}@127.0.0.1:{closed}/0",
        "not quoted": f"redis://:{SECRET}@127.0.0.1:{closed}/0",
        "no such host": f"redis://:{QUOTED}@nowhere.invalid:6379/0",
        "silent": f"redis://:{QUOTED}@127.0.0.1:{mute}/0",
        "echoes what it is sent": f"redis://umbel:{QUOTED}@127.0.0.1:{echo}/0",
        "TLS with a silent server": f"rediss://:{QUOTED}@127.0.0.1:{mute}/0",
        "TLS with a plain server": f"rediss://:{QUOTED}@127.0.0.1:{echo}/0",
        "a socket file": f"unix:///nonexistent/redis.sock?password={QUOTED}&db=0",
        "a socket file, as Celery writes it": f"redis+socket:///nonexistent/redis.sock?password={QUOTED}",
        "a bad port": f"redis://:{QUOTED}@127.0.0.1:port/0",
        "no scheme": f"umbel:{SECRET}@127.0.0.1:6379/0",
        "an unknown scheme": f"kafka://umbel:{QUOTED}@127.0.0.1:6379/0",
        "RabbitMQ, refused": f"amqp://umbel:{QUOTED}@127.0.0.1:{closed}//",
        "PostgreSQL, refused": f"postgresql://umbel:{QUOTED}@127.0.0.1:{closed}/db",
        "PostgreSQL, not quoted": f"postgresql://umbel:{SECRET}@127.0.0.1:{closed}/db",
        "PostgreSQL, no such host": f"postgresql://umbel:{QUOTED}@nowhere.invalid/db",
        "PostgreSQL, silent": f"postgresql://umbel:{QUOTED}@127.0.0.1:{mute}/db",
        "PostgreSQL, echoes what it is sent": f"postgresql://umbel:{QUOTED}@127.0.0.1:{echo}/db",
        "PostgreSQL, a bad port": f"postgresql://umbel:{QUOTED}@127.0.0.1:port/db",
        "PostgreSQL, a password in the query": f"postgresql://127.0.0.1:{closed}/db?user=umbel&password={QUOTED}",
    }


def test_no_error_of_a_client_shows_a_password(echo, mute, caplog):
    caplog.set_level(logging.DEBUG)
    for name, url in urls(echo, mute).items():
        with Celery(f"app {name}", broker=url, backend=url, set_as_current=False) as app:
            app.conf.update(broker_publish_timeout=0.5, task_publish_retry=False)
            task = app.task(lambda: None, name="t")
            clean(told(task.delay))
            if not url.startswith("amqp"):  # a state that has not come is PENDING there, and nobody is asked
                clean(told(lambda app=app: app.AsyncResult("1").state))
                clean(told(lambda app=app: app.backend.get(["1"])))
            clean(told(lambda app=app: app.backend.open()))
            clean("".join([repr(app), str(app.conf), app.broker_address(), app.backend_address()]))
    clean(caplog.text)


def test_no_view_of_the_settings_shows_a_password():
    url = f"redis://:{QUOTED}@127.0.0.1/0"
    secrets = {
        "broker_url": [url, url],
        "broker_write_url": f"{url};{url}",
        "result_backend": f"azureblockblob://DefaultEndpointsProtocol=https;AccountKey={SECRET};EndpointSuffix=x",
        "broker_transport_options": {"password": SECRET, "sentinel_kwargs": {"password": SECRET}, "fallbacks": [url]},
        "result_backend_transport_options": {"password": SECRET, "auth": {"token": SECRET}},
        "redis_password": SECRET,
        "broker_password": SECRET,
        "security_key_password": SECRET,
        "s3_secret_access_key": SECRET,
        "database_url": f"postgresql://u:{QUOTED}@h/d",
        "my_own_api_token": SECRET,
        "my_own_url": f"https://u:{SECRET}@h/",
    }
    app = Celery("views", set_as_current=False)
    app.conf.update(secrets)
    clean(app.conf.humanize())
    clean(app.conf.humanize(with_defaults=True))
    clean(repr(app.conf.table()))
    clean(repr(app.conf))
    frozen = app.conf.snapshot()
    clean(repr(frozen))
    clean(frozen.humanize())
    clean(told(lambda: setattr(frozen, "broker_url", url)))
    for name, wrong in {"broker_transport_options": f"password={SECRET}", "redis_password": [SECRET], "task_acks_late": url}.items():
        clean(told(lambda name=name, wrong=wrong: setattr(Celery(set_as_current=False).conf, name, wrong)))


RUN = """
import sys, traceback
from hostile_app import *
@app.task(name="tells")
def tells():
    print(app.broker_address(), app.conf.humanize(), repr(app), repr(app.broker), repr(app.conf))
    raise ValueError("see the traceback")
"""
CALLS = """
from telling_app import *
import os
call = tells.delay()
print(repr(call.get(propagate=False, timeout=60)), call.traceback)
print(app.backend.get([call.id]))
app.broker.publish([__import__("umbel.broker").broker.Item(raw=b"x", queue="celery", id="1")])
"""


@pytest.mark.redis
def test_no_log_and_nothing_stored_shows_a_password(locked_redis, tmp_path):
    right, wrong = f"redis://:{QUOTED}@{locked_redis}/0", f"redis://:{quote('wrong' + SECRET, safe='')}@{locked_redis}/0"
    (tmp_path / "telling_app.py").write_text(RUN)
    hostile = hostile_on(right, tmp_path)
    hostile.env["PYTHONPATH"] = f"{tmp_path}:{hostile.env['PYTHONPATH']}"
    with hostile.running("worker", "-l", "DEBUG", "-c", "1", app="telling_app") as worker:
        clean(hostile.script(CALLS))
        wait_for(lambda: "kept as a dead letter" in worker.log(), 30, worker.tail)
    clean(worker.log())
    assert "see the traceback" in worker.log()
    hostile.env["LEDGER_BROKER"] = hostile.env["LEDGER_BACKEND"] = wrong
    several = (["report"], ["worker", "-l", "DEBUG", "-P", "solo"], ["call", "tells"], ["dead", "list"])
    with contextlib.ExitStack() as stack:
        commands = [stack.enter_context(hostile.running(*words, app="telling_app")) for words in several]
        for command in commands:
            command.exit_code(60)
            assert command.log()
            clean(command.log())
        assert "answered: " in commands[2].log()
        assert "does not answer" not in commands[2].log()
    env = hostile.env
    done = subprocess.run([sys.executable, "-c", CALLS], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "BrokerUnavailable" in done.stderr
    clean(done.stdout + done.stderr)
