"""One SQLite file: its connection, transactions with a deadline, and waiting for a change."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

from umbel.drivers.sqlite.bell import Bell
from umbel.exceptions import BackendUnavailable, BrokerUnavailable, ImproperlyConfigured

__all__ = ["Database", "path_of"]

SCHEMA = 2  # of what the tables mean: a file of another one is refused
NEWEST = "umbel_schedule_states"  # a file without this table is from before: it is added, and an older umbel does not mind
SHORTEST_POLL, LONGEST_POLL = 0.0005, 0.015  # seconds between two looks at the file
ECHO = 0.05  # seconds of looking often after the bell has rung
SLOWEST_SYNC = 2.0  # seconds of looking at all: it rings at a write, and others see what was written once it is on the disk
LONGEST_PAUSE = 0.005  # seconds between two attempts to get the lock that another process holds

REMEDIES = {
    "SQLITE_CANTOPEN": "Create the folder and allow this user to write in it, or change the URL.",
    "SQLITE_READONLY": "Allow this user to write the file and its folder: SQLite keeps two files beside it.",
    "SQLITE_PERM": "Allow this user to write the file and its folder: SQLite keeps two files beside it.",
    "SQLITE_FULL": "The disk is full: free some space.",
    "SQLITE_IOERR": "The disk refused: look whether it is full, over its quota, or broken.",
    "SQLITE_BUSY": "Another process holds the lock. End what keeps a transaction open, or raise the timeout.",
    "SQLITE_NOTADB": "The file is not an SQLite database: move it away, or change the URL.",
    "SQLITE_CORRUPT": "The file is damaged: move it away with its -wal and -shm files, and restore a copy.",
}


class Database:
    """One connection, used by one thread at a time.

    SQLite lets one transaction write at a time anyway, and threads that queue at a lock of their own process wait
    shorter than at SQLite's, which is polled. And one idle connection can be closed before a fork: SQLite's locks
    belong to the process, and a child that inherits a connection can damage the file.
    """

    def __init__(
        self, path: str, *, options: Mapping[str, Any], timeout: float, error: type[BrokerUnavailable | BackendUnavailable]
    ) -> None:
        self.path = path
        self._synchronous = synchronous_of(options)
        self._timeout = timeout
        self._error = error
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # which file the path named when it was opened
        self._renew_locks()
        self.commits = 0
        self._version = (0, 0)  # what the last wait saw, and how long it paused: a new wait goes on from there
        self._pause = SHORTEST_POLL
        watch_forks(self)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._held_for_fork = False
        self._bells = threading.local()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection outside of a transaction."""
        deadline = time.monotonic() + self._timeout
        self._acquire(self._timeout)
        try:
            yield self._open(deadline)
        except sqlite3.Error as exc:
            raise self._explain(exc) from exc
        finally:
            self._lock.release()

    @contextmanager
    def write(self, timeout: float | None = None) -> Iterator[sqlite3.Connection]:
        """Lend the connection for one transaction, which is durable when the block ends, or undone if it fails."""
        limit = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        self._acquire(limit)
        committing = False
        try:
            connection = self._open(deadline)
            self._insist(connection, "BEGIN IMMEDIATE", deadline)
            try:
                yield connection
                committing = True
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # some failures have ended the transaction already
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            raise self._explain(exc, maybe_sent=committing) from exc
        finally:
            self._lock.release()
        with self._changed:
            self.commits += 1
            self._changed.notify_all()

    def wait(self, look: Callable[[sqlite3.Connection], float | None], timeout: float) -> None:
        """Return when *look* returns 0 or less, or after *timeout*; it says in how many seconds to look again.

        Other processes are noticed by the bell, and where the system has none, by asking SQLite for its `data_version`,
        a counter in memory that every commit of another connection moves: every 0.5 ms after a change, every 15 ms when
        nothing goes on. A change that was missed is found at the end of *timeout*.
        """
        bell = self._bell()  # before the first look, so that it hears all that is not seen
        deadline = time.monotonic() + timeout
        again, seen = 0.0, None
        while True:
            with self.read() as connection:
                commits = self.commits
                version = (commits, connection.execute("PRAGMA data_version").fetchone()[0])
                now = time.monotonic()
                if version != self._version:
                    self._version, self._pause = version, SHORTEST_POLL
                if version != seen or now >= again:
                    seen, after = version, look(connection)
                    again = now + after if after is not None else deadline + 1
            if again <= now or now >= deadline:
                return
            left = max(0.0, min(deadline, again) - now)
            if bell.hears and now >= bell.rang + ECHO:
                if bell.wait(left if now >= bell.rang + SLOWEST_SYNC else min(left, LONGEST_POLL)):
                    self._pause = SHORTEST_POLL
                continue
            with self._changed:
                if self.commits == commits:
                    self._changed.wait(min(self._pause, left))
            self._pause = min(self._pause * 1.5, LONGEST_POLL)

    def _bell(self) -> Bell:
        """Return this thread's bell."""
        bell: Bell | None = getattr(self._bells, "bell", None)
        if bell is None or not bell.hears:
            bell = self._bells.bell = Bell(self.path)
        return bell

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        self._acquire(self._timeout)
        try:
            self._shut()
        finally:
            self._lock.release()

    def _acquire(self, limit: float) -> None:
        if not self._lock.acquire(timeout=limit):
            raise self._error(f"{self.path} was not free within {limit:g} s: other threads of this process use it.")

    def _shut(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self, deadline: float) -> sqlite3.Connection:
        if self._connection is not None:
            if self._file == identity(self.path):
                return self._connection
            self._shut()
            raise self._error(
                f"The database {self.path} was removed or replaced while it was in use. What it held is not in the new one: "
                "stop umbel before you move the file. It is opened anew."
            )
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.0, cached_statements=256)
        try:
            self._insist(connection, "PRAGMA journal_mode = WAL", deadline)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._prepare(connection, deadline)
        except BaseException:
            connection.close()
            raise
        self._connection, self._file = connection, identity(self.path)
        return connection

    def _prepare(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Make the tables that are missing: all in a new file, the newest in one of before. Who does not know a table leaves it alone."""
        known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name IN ('umbel_meta', ?)", (NEWEST,))}
        if "umbel_meta" in known:
            self._check_version(connection)
        if NEWEST in known:
            return
        script = (resources.files("umbel.drivers.sqlite") / "schema.sql").read_text()
        self._insist(connection, "BEGIN IMMEDIATE", deadline)
        try:
            for statement in statements_of(script):
                connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._check_version(connection)  # another process may have been quicker

    def _check_version(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("SELECT value FROM umbel_meta WHERE name = 'schema'").fetchone()[0]
        if version != SCHEMA:
            raise ImproperlyConfigured(
                f"{self.path} has tables of version {version}, and this umbel knows version {SCHEMA}. "
                "Use the umbel that made the file, or drain its queues and start a new file."
            )

    @staticmethod
    def _insist(connection: sqlite3.Connection, statement: str, deadline: float) -> None:
        """Execute *statement*, again and again while another process holds the lock it needs.

        SQLite's own waiting sleeps up to 100 ms at a time, and fails at once where it suspects a deadlock.
        """
        pause = 0.0005
        while True:
            try:
                connection.execute(statement)
            except sqlite3.OperationalError as exc:
                if not exc.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() >= deadline:
                    raise
            else:
                return
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that two processes do not step in time
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _explain(self, exc: sqlite3.Error, *, maybe_sent: bool = False) -> Exception:
        name = getattr(exc, "sqlite_errorname", "")
        remedy = next((text for start, text in REMEDIES.items() if name.startswith(start)), "")
        failure = self._error(f"The database {self.path} cannot be used: {exc}. {remedy}".rstrip())
        if isinstance(failure, BrokerUnavailable):
            failure.maybe_sent = maybe_sent and not name.startswith("SQLITE_FULL")
        return failure

    def before_fork(self) -> None:
        """Close the connection and keep the lock over the fork."""
        self._held_for_fork = self._lock.acquire(timeout=self._timeout)
        if self._held_for_fork:
            self._shut()

    def after_fork_in_parent(self) -> None:
        """Give the lock back."""
        if self._held_for_fork:
            self._held_for_fork = False
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start with new locks, as the threads that may hold the old ones are not here."""
        if not self._held_for_fork and self._connection is not None:
            LEAKED.append(self._connection)  # a thread of the parent is in a transaction: closing here would disturb it
            self._connection = None
        self._renew_locks()


DATABASES: weakref.WeakSet[Database] = weakref.WeakSet()
LEAKED: list[sqlite3.Connection] = []
LOCK = threading.RLock()  # of DATABASES; held over a fork
hooked = threading.Event()


def watch_forks(database: Database) -> None:
    """Let *database* know when this process forks."""
    with LOCK:
        DATABASES.add(database)
        if hooked.is_set():
            return
        hooked.set()
        os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)


