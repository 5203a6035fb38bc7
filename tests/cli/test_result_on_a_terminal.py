"""`umbel result --watch` on a real terminal."""

import contextlib
import os
import pty
import select
import sys
import time

import pytest

APP = """
from umbel import Umbel
app = Umbel("proj", broker="sqlite:///{0}/umbel.sqlite3", backend="sqlite:///{0}/umbel.sqlite3")
"""


def shown_until(terminal, text, seconds=30):
    """Read from a terminal until *text* is there, or, without one, until its program has ended."""
    shown, end = b"", time.monotonic() + seconds
    with contextlib.suppress(OSError):  # how Linux says that the program has ended
        while (text is None or text not in shown) and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 1000)
    return shown


@pytest.mark.skipif(sys.platform != "linux", reason="how a terminal tells of its end is Linux's")
def test_ctrl_c_ends_the_bar_of_a_result_that_is_watched(tmp_path):
    (tmp_path / "proj.py").write_text(APP.format(tmp_path))
    command = [sys.executable, "-m", "umbel", "-A", "proj", "result", "--watch", "nobody"]
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execve(command[0], command, {**os.environ, "TERM": "xterm"})
    try:
        assert b"PENDING" in shown_until(terminal, b"PENDING")
        os.write(terminal, b"\x03")
        rest = shown_until(terminal, None)
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert rest.endswith(b"\r\n\x1b[?25h"), "the line is over, and the cursor is there again"
    assert b"Aborted" not in rest
