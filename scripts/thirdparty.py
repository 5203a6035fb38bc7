"""`make thirdparty`: packages that were written for Celery, on umbel in its place, and a table of what they do.

They are installed from PyPI into .cache/thirdparty, without Celery and kombu. A package whose source distribution has tests runs these; of
the others scripts/thirdparty_checks.py uses what they are for. What `docs/how-to/run-celery-code.md` says does not work is expected not
to. Names of packages as arguments choose some of them.
"""

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402 - the path comes first
from rich.table import Table  # noqa: E402
from tests import servers  # noqa: E402

FOLDER = ROOT / ".cache" / "thirdparty"
PYTHON = FOLDER / "env" / "bin" / "python"
# What they need beside Celery and kombu, which `--no-deps` leaves out; and pytest with what their tests need.
BESIDE = ["six", "tornado", "humanize", "prometheus_client", "pytz", "django", "urllib3", "certifi"]
BESIDE += ["python-crontab", "cron-descriptor", "django-timezone-field", "tzdata", "python-dateutil", "tenacity"]
FOR_TESTS = ["pytest", "pytest-django", "pytest-localserver", "jsonschema", "executing", "responses", "sqlalchemy"]
SECONDS = 200  # for one package


@dataclass(frozen=True, slots=True)
class Package:
    """One package, and what is expected of it."""

    name: str
    check: str = ""  # of thirdparty_checks.py
    tests: str = ""  # in its source distribution
    without: str = ""  # tests that need something else, as `-k` names them
    least: int = 0  # that pass; of a check, 1
    why: str = ""  # what is missing of umbel


CUSTOM = "own strategies and requests of a worker"
PACKAGES = (
    Package("celery-batches", check="batches", why=CUSTOM),
    Package("celery-once", check="once", least=1),
    Package("celery-redbeat", check="redbeat", least=1),
    Package("celery-progress", check="progress", least=1),
    Package("celery-singleton", check="singleton", least=1),
    Package("django-celery-beat", check="django_beat", least=1),
    Package("django-celery-results", tests="t/unit", least=3, why="Celery's classes of result backends"),
    Package("flower", tests="tests/unit", why="events"),
    Package(
        "sentry-sdk",
        tests="tests/integrations/celery",
        without="newrelic or redis_backend or cron_monitoring",  # New Relic, a Redis at its usual port, and a Celery with its beat
        least=162,
        why="parts of kombu's Producer",
    ),
)


def main(wanted: list[str]) -> int:
    """Install and try them; 1 if one does less than is expected."""
    chosen = [each for each in PACKAGES if not wanted or each.name in wanted]
    install(chosen)
    found = {path.metadata["Name"].replace("_", "-"): path.version for path in distributions(path=[str(site_packages())])}
    table, failed = Table("package", "version", "what", "outcome", "seconds", "missing"), False
    with servers.private(servers.REDIS) if servers.find_binary(servers.REDIS) else nullcontext("") as url:
        for each in chosen:
            began = time.monotonic()
            passed, outcome = tried(each, found[each.name], url)
            failed |= passed < each.least
            mark = "" if passed >= each.least else f" ({each.least} expected)"
            took = f"{time.monotonic() - began:.0f}"
            table.add_row(each.name, found[each.name], "own tests" if each.tests else "check", f"{outcome}{mark}", took, each.why)
    Console(width=160).print(table)
    return int(failed)


def install(packages: list[Package]) -> None:
    """Make the environment, without Celery."""
    if not PYTHON.exists():
        run([sys.executable, "-m", "venv", str(FOLDER / "env")])
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--editable", f"{ROOT}[redis]", *BESIDE, *FOR_TESTS])
    run([*pip, "--no-deps", *(each.name for each in packages)])


def site_packages() -> Path:
    """Where the environment has its packages."""
    return next((FOLDER / "env" / "lib").glob("python*")) / "site-packages"


def run(command: list[str], cwd: Path = ROOT) -> str:
    """Run a command and return what it said; if it fails, so does all."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def tried(package: Package, version: str, url: str) -> tuple[int, str]:
    """Run the tests or the check of a package; return how many passed, and what is to be said."""
    log = FOLDER / f"{package.name}.log"
    if package.tests:
        folder = sources(package.name, version)
        pytest = ["-m", "pytest", "-q", "-o", "addopts=", "--continue-on-collection-errors", "--tb=short", package.tests]
        pytest += ["-k", f"not ({package.without})"] if package.without else []
        command = [str(PYTHON), "-m", "umbel.contrib.celery_alias", *pytest]
    elif package.check in {"singleton", "redbeat"} and not url:
        return package.least, "not tried: there is no redis-server"
    else:
        folder, command = ROOT, [str(PYTHON), "scripts/thirdparty_checks.py", package.check, *([url] if url else [])]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            return 0, f"took more than {SECONDS} s"
        finally:  # some tests run in copies of the process
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    last = (log.read_text().strip().splitlines() or [""])[-1]
    if not package.tests:
        return int(code == 0), "works" if code == 0 else last[:110]
    passed = re.search(r"(\d+) passed", last)
    return int(passed[1]) if passed else 0, last.strip("= ")


def sources(name: str, version: str) -> Path:
    """Fetch and unpack a source distribution."""
    folder = FOLDER / "sources"
    unpacked = folder / f"{name.replace('-', '_')}-{version}"
    if not unpacked.exists():
        options = ["--quiet", "--no-deps", "--no-binary", name, "--dest", str(folder)]
        run([str(PYTHON), "-m", "pip", "download", *options, f"{name}=={version}"])
        with tarfile.open(next(folder.glob(f"{name.replace('-', '_')}-{version}.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    return unpacked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
