"""Private servers for the tests: started on free ports, keeping nothing, and ended with the run."""

import base64
import contextlib
import hashlib
import json
import os
import pwd
import shutil
import signal
import socket
import struct
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
    farewell: int = signal.SIGTERM  # ends it, though clients are connected
    environment: Callable[[Path, int], dict[str, str]] = lambda folder, port: {}
    patience: float = 20.0  # seconds until it answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that a test starts by itself; it stands beside a server."""

    name: str
    binary: str
    debian_package: str
    variable: str = ""  # none names a running one


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


def as_user(binary: str, folder: Path) -> list[str]:
    """What starts *binary* as a user that owns *folder*: PostgreSQL, PgBouncer and MariaDB refuse to run as root."""
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    if str(Path(binary).parent) == os.environ.get("UMBEL_TEST_BINARIES"):
        return ["env", f"UMBEL_AS={user.pw_uid}:{user.pw_gid}"]  # see scripts/server_roots.sh
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _postgres_command(binary: str, folder: Path, port: int) -> list[str]:
    prefix, data = as_user(binary, folder), folder / "data"
    if not data.exists():
        initdb = [str(Path(binary).with_name("initdb")), "-D", str(data), "-U", "postgres"]
        command = [*prefix, *initdb, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=60, cwd=folder)
    given = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "max_connections": 200, "fsync": "off"}
    return [*prefix, binary, "-D", str(data), *(part for name, value in given.items() for part in ("-c", f"{name}={value}"))]


def _postgres_greets(port: int) -> bool:
    body = struct.pack("!I", 196608) + b"user\0postgres\0database\0postgres\0\0"
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(struct.pack("!I", len(body) + 4) + body)
        return connection.recv(1) == b"R"  # it authenticates; while it starts it answers with an error


POSTGRES = ServerKind(
    name="PostgreSQL",
    binary="postgres",
    variable="UMBEL_TEST_POSTGRES_URL",
    debian_package="postgresql",
    command=_postgres_command,
    url=lambda port: f"postgresql://postgres@127.0.0.1:{port}/postgres",
    greets=_postgres_greets,
    farewell=signal.SIGINT,
)

PGBOUNCER = Program(name="PgBouncer", binary="pgbouncer", debian_package="pgbouncer")
CHROMIUM = Program(name="Chromium", binary="chromium", debian_package="chromium")
PROGRAMS: tuple[Program, ...] = (PGBOUNCER, CHROMIUM)


