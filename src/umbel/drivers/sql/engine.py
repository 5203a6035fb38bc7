"""The engine: its connections, which no fork shares, and calls that end in time, whatever the database does."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from umbel.config_values import masked, without_secrets
from umbel.drivers.sql.tables import Tables
from umbel.exceptions import BackendUnavailable, ImproperlyConfigured

__all__ = ["Database"]

T = TypeVar("T")

TRIES = 6  # of a transaction that met another one
ANSWER = 5.0  # seconds at least for a transaction, after which its connection is cut
PACKAGES = {"postgresql": ("psycopg", "psycopg2"), "mysql": ("MySQLdb", "pymysql"), "mariadb": ("MySQLdb", "pymysql")}
DIALECTS = {"MySQLdb": "mysqldb"}  # where SQLAlchemy's name is not the package's
READS = "umbel_reads"  # an option of a connection
COLLISIONS = {"40001", "40P01", 1205, 1213, 1020}  # SQLSTATE or MySQL's number: another transaction had the rows


class Database:
    """One database, for any number of threads and for what is forked.

    Args:
        url: as SQLAlchemy has it.
        tables: what is made at the first use.
        options: settings of SQL results; `engine_options` and `engine_callback` are used here.
        timeout: seconds to connect in.
    """

    def __init__(self, url: str, tables: Tables, options: Mapping[str, Any], timeout: float) -> None:
        self.address = masked(url)
        self._secret, self._options, self._timeout = url, options, timeout
        self._url, self._driver = chosen(url)
        self._tables = tables
        self._engine: Engine | None = None
        self._pid, self._lock, self._prepared = os.getpid(), threading.Lock(), False

    def close(self) -> None:
        """Close the connections that this process has opened. Safe twice."""
        if self._engine is not None:
            self._engine.dispose(close=self._pid == os.getpid())

    def read(self, work: Callable[[Connection], T]) -> T:
        """Call *work* with a connection that only looks."""
        return self._run(work, {READS: True})

    def write(self, work: Callable[[Connection], T]) -> T:
        """Call *work* in one transaction; again, if others were in the way, so it must do the same each time.

        Raises:
            BackendUnavailable: the database does not answer in time, or refuses.
        """
        return self._run(work, {})

    def prepare(self) -> None:
        """Make tables and columns that are missing, once in each process."""
        self._run(lambda _: None, {READS: True})

    def prepare_also(self, prepare: Callable[[Engine], None]) -> None:
        """Let *prepare* make tables that not everybody needs, after the others."""
        with self._told():
            prepare(self._ready_engine())

    def ping(self) -> None:
        """Look whether the database answers, without making tables."""
        with self._told(), self._connected(self._here(), {READS: True}) as connection:
            connection.exec_driver_sql("SELECT 1")

    def _run(self, work: Callable[[Connection], T], options: dict[str, Any]) -> T:
        lost = False
        for left in reversed(range(TRIES)):
            with self._told():
                try:
                    engine = self._ready_engine()
                    with self._connected(engine, options) as connection, connection.begin():
                        return work(connection)
                except DBAPIError as exc:
                    dead = exc.connection_invalidated
                    if not left or not (is_collision(exc) or (dead and not lost)):
                        raise
                    lost = lost or dead  # one that died while it was not used is found so; a second time it is an outage
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - no secret: so that two do not meet again
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def _connected(self, engine: Engine, options: dict[str, Any]) -> Iterator[Connection]:
        with engine.connect() as plain:
            connection = plain.execution_options(**options) if options else plain
            with cut_after(connection, max(ANSWER, self._timeout)):
                yield connection

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what the database, or its library, complains of, without the password."""
        try:
            yield
        except SQLAlchemyError as exc:
            said = without_secrets(str(getattr(exc, "orig", None) or exc), self._secret).strip()
            raise BackendUnavailable(f"The database at {self.address} does not take or give results: {said}") from exc

    def _ready_engine(self) -> Engine:
        engine = self._here()
        if not self._prepared:
            with self._lock:
                if not self._prepared:
                    self._tables.prepare(engine)
                    self._prepared = True
        return engine

    def _here(self) -> Engine:
        """Return the engine of this process. What a parent has opened is left alone, neither used nor closed."""
        if self._pid != os.getpid():
            # Set aside before the id says so: a second thread of this process must not find the parent's connections here.
            self._lock, parents, self._engine = threading.Lock(), self._engine, None  # a thread that held the lock does not exist here
            if parents is not None:
                parents.dispose(close=False)
            self._pid = os.getpid()
        if self._engine is None:
            with self._lock:
                if self._engine is None:
                    self._engine = self._made()
        return self._engine

    def _made(self) -> Engine:
        wanted = dict(self._options.get("engine_options") or {})
        wanted.pop("pool_pre_ping", None)  # `_run` finds a dead connection by using it, which costs nothing while it lives
        if self._options.get("short_lived_sessions"):
            wanted = {name: value for name, value in wanted.items() if not name.startswith("pool_") and name != "max_overflow"}
            wanted["poolclass"] = NullPool
        wanted["connect_args"] = {**patience(self._driver, self._timeout), **wanted.get("connect_args", {})}
        if self._url.get_backend_name() in {"mysql", "mariadb"}:
            wanted.setdefault("isolation_level", "READ COMMITTED")  # its own default locks what is not there, against others' inserts
        engine = create_engine(self._url, **wanted)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", leave_transactions_to_us)
            event.listen(engine, "begin", begin_sqlite)
        if engine.dialect.name in {"mysql", "mariadb"}:
            event.listen(engine, "connect", be_strict)
        if callback := self._options.get("engine_callback"):
            imported(callback)(engine)
        return engine


