"""Runs the example's site and worker beside each other and prints one transcript of both."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "mysite"
BIN = Path(sys.executable).parent

T = TypeVar("T")
_COLOURS = {"site": "36", "worker": "32", "demo": "1;35"}
_print_lock = threading.Lock()


class DemoError(Exception):
    """Something did not happen, or not in time."""


def say(who: str, line: str) -> None:
    """Prints a line of the transcript; the names are coloured on a terminal."""
    prefix = f"{who:<6} |"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        prefix = f"\033[{_COLOURS.get(who, '0')}m{prefix}\033[0m"
    with _print_lock:
        print(f"{prefix} {line}", flush=True)


def free_port(wanted: int = 0) -> int:
    """The wanted port where nobody has it, else one that the system picks."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As runserver does; without it a port whose last connections linger counts as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise DemoError("the system has no free port to give")


class Side:
    """One of the two processes; what it prints is shown and its end is kept for the report of a failure."""

    def __init__(self, name: str, command: list[str], *, cwd: Path, env: dict[str, str]) -> None:
        self.name = name
        self.command = command
        self.tail: deque[str] = deque(maxlen=60)
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches this program alone, which then stops both sides
        )
        self._reader = threading.Thread(target=self._show, name=f"{name}-output", daemon=True)
        self._reader.start()

    def _show(self) -> None:
        for line in self.process.stdout:
            self.tail.append(line.rstrip("\n"))
            say(self.name, line.rstrip("\n"))

    def gone(self) -> bool:
        """Whether the process ended."""
        return self.process.poll() is not None

    def printed(self, text: str) -> bool:
        """Whether the last lines have this text."""
        return any(text in line for line in tuple(self.tail))

    def stop(self, patience: float = 10) -> None:
        """TERM, then KILL by id; returns when the process is gone and its last line is shown."""
        if not self.gone():
            self.process.terminate()
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                say("demo", f"{self.name} did not stop within {patience:.0f} s of SIGTERM, so it is killed")
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self._reader.join(2)


class SideBySide:
    """Site and worker of one copy of the example, running for the length of a `with` block."""

    def __init__(self, folder: Path, port: int, **env: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
        # The example decides on its own settings.
        self.env.pop("DJANGO_SETTINGS_MODULE", None)
        self.sides: list[Side] = []

    def __enter__(self) -> Self:
        self.manage("migrate", "--verbosity", "0")
        try:
            self.start("worker", [str(BIN / "umbel"), "-A", "mysite", "worker", "-l", "INFO", "-P", "solo"])
            self.start("site", [sys.executable, "manage.py", "runserver", "--noreload", self.url.removeprefix("http://")])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for side in reversed(self.sides):
            side.stop()

    def start(self, name: str, command: list[str]) -> None:
        """Starts one side and shows the command as a user would type it."""
        say("demo", "$ " + " ".join(command).replace(str(BIN) + os.sep, ""))
        self.sides.append(Side(name, command, cwd=self.folder, env=self.env))

    def manage(self, *arguments: str) -> None:
        """Runs a management command to its end."""
        say("demo", "$ python manage.py " + " ".join(arguments))
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        for line in (done.stdout + done.stderr).splitlines():
            say("site", line)
        if done.returncode:
            raise DemoError(f"manage.py {arguments[0]} ended with {done.returncode}")

    def wait_until_ready(self, deadline: float) -> None:
        """Returns when the site answers and the worker says that it is ready."""
        self.wait_for("an answer of the site", self._site_answers, deadline)
        worker = self.sides[0]
        self.wait_for("the worker's 'ready'", lambda: worker.printed(" ready."), deadline)

    def _site_answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=2):
                return True
        except urllib.error.HTTPError as answer:  # any answer will do, a 404 too
            answer.close()
            return True
        except OSError:
            return False

    def wait_for(self, what: str, condition: Callable[[], T], deadline: float, pause: float = 0.05) -> T:
        """Asks until the answer is true, and gives it.

        Raises:
            DemoError: a side ended, or the deadline (on the monotonic clock) passed.
        """
        while True:
            if answer := condition():
                return answer
            for side in self.sides:
                if side.gone():
                    raise DemoError(f"{side.name} ended with {side.process.returncode} while waiting for {what}")
            if time.monotonic() > deadline:
                raise DemoError(f"waited too long for {what}")
            time.sleep(pause)

    def report(self) -> str:
        """The end of both logs."""
        parts = [f"--- the end of {side.name}:\n" + "\n".join(side.tail) for side in self.sides]
        return "\n".join(parts)


def leave_on_signals() -> None:
    """Lets TERM and HUP end the program as Ctrl-C does: through its `with` blocks."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
