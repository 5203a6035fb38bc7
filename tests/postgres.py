"""PostgreSQL servers of a test's own, which can be killed, stopped and started again; and PgBouncer before one."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests import servers
from tests.processes import wait_for


@dataclass
class PrivatePostgres:
    """A server that keeps its data in *folder* over its lives."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return servers.POSTGRES.url(self.port)

    def start(self) -> None:
        binary = servers.find_binary(servers.POSTGRES)
        assert binary is not None
        command = servers.POSTGRES.command(binary, self.folder, self.port)
        with (self.folder / "postgres.log").open("ab") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        wait_for(lambda: servers.answers(servers.POSTGRES, self.port), 20, lambda: (self.folder / "postgres.log").read_text()[-2000:])

    def pids(self) -> list[int]:
        """All its processes, the first one first."""
        assert self.process is not None
        rows = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines()]
        return [self.process.pid, *(int(child) for child, parent in rows if int(parent) == self.process.pid)]

    def send(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill all its processes at once: what was not written is gone."""
        assert self.process is not None
        pids = self.pids()
        self.send(signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            servers.stop(self.process, farewell=servers.POSTGRES.farewell)


@contextlib.contextmanager
def running_postgres() -> Iterator[PrivatePostgres]:
    """A private server that ends with the block; not in a folder of pytest's, which are closed to the user that it runs as."""
    with tempfile.TemporaryDirectory(prefix="umbel-postgres-") as folder:
        server = PrivatePostgres(Path(folder), servers.free_port())
        try:
            server.start()
            yield server
        finally:
            server.end()


def needs_postgres() -> None:
    """Skip where there is no server to start."""
    if servers.find_binary(servers.POSTGRES) is None:
        pytest.skip("needs a PostgreSQL to kill: apt-get install postgresql")


@contextlib.contextmanager
def pgbouncer(url: str, port: int | None = None) -> Iterator[str]:
    """PgBouncer in transaction mode before the server at *url*; gives the URL that leads through it."""
    binary = servers.find_binary(servers.PGBOUNCER)
    assert binary is not None
    to, port = urlsplit(url), port or servers.free_port()
    with tempfile.TemporaryDirectory(prefix="umbel-pgbouncer-") as name:
        folder = Path(name)
        config, log = folder / "pgbouncer.ini", folder / "pgbouncer.log"
        config.write_text(
            f"[databases]\n* = host={to.hostname} port={to.port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nunix_socket_dir =\n"
        )
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*servers.as_user(binary, folder), binary, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            wait_for(lambda: servers.answers(servers.POSTGRES, port), 10, log.read_text)
            yield to._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()
        finally:
            servers.stop(process)
