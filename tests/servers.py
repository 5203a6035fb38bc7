"""Private servers for the tests: started on free ports, keeping nothing, and ended with the run."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKind:
    """What must be known of a server to run a private one of it."""

    name: str
    binary: str
    variable: str  # names a running server to use instead
    debian_package: str
    command: Callable[[str, Path, int], list[str]]
    url: Callable[[int], str]
    greets: Callable[[int], bool]


class ServerDiedError(Exception):
    """A private server ended, or did not answer, before it was ready."""


def _redis_command(binary: str, folder: Path, port: int) -> list[str]:
    keeps_nothing = ["--save", "", "--appendonly", "no"]
    return [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--daemonize", "no", *keeps_nothing]


def _redis_greets(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")


REDIS = ServerKind(
    name="Redis",
    binary="redis-server",
    variable="UMBEL_TEST_REDIS_URL",
    debian_package="redis-server",
    command=_redis_command,
    url=lambda port: f"redis://127.0.0.1:{port}",
    greets=_redis_greets,
)

# RabbitMQ and PostgreSQL join this table together with their drivers.
KINDS: tuple[ServerKind, ...] = (REDIS,)


def free_port() -> int:
    """A TCP port of this host that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def find_binary(kind: ServerKind) -> str | None:
    """The path of the server's program; Debian keeps some outside the usual PATH."""
    return shutil.which(kind.binary) or shutil.which(kind.binary, path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin")


@contextlib.contextmanager
def private(kind: ServerKind) -> Iterator[str]:
    """Runs a private server for the length of the block, and gives its URL.

    Raises:
        ServerDiedError: the program ended or did not answer in 20 s; the message has the end of its log.
    """
    binary = find_binary(kind)
    if binary is None:
        raise ServerDiedError(f"{kind.binary} is not installed. Install it: apt-get install {kind.debian_package}")
    with tempfile.TemporaryDirectory(prefix=f"umbel-{kind.binary}-") as name, contextlib.ExitStack() as stack:
        port, process = _start(kind, binary, Path(name))
        stack.callback(stop, process)
        yield kind.url(port)


def _start(kind: ServerKind, binary: str, folder: Path) -> tuple[int, "subprocess.Popen[bytes]"]:
    log = folder / "server.log"
    for _ in range(3):  # another process may take the free port first
        port = free_port()
        with log.open("wb") as out:
            process = subprocess.Popen(
                kind.command(binary, folder, port),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the run, which then stops its servers
            )
        if _ready(kind, port, process):
            return port, process
        stop(process)
    raise ServerDiedError(f"{binary} did not start. The end of its log:\n{log.read_text(errors='replace')[-2000:]}")


def _ready(kind: ServerKind, port: int, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if kind.greets(port):
                return process.poll() is None
        time.sleep(0.02)
    return False


def stop(process: "subprocess.Popen[bytes]", patience: float = 5) -> None:
    """Ends a process: TERM, then KILL when it does not go in time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
    process.wait()