def before_fork() -> None:
    """Get all databases ready for a fork."""
    LOCK.acquire()
    for database in list(DATABASES):
        database.before_fork()


def after_fork_in_parent() -> None:
    """Let all databases be used again."""
    for database in list(DATABASES):
        database.after_fork_in_parent()
    LOCK.release()


def after_fork_in_child() -> None:
    """Let all databases be used in the child."""
    for database in list(DATABASES):
        database.after_fork_in_child()
    LOCK.release()


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at *path* from any other; None: there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice as quick as a Path, and done at each transaction
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def synchronous_of(options: Mapping[str, Any]) -> str:
    """Return the option `synchronous`: FULL (a power cut loses nothing) unless another is asked for."""
    value = str(options.get("synchronous", "FULL")).upper()
    if value not in {"OFF", "NORMAL", "FULL", "EXTRA"}:
        raise ImproperlyConfigured(f"The option synchronous of SQLite is {value!r}. Known: OFF, NORMAL, FULL, EXTRA.")
    return value


def statements_of(script: str) -> Iterator[str]:
    """Yield the statements of an SQL script: `executescript` would commit the transaction it runs in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def path_of(url: str) -> str:
    """Return the absolute path in `sqlite:////absolute/path`."""
    path = url.partition(":///")[2]
    if not path.startswith("/"):
        raise ImproperlyConfigured(f"{url!r} has no absolute path. Write sqlite:////absolute/path/umbel.sqlite3 (four slashes).")
    return str(Path(path))
