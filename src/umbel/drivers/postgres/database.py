"""The connections to one database: each call is one statement, one round trip, one transaction, and has a deadline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from umbel.config_values import without_secrets
from umbel.drivers.postgres import schema
from umbel.drivers.postgres.session import Address, LateError, Session
from umbel.exceptions import BackendUnavailable, BrokerUnavailable
from umbel.forks import process

__all__ = ["Database", "OwnerLostError"]

OWNER_LOST = "UM001"  # what our functions raise
IDLE_CHECK = 1.0  # seconds after which an idle connection is looked at before it is used: the server may have closed it
CONNECT_SHARE = 0.6  # of the time for a call; the rest is for the answer
SHORTEST = 0.05  # seconds for an answer, when connecting took all of the time
MIGRATION = 20.0  # seconds at least: it happens once, and others wait for who does it

ROLLED_BACK = {"40001", "40P01"}  # serialization failure, deadlock: nothing happened, and the same may succeed at once
ENDING = {"57P01", "57P02", "57P03", "57P04"}  # the server ends or starts
NO_TABLES = {"42P01", "3F000", "42883"}  # of the table, the schema, the function
NOT_NOW = {"55P03", "57014", "53300", *ENDING}  # a lock or a statement took too long, too many connections: it is not what was asked for

REMEDIES = {
    "53100": "The server's disk is full: free some space.",
    "42501": "Grant the user its rights on the schema, or use the user that ran umbel migrate.",
    "25006": "The server takes no writes: it may be a standby. Use the primary's address, or target_session_attrs=read-write in the URL.",
    "55P03": "Another transaction holds a lock on umbel's tables. End it: pg_locks and pg_stat_activity show whose it is.",
    "57014": "The server was too slow. Look what keeps it busy, or raise the timeout.",
    "53300": "Raise max_connections, or put PgBouncer between.",
    "28P01": "Check user and password in the URL.",
    "3D000": "Create the database, or change its name in the URL.",
}


class OwnerLostError(Exception):
    """The function found that the owner is not in the table."""


class Database:
    """A pool of connections to one database; safe under threads and after a fork."""

    def __init__(
        self, url: str, *, options: Mapping[str, Any], timeout: float, error: type[BrokerUnavailable | BackendUnavailable]
    ) -> None:
        self._address = Address(url)
        self._url = url
        self.schema = schema.schema_of(options)
        self.timeout = timeout
        self._migrate = bool(options.get("migrate", True))
        self._error = error
        self.renew()

    def renew(self) -> None:
        """Begin without connections: they are another process's."""
        self._pid = process.pid
        self._idle: deque[Session] = deque()
        self._listening: deque[Session] = deque()
        self._checked = False
        self._check_lock = threading.Lock()

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self._address.shown

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells this store from any other, as far as the URL says it."""
        info = psycopg.conninfo.conninfo_to_dict(self._address.conninfo)
        return (*(str(info.get(name) or "") for name in ("host", "hostaddr", "port", "dbname")), self.schema)

    def call(self, sql: str, params: tuple[Any, ...] = (), *, timeout: float | None = None, repeat: bool = False) -> list[TupleRow]:
        """Execute *sql*, in which `umbel.` stands for the schema, and return its rows.

        *repeat* says that it may be carried out twice, so that it is sent again when a connection breaks.

        Raises:
            OwnerLostError: a function says so.
            BrokerUnavailable, BackendUnavailable: no answer came in time, or the server refused.
        """
        limit = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        while True:
            try:
                return self._once(sql, params, deadline, limit)
            except (BrokerUnavailable, BackendUnavailable) as exc:
                state = getattr(exc.__cause__, "sqlstate", None)
                broke = repeat and state is None and isinstance(exc.__cause__, psycopg.OperationalError)
                if not (state in ROLLED_BACK or broke) or time.monotonic() >= deadline:
                    raise
                repeat = repeat and not broke  # a connection that breaks again is an outage

    def _once(self, sql: str, params: tuple[Any, ...], deadline: float, limit: float) -> list[TupleRow]:
        session = self.take(deadline, limit)
        try:
            rows = session.rows(schema.rename(sql, self.schema), params)
        except (psycopg.Error, LateError) as exc:
            state = getattr(exc, "sqlstate", None)
            if state is None or state in ENDING:
                session.close()
            else:
                self.put(session)
            if state == OWNER_LOST:
                raise OwnerLostError from None
            raise self.explain(exc, limit, sent=True) from exc
        except BaseException:  # a time limit of a task, for example: nobody reads the answer
            session.close()
            raise
        self.put(session)
        return rows

    def take(self, deadline: float, limit: float) -> Session:
        """Lend a connection; its answers are to be there at *deadline*."""
        if self._pid != process.pid:
            self._leave_to_parent()
        while self._idle:
            try:
                session = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if time.monotonic() - session.used < IDLE_CHECK or session.is_open():
                session.deadline = deadline
                return session
            session.close()
        return self.connect(deadline, limit)

    def put(self, session: Session) -> None:
        """Take a connection back."""
        session.used = time.monotonic()
        self._idle.append(session)

    def connect(self, deadline: float, limit: float) -> Session:
        """Open a connection, and make sure, the first time, that the tables are there."""
        left = deadline - time.monotonic()
        try:
            session = self._address.connect(time.monotonic() + left * CONNECT_SHARE, statement_timeout=self.timeout)
        except (psycopg.Error, LateError) as exc:
            raise self._unreachable(exc, limit) from exc
        try:
            if not self._checked:
                deadline += self._prepare(session, deadline)
        except (psycopg.Error, LateError) as exc:
            session.close()
            raise self.explain(exc, limit, sent=False) from exc
        except BaseException:
            session.close()
            raise
        session.deadline = max(deadline, time.monotonic() + SHORTEST)
        return session

    def _prepare(self, session: Session, deadline: float) -> float:
        """Return the seconds that making the tables took: they are made once, and not in the time of a call."""
        began = time.monotonic()
        took = 0.0
        if not self._check_lock.acquire(timeout=MIGRATION):
            raise LateError
        try:
            if self._checked:  # by another thread, while we waited
                return time.monotonic() - began
            if time.monotonic() > deadline:  # it failed, and it took all of our time
                raise LateError
            session.deadline = deadline
            last, serves = schema.found(session.rows, self.schema)
            if not last and self._migrate:
                began = time.monotonic()
                self._make_tables(session)
                took = time.monotonic() - began
                session.deadline = max(deadline + took, time.monotonic() + SHORTEST)
                last, serves = schema.found(session.rows, self.schema)
            schema.check(last, serves, self.schema, self._address.shown)
            self._checked = True
        finally:
            self._check_lock.release()
        return took

    def _make_tables(self, session: Session) -> list[str]:
        session.deadline = time.monotonic() + MIGRATION
        with session.transaction():
            session.rows("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")  # each statement is to see what others have made
            session.rows("SET LOCAL statement_timeout TO 0")
            session.rows(f"SET LOCAL lock_timeout TO '{MIGRATION:g}s'")
            return schema.migrate(session.rows, self.schema)

    def migrate(self) -> list[str]:
        """Bring the tables up to date; return the names of the migrations that were carried out."""
        deadline = time.monotonic() + MIGRATION
        try:
            session = self._address.connect(deadline, statement_timeout=MIGRATION)
        except (psycopg.Error, LateError) as exc:
            raise self._unreachable(exc, MIGRATION) from exc
        try:
            return self._make_tables(session)
        except (psycopg.Error, LateError) as exc:
            raise self.explain(exc, MIGRATION, sent=False) from exc
        finally:
            session.close()

    @contextmanager
    def listening(self) -> Iterator[Session]:
        """Lend a connection that hears the bell, if nothing stands between it and the server."""
        session = self._listener() or self.connect(time.monotonic() + self.timeout, self.timeout)
        try:
            if not session.pooled and not session.listens:
                session.rows(f'LISTEN "{self.schema}.bell"')
                session.listens = True
            yield session
        except (psycopg.Error, LateError) as exc:
            session.close()
            raise self.explain(exc, self.timeout, sent=False) from exc
        except BaseException:
            session.close()
            raise
        self._listening.append(session)

    def _listener(self) -> Session | None:
        """Return a connection that has listened before, if there is one and it still works."""
        if self._pid != process.pid:
            self._leave_to_parent()
        while self._listening:
            with suppress(IndexError):  # another thread took the last one
                session = self._listening.pop()
                with suppress(psycopg.Error):  # the server has ended it
                    session.heard(0)
                    if session.is_open():  # nothing is to be read any more, not even an end
                        return session
                session.close()
        return None

    def _unreachable(self, exc: Exception, limit: float) -> Exception:
        state = getattr(exc, "sqlstate", None)
        reason = f"no answer within {limit:g} s" if isinstance(exc, LateError) else self._address.said(exc)
        answered = state is not None or "FATAL" in str(exc)
        text = f"PostgreSQL at {self._address.shown} "
        text += f"answered: {reason}." if answered else f"does not answer: {reason}. Check that it runs and that the URL is right."
        return self._failure(f"{text} {REMEDIES.get(state or '', '')}".rstrip(), unreachable=not answered)

    def explain(self, exc: Exception, limit: float, *, sent: bool) -> Exception:
        """Return what to raise for *exc*. *sent*: the statement had been sent, so it may have been carried out without an answer."""
        state = getattr(exc, "sqlstate", None)
        at = f"PostgreSQL at {self._address.shown}"
        if isinstance(exc, LateError):
            self.close()  # most likely the others wait in vain, too
            return self._failure(f"{at} was lost: no answer within {limit:g} s.", maybe_sent=sent)
        if state is None and not isinstance(exc, psycopg.OperationalError):  # said before anything was sent
            return ValueError(f"PostgreSQL cannot keep it: {self._address.said(exc)}.")
        if state is None or state in ENDING:
            self.close()
            return self._failure(f"{at} was lost: {self._address.said(exc)}.", maybe_sent=sent)
        if state in NO_TABLES or state == "25006":  # dropped, or another server answers at this address now
            self._checked = False
            self.close()
        said = f"{at} refused: {self._address.said(exc)}. {REMEDIES.get(state, '')}".rstrip()
        return self._failure(said, refused=state not in NOT_NOW)

    def _failure(self, text: str, **flags: bool) -> Exception:
        text = without_secrets(text, self._url)
        return self._error(text, **flags) if issubclass(self._error, BrokerUnavailable) else self._error(text)

    def _leave_to_parent(self) -> None:
        """After a fork: the parent's connections are not ours to use, and closing them would say good-bye in its name."""
        for session in (*self._idle, *self._listening):
            LEFT.append(session)
            with suppress(OSError, psycopg.Error):
                session.abandon()
        self.renew()

    def close(self) -> None:
        """Close the connections that are not lent; the next call opens one again."""
        if self._pid != process.pid:
            self._leave_to_parent()
        for idle in (self._idle, self._listening):
            while idle:
                with suppress(IndexError):
                    idle.pop().close()


LEFT: list[Session] = []  # connections of a parent, kept so that nothing is done when they would be collected
