"""`make demo`, without its environment step."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.processes import Running

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = [sys.executable, str(ROOT / "scripts" / "demo.py")]


@pytest.mark.timeout(300)
def test_the_demo_tells_its_story_and_exits_with_zero():
    done = subprocess.run(DEMO, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("send_email_task", '"state": "SUCCESS"', "one welcome mail, to zhao", "both sides are stopped"):
        assert text in done.stdout


def test_a_demo_that_is_told_to_stop_leaves_no_process_and_no_folder(tmp_path):
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with Running(DEMO, cwd=ROOT, env=env, log=tmp_path / "demo.log") as demo:
        demo.waits_to_print("ready.", 60)
        address = re.search(r"runserver --noreload (\S+)", demo.log())
        demo.send(signal.SIGTERM)
        assert demo.exit_code(30) == 128 + signal.SIGTERM, demo.tail()
    assert address is not None
    assert list(tmp_path.glob("umbel-demo-*")) == []
    assert not _still_running(tmp_path)


def _still_running(folder: Path) -> list[str]:
    """The processes whose working folder is, or was, below `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(folder) in str(entry.readlink()):
                found.append(str(entry))
        except OSError:
            continue  # gone in the meantime, or not ours to look at
    return found
