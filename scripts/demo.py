"""`make demo`: the main job from start to finish, in a temporary folder, on the embedded SQLite broker.

A Django site answers a request at once and hands the e-mail to a worker in another process; the worker sends it, and
its state and result are read back over HTTP. Prints what both sides print. Exits 0 when all of it happened.
"""

import json
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from side_by_side import EXAMPLE, DemoError, SideBySide, free_port, leave_on_signals, say

SECONDS = 110  # for everything; the promise is two minutes


class Client:
    """Calls the site's views and shows what was asked and answered."""

    def __init__(self, both: SideBySide, deadline: float) -> None:
        self.both = both
        self.deadline = deadline

    def call(self, method: str, path: str, body: object = None, *, expect: int) -> dict:
        """One request, shown with its answer."""
        say("demo", f"{method} {path}" + (f"  {json.dumps(body)}" if body else ""))
        started = time.monotonic()
        status, answer = self._send(method, path, body)
        say("demo", f"  -> {status} in {(time.monotonic() - started) * 1000:.0f} ms  {json.dumps(answer)}")
        if status != expect:
            raise DemoError(f"{method} {path} answered {status}, not {expect}")
        return answer

    def _send(self, method: str, path: str, body: object) -> tuple[int, dict]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.both.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, as_json(answer.read())
        except OSError as error:
            raise DemoError(f"{method} {path}: {error}") from error

    def result(self, task_id: str, expect: str = "SUCCESS") -> dict:
        """Polls the result view until the task is done, and shows the last answer."""
        path = f"/api/result/{task_id}/"

        def done() -> dict | None:
            _, answer = self._send("GET", path, None)
            return answer if answer.get("ready") else None

        answer = self.both.wait_for(f"the result of {task_id}", done, self.deadline, pause=0.2)
        say("demo", f"GET {path}")
        say("demo", f"  -> {json.dumps(answer)}")
        if answer["state"] != expect:
            raise DemoError(f"task {task_id} ended as {answer['state']}, not {expect}")
        return answer


def as_json(text: bytes) -> dict:
    """The JSON of an answer; an answer that is none (Django's page of an error) becomes a value that shows it."""
    try:
        return json.loads(text)
    except ValueError:
        return {"not JSON": " ".join(text.decode(errors="replace").split())[:200]}


def main() -> int:
    """Runs the demo and returns the exit code."""
    leave_on_signals()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="umbel-demo-") as name:
        folder = Path(name) / "mysite"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.sqlite3*", "mail", "__pycache__"))
        say("demo", f"the example, copied to {folder}")
        both = SideBySide(folder, free_port(), BROKER_URL="", RESULT_URL="", EMAIL_HOST="", MAIL_DIR=str(folder / "mail"))
        try:
            with both:
                show(both, started + SECONDS)
        except DemoError as error:
            say("demo", f"FAILED: {error}")
            print(both.report(), file=sys.stderr)
            return 1
    say("demo", f"done in {time.monotonic() - started:.1f} s; both sides are stopped and the folder is removed")
    return 0


def show(both: SideBySide, deadline: float) -> None:
    """The story that the demo tells."""
    both.wait_until_ready(deadline)
    client = Client(both, deadline)

    say("demo", "1. a view calls send_email_task.delay(...) and answers at once; the worker sends the mail")
    mail = {"subject": "Hello from umbel", "message": "It works.", "recipient_list": ["li@example.com"]}
    client.result(client.call("POST", "/api/send-email/", mail, expect=202)["task_id"])
    if len(mails(both.folder)) != 1:
        raise DemoError("the mail is not in the mail folder")
    say("demo", "  the mail is in the mail folder")

    say("demo", "2. a view waits for a sum")
    if client.call("GET", "/api/add/?x=2&y=3", expect=200)["result"] != 5:
        raise DemoError("2 + 3 was not 5")

    say("demo", "3. a failure is reported, a flaky task is tried again a second later")
    client.result(client.call("POST", "/api/boom/", expect=202)["task_id"], expect="FAILURE")
    client.result(client.call("POST", "/api/flaky/?n=1", expect=202)["task_id"])

    say("demo", "4. delay_on_commit: a transaction that rolls back sends nothing, one that commits sends once")
    client.call("POST", "/register/?fail=1", {"username": "wang", "email": "wang@example.com"}, expect=500)
    client.result(client.call("POST", "/register/", {"username": "zhao", "email": "zhao@example.com"}, expect=200)["task_id"])
    welcomed = [text for text in mails(both.folder) if "Subject: Welcome" in text]
    if len(welcomed) != 1 or "zhao" not in welcomed[0]:
        raise DemoError(f"{len(welcomed)} welcome mails were sent, not the one to zhao")
    say("demo", "  one welcome mail, to zhao")


def mails(folder: Path) -> list[str]:
    """The text of each mail that Django's file backend wrote; it may put several into one file."""
    texts = "".join(file.read_text() for file in sorted((folder / "mail").glob("*.log")))
    return [text for text in texts.split("-" * 79) if "Subject: " in text]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