def chosen(url: str) -> tuple[URL, str]:
    """Return the URL with a driver whose package is installed, and the name of the driver.

    Raises:
        ImproperlyConfigured: it is no such URL, or no package for it is installed.
    """
    try:
        made = make_url("postgresql" + url[8:] if url.startswith("postgres:") else url)
        name = made.get_backend_name()
        if "+" not in made.drivername and name in PACKAGES:
            found = next((package for package in PACKAGES[name] if importlib.util.find_spec(package)), None)
            if found is None:
                raise ImproperlyConfigured(
                    f"{masked(url)!r} needs a package for {name} that is not installed. Install one: {', '.join(PACKAGES[name])}."
                )
            made = made.set(drivername=f"{name}+{DIALECTS.get(found, found)}")
        driver = made.get_dialect().driver
    except (ArgumentError, NoSuchModuleError, ValueError) as exc:  # the last for a port that is no number
        raise ImproperlyConfigured(
            f"{masked(url)!r} is no URL of a database: {without_secrets(str(exc), url)} Write it as db+postgresql://user:password@host/name."
        ) from exc
    return made, driver


def patience(driver: str, timeout: float) -> dict[str, Any]:
    """Return what bounds connecting, and waiting for an answer where the driver does it itself."""
    whole = max(2, round(timeout))
    if driver in {"psycopg", "psycopg2"}:
        return {"connect_timeout": whole}
    if driver in {"pymysql", "mysqldb"}:
        answer = max(round(ANSWER), whole)
        return {"connect_timeout": whole, "read_timeout": answer, "write_timeout": answer}
    if driver == "pysqlite":
        return {"timeout": timeout}
    return {}


@contextlib.contextmanager
def cut_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Cut the connection to a server that has not answered all in time: nothing else ends a call that waits in a library."""
    raw: Any = connection.connection.dbapi_connection
    if not callable(getattr(raw, "fileno", None)):  # SQLite's has none, and MySQL's drivers look at the clock themselves
        yield
        return
    with socket.socket(fileno=os.dup(raw.fileno())) as line:
        timer = threading.Timer(seconds, shut, [line])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def shut(line: socket.socket) -> None:
    """Let both sides of a connection find its end."""
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def is_collision(exc: DBAPIError) -> bool:
    """Answer whether another transaction was in the way: it wrote the same row first, or both waited for one another."""
    if isinstance(exc, IntegrityError):
        return True
    codes = {getattr(exc.orig, "sqlstate", None), getattr(exc.orig, "pgcode", None), *list(getattr(exc.orig, "args", ()))[:1]}
    return any(isinstance(code, str | int) and code in COLLISIONS for code in codes)


def leave_transactions_to_us(raw: Any, _: object) -> None:
    """Keep Python's sqlite3 from beginning transactions: it begins none for a look, and a look must lock here."""
    raw.isolation_level = None


def begin_sqlite(connection: Connection) -> None:
    """Begin a transaction; one that writes takes its lock first, as nobody else may write between its look and its write."""
    reads = connection.get_execution_options().get(READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def be_strict(raw: Any, _: object) -> None:
    """Let MySQL refuse what does not fit, instead of cutting it off."""
    cursor = raw.cursor()
    cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
    cursor.close()


def imported(callback: Any) -> Callable[[Engine], object]:
    """Return the setting `database_engine_callback`, which may be a dotted name."""
    if callable(callback):
        return callback  # type: ignore[no-any-return]
    module, _, name = str(callback).replace(":", ".").rpartition(".")
    try:
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(f"database_engine_callback is {callback!r}, which cannot be imported: {exc}") from exc