def _mariadb_command(binary: str, folder: Path, port: int) -> list[str]:
    prefix, data = as_user(binary, folder), folder / "data"
    if not data.exists():
        installer = shutil.which("mariadb-install-db", path=f"{Path(binary).parent}:/usr/bin:/usr/local/bin") or "mariadb-install-db"
        install = [installer, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run([*prefix, *install], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=60, cwd=folder)
    given = {"datadir": data, "bind-address": "127.0.0.1", "port": port, "socket": folder / "socket", "pid-file": folder / "pid"}
    keeps_little = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--skip-log-bin"]
    return [*prefix, binary, "--no-defaults", *(f"--{name}={value}" for name, value in given.items()), *keeps_little]


def _mariadb_greets(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        return connection.recv(5)[4:] == b"\x0a"  # the version of its protocol, or 255 while it cannot


MARIADB = ServerKind(
    name="MariaDB",
    binary="mariadbd",
    variable="UMBEL_TEST_MARIADB_URL",
    debian_package="mariadb-server",
    command=_mariadb_command,
    url=lambda port: f"mysql+pymysql://root@127.0.0.1:{port}/mysql",
    greets=_mariadb_greets,
)


VHOSTS = ("/", *(f"gw{number}" for number in range(8)))  # of RabbitMQ: each process of the tests has one, named as xdist names the process


def _rabbitmq_definitions() -> dict[str, object]:
    """Users and virtual hosts, as RabbitMQ's own exports have them. Where there are such, it makes no user by itself."""
    salt = b"salt"
    secret = base64.b64encode(salt + hashlib.sha256(salt + b"guest").digest()).decode()
    everything = {"user": "guest", "configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [
            {"name": "guest", "password_hash": secret, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"]}
        ],
        "vhosts": [{"name": name} for name in VHOSTS],
        "permissions": [{"vhost": name, **everything} for name in VHOSTS],
    }


def _rabbitmq_environment(folder: Path, port: int) -> dict[str, str]:
    """Everything in *folder*: its own node, cookie, files; the node's name has the port, as all nodes of a host are known to one daemon."""
    plugins = folder / "plugins"
    plugins.write_text("[].")
    conf = folder / "rabbitmq.conf"
    if not conf.exists():
        definitions = folder / "definitions.json"
        definitions.write_text(json.dumps(_rabbitmq_definitions()))
        conf.write_text(f"log.console.level = warning\nload_definitions = {definitions}\n")
    return {
        "HOME": str(folder), "RABBITMQ_NODENAME": f"umbel{port}@localhost", "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_DIST_PORT": str(free_port()), "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"), "RABBITMQ_LOGS": "-", "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_CONFIG_FILE": str(conf), "RABBITMQ_CONF_ENV_FILE": "/dev/null", "ERL_EPMD_ADDRESS": "127.0.0.1",
        # Or idle servers keep the processors from the tests: Erlang's schedulers spin while they wait.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
    }  # fmt: skip


def _rabbitmq_greets(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"


RABBITMQ = ServerKind(
    name="RabbitMQ",
    binary="/usr/lib/rabbitmq/bin/rabbitmq-server",  # Debian's own in the PATH changes to another user
    variable="UMBEL_TEST_AMQP_URL",
    debian_package="rabbitmq-server",
    command=lambda binary, folder, port: [binary],
    url=lambda port: f"amqp://guest:guest@127.0.0.1:{port}/gw0",
    greets=_rabbitmq_greets,
    environment=_rabbitmq_environment,
    patience=90.0,
)

KINDS: tuple[ServerKind, ...] = (REDIS, POSTGRES, MARIADB, RABBITMQ)


def free_port() -> int:
    """A TCP port of this host that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def find_binary(kind: ServerKind | Program) -> str | None:
    """The path of the server's program, if there is one in UMBEL_TEST_BINARIES, that; Debian keeps some outside the usual PATH."""
    if other := shutil.which(Path(kind.binary).name, path=os.environ.get("UMBEL_TEST_BINARIES", "")):
        return other
    folders = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin", *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))]
    return shutil.which(kind.binary) or shutil.which(kind.binary, path=":".join(folders))


def answers(kind: ServerKind, port: int) -> bool:
    """Whether a server of this kind serves clients there now."""
    try:
        return kind.greets(port)
    except OSError:
        return False


@contextlib.contextmanager
def private(kind: ServerKind) -> Iterator[str]:
    """Runs a private server for the length of the block, and gives its URL.

    Raises:
        ServerDiedError: the program ended or did not answer in time; the message has the end of its log.
    """
    binary = find_binary(kind)
    if binary is None:
        raise ServerDiedError(f"{kind.binary} is not installed. Install it: apt-get install {kind.debian_package}")
    with tempfile.TemporaryDirectory(prefix=f"umbel-{Path(kind.binary).name}-") as name, contextlib.ExitStack() as stack:
        port, process = _start(kind, binary, Path(name))
        stack.callback(stop, process, farewell=kind.farewell)
        yield kind.url(port)


def _start(kind: ServerKind, binary: str, folder: Path) -> tuple[int, "subprocess.Popen[bytes]"]:
    log = folder / "server.log"
    for _ in range(3):  # another process may take the free port first
        port = free_port()
        with log.open("wb") as out:
            process = subprocess.Popen(
                kind.command(binary, folder, port),
                env={**os.environ, **kind.environment(folder, port)},
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
    deadline = time.monotonic() + kind.patience
    while time.monotonic() < deadline and process.poll() is None:
        if answers(kind, port):
            return process.poll() is None
        time.sleep(0.02)
    return False


def stop(process: "subprocess.Popen[bytes]", patience: float = 5, farewell: int = signal.SIGTERM) -> None:
    """Ends a process: TERM, or what it wants instead, then KILL when it does not go in time."""
    if process.poll() is None:
        process.send_signal(farewell)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
    process.wait()
