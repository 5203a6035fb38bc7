"""`umbel result --watch` on a real terminal."""

import contextlib
import os
import pty
import select
import signal
import sys
import time

import pytest


def shown_until(terminal, text, seconds=30):
    """Read from a terminal until *text* is there, or, without one, until its program has ended."""
    shown, end = b"", time.monotonic() + seconds
    with contextlib.suppress(OSError):  # how Linux says that the program has ended
        while (text is None or text not in shown) and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 1000)
    return shown


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, pid, file):
        self.file, self._pid, self.exit_code = file, pid, None

    def type(self, keys):
        os.write(self.file, keys)

    def close(self):
        _, status = os.waitpid(self._pid, 0)
        os.close(self.file)
        self.exit_code = os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def on_a_terminal(project, *words):
    """Run `umbel`; when the block ends, it must have been told to end."""
    if sys.platform != "linux":
        pytest.skip("how a terminal tells of its end is Linux's")
    command = project.command(*words)
    pid, file = pty.fork()
    if not pid:
        os.chdir(project.path)
        os.execve(command[0], command, {**project.env, "TERM": "xterm"})
    terminal = Terminal(pid, file)
    try:
        yield terminal
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        terminal.close()


def test_ctrl_c_ends_the_bar_of_a_result_that_is_watched(project):
    with on_a_terminal(project, "-A", "proj", "result", "--watch", "nobody") as terminal:
        assert b"PENDING" in shown_until(terminal.file, b"PENDING")
        terminal.type(b"\x03")
        rest = shown_until(terminal.file, None)
    assert terminal.exit_code == 130
    assert rest.endswith(b"\r\n\x1b[?25h"), "the line is over, and the cursor is there again"
    assert b"Aborted" not in rest
