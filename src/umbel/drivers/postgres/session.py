"""One connection to PostgreSQL, on which every wait has a deadline."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

from umbel.config_values import masked, without_secrets
from umbel.drivers.lookup import in_time, is_name
from umbel.exceptions import ImproperlyConfigured

__all__ = ["Address", "LateError", "Session"]

RV = TypeVar("RV")
EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}

# What a connection has unless the URL says otherwise: a peer that is gone is noticed by the system, too.
DEFAULTS: Mapping[str, str] = {
    "application_name": "umbel",
    "client_encoding": "UTF8",
    "gssencmode": "disable",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

# Through PgBouncer the process that serves us is another than the one that greeted us, and settings would go to whoever comes next.
GREETING = """
SELECT pg_backend_pid() = %s,
    CASE WHEN pg_backend_pid() = %s THEN set_config('statement_timeout', %s, false) || set_config('jit', 'off', false) END,
    current_setting('server_version_num')::integer"""
OLDEST = 130000


class LateError(Exception):
    """No answer came before the deadline. The connection cannot be used any more."""


class Address:
    """Which database a URL names."""

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
            for port in str(given.get("port") or "").split(","):
                int(port or 0)
        except (psycopg.Error, ValueError):
            # Without its cause and its text: libpq may have cut the URL in the middle of the password, and says the part.
            raise ImproperlyConfigured(
                f"{masked(url)!r} is not a PostgreSQL URL. Write it as postgresql://user:password@host:5432/database, "
                "with %2F for a / in the password, %40 for an @, %23 for a #."
            ) from None
        self.conninfo = make_conninfo("", **{**DEFAULTS, **given})
        self.shown = masked(url)
        self._url = url
        hosts = str(given.get("host") or "").split(",")
        self._named = any(host and not host.startswith("/") and is_name(host) for host in hosts) and not given.get("hostaddr")

    def connect(self, deadline: float, *, statement_timeout: float) -> Session:
        """Open a connection.

        Raises:
            LateError: the server did not answer before *deadline* (by `time.monotonic`).
            psycopg.Error: it cannot be reached, or refused.
        """
        started: list[pq.abc.PGconn] = []

        def start() -> None:
            started.append(pq.PGconn.connect_start(self.conninfo.encode()))

        if self._named:  # libpq looks names up without a deadline
            try:
                in_time(start, max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise LateError from None
        else:
            start()
        session = Session(started[0])
        session.deadline = deadline
        try:
            session.finish_connecting()
            session.greet(statement_timeout)
        except BaseException:
            session.close()
            raise
        return session

    def said(self, exc: BaseException) -> str:
        """Return the text of an error in one line; a server may repeat what it was sent, a password too."""
        lines = str(exc).strip().splitlines()
        return without_secrets(lines[0] if lines else type(exc).__name__, self._url).rstrip(".")


class Session(psycopg.Connection[TupleRow]):
    """A connection. Whoever uses it sets the deadline before."""

    deadline = 0.0  # by `time.monotonic`
    pooled = False  # does something stand between us and the server that gives it to others after each transaction?
    listens = False  # does it hear the bell?
    used = 0.0  # when it was last known to work
    ended = False  # has the server said that it ends it? The end itself may come later.

    def __del__(self, *_: Any) -> None:
        """Say nothing, unlike psycopg: a connection of a pool may end with its program."""

    def finish_connecting(self) -> None:
        """Go on until the server has accepted us."""
        poll = select.poll()
        while True:
            state = self.pgconn.connect_poll()
            if state == pq.PollingStatus.OK:
                break
            if state == pq.PollingStatus.FAILED:
                raise psycopg.OperationalError(self.pgconn.get_error_message())
            reading = state == pq.PollingStatus.READING
            descriptor = self.pgconn.socket
            poll.register(descriptor, select.POLLIN if reading else select.POLLOUT)
            if not poll.poll(max(0.0, self.deadline - time.monotonic()) * 1000):
                raise LateError
            poll.unregister(descriptor)  # it may be another one the next time
        self.pgconn.nonblocking = 1
        self.bells: list[pq.misc.PGnotify] = []  # notifications that came with answers
        self.pgconn.notify_handler = self.bells.append
        self.pgconn.notice_handler = self._noted
        self._autocommit = True
        self.prepare_threshold = None  # functions keep their plans in the server, and a pooler may not know our names

    def _noted(self, notice: pq.abc.PGresult) -> None:
        # What the server says unasked of a connection that nobody uses is an error only if it ends it.
        self.ended = self.ended or notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b"FATAL"

    def greet(self, statement_timeout: float) -> None:
        """Learn whether the server itself answers, and which it is."""
        pid = self.pgconn.backend_pid
        direct, _, version = self.rows(GREETING, (pid, pid, str(int(statement_timeout * 1000))))[0]
        if version < OLDEST:
            raise ImproperlyConfigured(f"PostgreSQL {version // 10000} is too old for umbel. Use 13 or newer.")
        self.pooled = not direct
        self.used = time.monotonic()

    def rows(self, sql: str, params: tuple[Any, ...] = ()) -> list[TupleRow]:
        """Execute one statement, or several without parameters, and return the rows of the last."""
        # Binary, as most of what is read is bytes; without parameters it may be several statements, which only texts can be.
        cursor = self.execute(sql, params or None, binary=bool(params))
        return cursor.fetchall() if cursor.description else []

    def wait(self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None) -> RV:  # noqa: ARG002 - psycopg's signature
        """Let psycopg go on whenever the socket is ready.

        Raises:
            LateError: it was not in time.
        """
        try:
            state = next(gen)
            poll = select.poll()
            poll.register(self.pgconn.socket, EVENTS[state])
            while True:
                found = poll.poll(max(0.0, self.deadline - time.monotonic()) * 1000)
                if not found:
                    raise LateError
                reads = found[0][1] & ~select.POLLOUT  # an error, too, is learned of by reading
                writes = found[0][1] & select.POLLOUT
                state = gen.send(Ready((Ready.R if reads else 0) | (Ready.W if writes else 0)))
                poll.modify(self.pgconn.socket, EVENTS[state])
        except StopIteration as done:
            value: RV = done.value
            return value

    def is_open(self) -> bool:
        """Look whether an idle connection still works: one with something to read was closed by the server, or is out of step."""
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return not self.closed and not self.ended and not poll.poll(0)

    def heard(self, seconds: float) -> set[bytes]:
        """Wait for notifications, at most this long; return what they say."""
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        if poll.poll(seconds * 1000):
            self.pgconn.consume_input()
        return self.drain()

    def drain(self) -> set[bytes]:
        """Take the notifications that came; return what they say."""
        while (notification := self.pgconn.notifies()) is not None:
            self.bells.append(notification)
        said = {each.extra for each in self.bells}
        self.bells.clear()
        return said

    def abandon(self) -> None:
        """Close the socket alone: of the parent's connection, in its child, nothing must be said to the server."""
        with socket.socket(fileno=self.pgconn.socket):
            pass
