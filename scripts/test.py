"""Runs the test suite with private servers, and says loudly what could not be tested.

Called by `make test`. A server that already runs is used only when its variable is set (UMBEL_TEST_REDIS_URL).
CI=true or INSTALL=1 installs missing servers with apt-get; with CI=true a server that stays absent is a failure.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import servers  # noqa: E402  (the line above makes it importable)

DJANGO_AGAIN = "Django>=6.1,<6.2"
SECOND_VENV = ".venv-django6"
STRICT = os.environ.get("CI") == "true"
MAY_INSTALL = STRICT or os.environ.get("INSTALL") == "1"
NO_TESTS_COLLECTED = 5
# Most tests wait for something, so four processes also help where there are two cores. tests/conftest.py says which files come first.
SIDE_BY_SIDE = ["-n", "4", "--dist", "loadfile", "--no-loadscope-reorder"]


def main(arguments: list[str]) -> int:
    """Starts the servers, runs pytest once or twice, and returns the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with these two ignored,
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # and programs that tests start, and then signal, would inherit that
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    skipped: list[str] = []
    codes: list[int] = []
    absent = 0
    with contextlib.ExitStack() as stack:
        environment = dict(os.environ) | _start_servers(stack, skipped)
        _install_programs(skipped)
        _compile()
        absent = len(skipped)
        made = None if arguments else stack.enter_context(_second_environment(skipped))
        codes.append(_pytest(ROOT / ".venv", arguments or SIDE_BY_SIDE, environment))
        if made is not None:
            codes.append(_second_django(made, environment))
    _say_loudly(skipped)
    if STRICT and absent:
        return 1
    return next((code for code in codes if code), 0)


def _leave(number: int, _frame: object) -> None:
    # The with blocks then end the servers, as they do after Ctrl-C.
    raise SystemExit(128 + number)


def _start_servers(stack: contextlib.ExitStack, skipped: list[str]) -> dict[str, str]:
    urls: dict[str, str] = {}
    for kind in servers.KINDS:
        if os.environ.get(kind.variable):
            print(f"test: {kind.name} as {kind.variable} says")
            continue
        if servers.find_binary(kind) is None and MAY_INSTALL:
            _apt_install(kind.debian_package)
        if servers.find_binary(kind) is None:
            skipped.append(
                f"{kind.name}: {kind.binary} is not installed.\n"
                f"    get it:  apt-get install {kind.debian_package}   (or: make test INSTALL=1)\n"
                f"    or use a running one, with keys of our own prefix only:  {kind.variable}=... make test"
            )
            continue
        urls[kind.variable] = stack.enter_context(servers.private(kind))
        print(f"test: a private {kind.name} at {urls[kind.variable]}")
    return urls


def _install_programs(skipped: list[str]) -> None:
    for program in servers.PROGRAMS:
        if servers.find_binary(program) is None and MAY_INSTALL:
            _apt_install(program.debian_package)
        if servers.find_binary(program) is None:
            skipped.append(f"{program.name}: get it:  apt-get install {program.debian_package}   (or: make test INSTALL=1)")


def _apt_install(package: str) -> None:
    apt = shutil.which("apt-get")
    if apt is None:
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    # Policy: a package's own service is not started; the suite runs a private server.
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    print(f"test: installing {package} with apt-get", flush=True)
    for step in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", package]):
        with contextlib.suppress(OSError):
            subprocess.run([*as_root, apt, *step], env=environment, stdin=subprocess.DEVNULL, check=False)


def _compile() -> None:
    """Compiles what tests start a thousand times: where Python may write no bytecode, each process would do it again, half of its start."""
    apps = sorted(str(folder) for folder in (ROOT / "tests").glob("*/apps"))
    command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "compileall", "-q", "src", "examples", *apps]
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False)


def _pytest(venv: Path, arguments: list[str], environment: dict[str, str]) -> int:
    command = [str(venv / "bin" / "python"), "-m", "pytest", *arguments]
    print(f"test: {venv.name}: pytest {' '.join(arguments)}", flush=True)
    return _run(command, environment)


def _run(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
    try:
        return process.wait()
    except BaseException:
        # Ctrl-C reached pytest too, so give it time to end its own processes; a signal to us alone must be passed on.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
        servers.stop(process, patience=10)
        raise


@contextlib.contextmanager
def _second_environment(skipped: list[str]) -> Iterator["subprocess.Popen[bytes] | None"]:
    """What makes the environment of the second run while the first one waits for things; None: no Python here can have it."""
    bootstrap = [str(ROOT / "scripts" / "bootstrap.sh"), "--venv", SECOND_VENV, "--min", "3.12"]
    if subprocess.run([*bootstrap, "--find"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode:
        skipped.append(
            f"tests/django with {DJANGO_AGAIN}: no Python >= 3.12 with venv and ensurepip was found.\n"
            "    get it:  pyenv install 3.13, or your system's python3.12 or newer"
        )
        yield None
        return
    process = subprocess.Popen(["nice", *bootstrap, DJANGO_AGAIN], cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        servers.stop(process)


def _second_django(made: "subprocess.Popen[bytes]", environment: dict[str, str]) -> int:
    print(f"\ntest: tests/django again, with {DJANGO_AGAIN}", flush=True)
    if code := made.wait():
        return code
    code = _pytest(ROOT / SECOND_VENV, ["tests/django", *SIDE_BY_SIDE], environment)
    return 0 if code == NO_TESTS_COLLECTED else code


def _say_loudly(skipped: list[str]) -> None:
    if not skipped:
        return
    print(f"\n{'!' * 78}\n!! NOT TESTED on this machine:")
    for line in skipped:
        print(f"!!  {line}")
    print("!" * 78, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
