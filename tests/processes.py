"""Real processes for tests: started with a log, waited for with a deadline, and ended by their own id."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from tests.servers import stop

T = TypeVar("T")

# A deadline is written for a machine that has nothing else to do. What is waited for in vain fails later by this; what comes costs nothing.
PATIENCE = 4


class TookTooLongError(AssertionError):
    """A condition did not come true before its deadline."""


def wait_for(condition: Callable[[], T], deadline: float = 20, why: Callable[[], str] = lambda: "") -> T:
    """Asks again and again until the condition's answer is true, and gives that answer.

    Raises:
        TookTooLongError: it was not true within `deadline` seconds times `PATIENCE`; the message ends with what `why` says.
    """
    deadline *= PATIENCE
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TookTooLongError(f"not true after {deadline} s: {condition}\n{why()}")
        time.sleep(0.02)


class Running:
    """A process of the test's own, with everything it printed in a file."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, stdin: int = subprocess.DEVNULL) -> None:
        self.command = list(command)
        self.log_file = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, cwd=cwd, env=dict(env), stdin=stdin, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.process)
        self.end_group()

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def waits_to_print(self, text: str, deadline: float = 20) -> None:
        """Returns when `text` is in the log; fails at once when the process is gone without having printed it."""

        def printed_or_gone() -> bool:
            return text in self.log() or self.process.poll() is not None

        wait_for(printed_or_gone, deadline, self.tail)
        assert text in self.log(), f"ended with {self.process.returncode} and did not print {text!r}\n{self.tail()}"

    def exit_code(self, deadline: float = 20) -> int:
        """Waits for the process to end by itself."""
        wait_for(lambda: self.process.poll() is not None, deadline, self.tail)
        return int(self.process.returncode)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()

    def end_group(self) -> None:
        """Kills what the process left behind in the session that was made for it alone."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def tail(self) -> str:
        return f"--- the end of {self.log_file.name} of {' '.join(self.command)}\n{self.log()[-4000:]}"
