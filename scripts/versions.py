"""`make versions`: the drivers' tests on other versions of the servers, as real processes, and a table of what passed.

The servers come from Debian systems in folders (scripts/server_roots.sh), so this needs root and, the first time, some minutes.
Names of versions as arguments, such as `valkey-8.1`, choose some of them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
REDIS = ["tests/drivers/test_redis.py", "tests/drivers/test_redis_keys.py", "tests/redis_family", "tests/faults/test_recovery.py"]
TESTS = {
    "redis": REDIS,
    "valkey": REDIS,
    "rabbitmq": ["tests/drivers/test_amqp.py", "tests/drivers/test_amqp_results.py", "tests/faults/test_rabbitmq.py"],
    "postgresql": [f"tests/drivers/test_postgres{part}.py" for part in ("", "_rings", "_schema", "_using")],
}
MINUTES = 15  # for one version


def main(wanted: list[str]) -> int:
    """Runs them one after the other; 1 if a test failed."""
    made = subprocess.run(
        [ROOT / "scripts" / "server_roots.sh"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=MINUTES * 60,
    )
    if made.returncode:
        return 1
    folders = {Path(line).name: line for line in made.stdout.split()}
    if unknown := [name for name in wanted if name not in folders]:
        print(f"versions: {', '.join(unknown)} is not there. There are {', '.join(folders)}.", file=sys.stderr)
        return 2
    table, failed = Table("server", "result", "in"), False
    for name in wanted or folders:
        print(f"versions: {name}", flush=True)
        code, last = run(name, folders[name])
        result, _, seconds = last.partition(" in ")
        table.add_row(name, f"[{'red' if code else 'green'}]{result}", seconds)
        failed = failed or code != 0
    Console().print(table)
    return int(failed)


def run(name: str, folder: str) -> tuple[int, str]:
    """Runs the tests of one version; returns the exit code, and pytest's last line."""
    environment = {**os.environ, "UMBEL_TEST_BINARIES": folder}
    command = [ROOT / ".venv/bin/python", ROOT / "scripts/test.py", *TESTS[name.partition("-")[0]], "-q", "-n", "2", "--dist", "loadfile"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate(timeout=MINUTES * 60)
        except subprocess.TimeoutExpired:
            process.terminate()
            return 1, f"not done after {MINUTES} minutes in {MINUTES * 60}s"
    ends = [line for line in out.splitlines() if re.search(r"\d+ (passed|failed|error)", line)]
    if process.returncode:
        print(out, flush=True)
    return process.returncode, ends[-1] if ends else "no test ran"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
