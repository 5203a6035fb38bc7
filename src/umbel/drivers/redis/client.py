"""A small synchronous client on top of redis-py's connections: pipelines of scripts, one deadline for each call.

redis-py's own `Redis.execute_command` costs more than the round trip it makes; what is used of redis-py here is its
URL parsing, its connections and its parser.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha1
from importlib import resources
from typing import Any, NoReturn

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from umbel.config_values import masked, without_secrets
from umbel.drivers.lookup import in_time
from umbel.drivers.redis.addresses import maker
from umbel.exceptions import BrokerUnavailable
from umbel.forks import process

__all__ = ["Begun", "Client", "Script", "load_script"]

IDLE_CHECK = 1.0  # seconds after which a pooled connection is looked at before it is used: the server may have closed it
FAULTS = (RedisError, OSError)
# What a server refuses at the first write of a script, as its state forbids all writes.
REFUSED_FIRST = ("command not allowed when used memory", "MISCONF", "read only replica", "NOREPLICAS")
# What a server says that is a replica now, and none that may be written to.
DEMOTED = ("READONLY", "read only replica", "Link with MASTER is down", "UNBLOCKED")
# What a script says that ran into what its user must not do.
FORBIDDEN = ("can't run this command", "ACL failure", "can't access")
REPLY_SHARE = 0.6  # of the time for a call; the rest is for the connection: together they keep the deadline
SHORTEST_WAIT = 0.05  # seconds for a reply, when connecting took all of the time


class Script:
    """A Lua script and its hash."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


def load_script(name: str, *, shared: Sequence[str] = ("_ring", "_lib")) -> Script:
    """Read `scripts/<name>.lua`, with the files of shared functions before it: each costs a microsecond per call."""
    folder = resources.files("umbel.drivers.redis") / "scripts"
    return Script("".join((folder / f"{each}.lua").read_text() for each in (*shared, name)))


class Begun:
    """The call of a script, written but for its last argument: who makes it often writes the rest once."""

    __slots__ = ("args", "packed", "script")

    def __init__(self, script: Script, args: Sequence[Any]) -> None:
        self.script, self.args = script, args
        rest = packed([("EVALSHA", script.sha, 0, *args)]).partition(b"\r\n")[2]
        self.packed = b"*%d\r\n%b" % (len(args) + 4, rest)  # the name, the hash, the number of keys, and the last argument


class Client:
    """A pool of connections to one database; safe under threads and after a fork."""

    passed_on: tuple[type[Exception], ...] = (NoScriptError,)  # error replies that the caller of `pipeline` knows how to go on after

    def __init__(self, url: str, *, options: Mapping[str, Any], timeout: float) -> None:
        self._given = url, options
        self._make, self._named, self.address = maker(url, options, connect_in=timeout * (1 - REPLY_SHARE), reply_in=timeout * REPLY_SHARE)
        self.url = masked(url)
        self.timeout = timeout
        self._idle: deque[tuple[Any, float]] = deque()
        self._pid = process.pid

    def hurried(self, timeout: float) -> Client:
        """Return a client of the same database with another deadline, to be closed after use."""
        url, options = self._given
        return type(self)(url, options=options, timeout=timeout)

    @contextmanager
    def connection(self, near: str = "") -> Iterator[Any]:  # noqa: ARG002
        """Lend a connection, to where the key *near* is. It is dropped, not returned, when the block fails."""
        connection = self._take()
        try:
            yield connection
        except ResponseError:
            self._idle.append((connection, time.monotonic()))
            raise
        except BaseException:
            connection.disconnect()
            raise
        self._idle.append((connection, time.monotonic()))

    def _take(self) -> Any:
        if self._pid != process.pid:  # after a fork: the parent's sockets are not ours to use or to shut down
            self._idle, self._pid = deque(), process.pid
        while self._idle:
            try:
                connection, since = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if time.monotonic() - since < IDLE_CHECK or usable(connection):
                return connection
            connection.disconnect()
        return self.connect()

    def connect(self, near: str = "") -> Any:  # noqa: ARG002
        """Open a connection of the caller's own, to where the key *near* is."""
        connection, end = self._make(), time.monotonic() + self.timeout
        read = connection.read_response
        connection.read_response = lambda *args, **how: read(*args, **{"timeout": left_until(end), **how})  # of AUTH, SELECT and so on
        try:
            if self._named:
                in_time(lambda: self._begin(connection), self.timeout)
            else:
                self._begin(connection)
        except FAULTS as exc:
            reason, answered = self._said(exc), isinstance(exc, (ResponseError, AuthenticationError, BusyLoadingError))
            raise BrokerUnavailable(
                f"Redis at {self.url} answered: {reason}."
                if answered
                else f"Redis at {self.url} does not answer: {reason}. {what_to_do(reason)}",
                unreachable=not answered,
            ) from harmless(exc, reason)
        finally:
            del connection.read_response
        return connection

    def _begin(self, connection: Any) -> None:
        """Connect it, log in, choose the database."""
        connection.connect()

    def call(self, *command: Any, timeout: float | None = None) -> Any:
        """Send one command and return its reply."""
        return self.pipeline([command], timeout=timeout)[0]

    def say(self, channel: str, body: bytes) -> None:
        """Publish *body*; all of this client's are heard in their order."""
        self.call("PUBLISH", channel, body)

    def now(self, near: str) -> tuple[int, int]:  # noqa: ARG002
        """Return the seconds and microseconds of the clock by which the scripts act on the key *near*."""
        seconds, micros = self.call("TIME")
        return int(seconds), int(micros)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what *keys* hold."""
        found: list[bytes | None] = self.call("MGET", *keys)
        return found

    def delete(self, keys: Sequence[str]) -> None:
        """Delete *keys*."""
        self.call("DEL", *keys)

    def run(self, script: Script, *args: Any) -> Any:
        """Run one script."""
        return self.run_many(script, [args])[0]

    def run_then(self, script: Script, args: Sequence[Any], *after: Sequence[Any], by: float = math.inf) -> list[Any]:
        """Run one script, and then the commands *after*, in one round trip."""
        try:
            return self.pipeline([("EVALSHA", script.sha, 0, *args), *after], by=by)
        except NoScriptError:  # nothing ran: the server has never seen the script, or was restarted
            return self.pipeline([("EVAL", script.text, 0, *args), *after], by=by)  # and is known from now on

    def run_begun(self, begun: Begun, last: bytes, *after: Sequence[Any], by: float = math.inf) -> list[Any]:
        """Run a script of which all but its last argument was written before, and then the commands *after*, in one round trip."""
        try:
            return self.pipeline([b"%b$%d\r\n%b\r\n" % (begun.packed, len(last), last), *after], by=by)
        except NoScriptError:
            return self.pipeline([("EVAL", begun.script.text, 0, *begun.args, last), *after], by=by)

    def run_after(self, first: Sequence[Any], script: Script, calls: Sequence[Sequence[Any]], *, timeout: float) -> list[Any]:
        """Send the command *first*, and then run one script for each of *calls*, in one round trip."""
        try:
            return self.pipeline([first, *(("EVALSHA", script.sha, 0, *args) for args in calls)], timeout=timeout)
        except NoScriptError:  # what the first has brought is lost
            return [None, *self.run_many(script, calls)]

    def run_many(self, script: Script, calls: Sequence[Sequence[Any]], *, by: float = math.inf) -> list[Any]:
        """Run one script for each of *calls*, in one round trip."""
        try:
            return self.pipeline([("EVALSHA", script.sha, 0, *args) for args in calls], by=by)
        except NoScriptError:
            return self.pipeline([("EVAL", script.text, 0, *args) for args in calls], by=by)

    def pipeline(self, commands: Sequence[Sequence[Any] | bytes], *, timeout: float | None = None, by: float = math.inf) -> list[Any]:
        """Send *commands* in one write and return their replies; an error reply is raised after all were read.

        All of them are to be there after *timeout* seconds, and at *by* (by `time.monotonic`).

        Raises:
            BrokerUnavailable: with `maybe_sent`, as the connection broke after the commands were sent.
        """
        started = time.monotonic()
        connection = self._take()
        if timeout is None:
            by = min(by, started + self.timeout)  # connecting may have taken some of the time that the replies have
        end = min(by, time.monotonic() + (timeout or self.timeout * REPLY_SHARE))
        replies: list[Any] = []
        try:  # as `connection` does, whose generator would cost more than the rest of this
            connection.send_packed_command([packed(commands)])
            for _ in commands:
                left = left_until(end)
                # Mostly that is the time that its connection gives a reply: to set another one takes two system calls.
                usual = timeout is None and left > 0.9 * self.timeout * REPLY_SHARE
                replies.append(self._read(connection, {} if usual else {"timeout": left}))
        except BaseException as exc:
            connection.disconnect()
            if isinstance(exc, FAULTS):
                raise self._lost(exc, timeout, begun=bool(replies)) from exc
            raise
        self._idle.append((connection, time.monotonic()))
        for position, reply in enumerate(replies):
            if isinstance(reply, Exception):
                self._raise(reply, position)
        return replies

    def _raise(self, reply: Exception, position: int) -> NoReturn:
        """Raise the error that is the reply to the command at *position*."""
        if isinstance(reply, self.passed_on):
            raise reply
        reason = self._said(reply)
        demoted = any(each in reason for each in DEMOTED)
        if demoted:  # the same address may lead to the new master now
            self.close()
        perhaps, hint = position > 0 or may_have_written(reply), hint_for(reply, reason)
        raise BrokerUnavailable(f"Redis at {self.url} refused: {reason}{hint}", refused=not demoted, maybe_sent=perhaps) from harmless(
            reply, reason
        )

    def _lost(self, exc: Exception, timeout: float | None, *, begun: bool) -> BrokerUnavailable:
        """Say how the connection ended. The idle ones have most likely ended with it: the next call makes a new one."""
        if isinstance(exc, BusyLoadingError) and not begun:
            return BrokerUnavailable(f"Redis at {self.url} refused: {self._said(exc)}")
        self.close()
        slow = isinstance(exc, (RedisTimeoutError, TimeoutError))
        reason = f"no reply within {timeout or self.timeout:g} s" if slow else self._said(exc)
        return BrokerUnavailable(f"Redis at {self.url} was lost: {reason}.", maybe_sent=True)

    def _said(self, exc: BaseException) -> str:
        """Return the text of an error; a server may repeat what it was sent, a password too."""
        return without_secrets(str(exc), self._given[0]).rstrip(".")

    @staticmethod
    def _read(connection: Any, how: Mapping[str, float]) -> Any:
        try:
            return connection.read_response(disable_decoding=True, **how)
        except ResponseError as exc:  # the other replies of the pipeline are still to be read
            return exc

    def close(self) -> None:
        """Close the connections that are not lent."""
        if self._pid == process.pid:
            while self._idle:
                self._idle.pop()[0].disconnect()
        self._idle = deque()


def left_until(end: float) -> float:
    """Return how long a reply may take that is to be there at *end*: a little is given to one that may have come."""
    return max(end - time.monotonic(), SHORTEST_WAIT)


def packed(commands: Sequence[Sequence[Any] | bytes]) -> bytes:
    """Write commands as Redis reads them; bytes are written already."""
    parts = []
    for command in commands:
        if isinstance(command, bytes):
            parts.append(command)
            continue
        parts.append(b"*%d\r\n" % len(command))
        for arg in command:
            data = arg if type(arg) is bytes else str(arg).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def usable(connection: Any) -> bool:
    """Look whether an idle connection is still open: one with something to read was closed, or is out of step."""
    try:
        return not connection.can_read()
    except FAULTS:
        return False


def may_have_written(error: Exception) -> bool:
    """Answer whether it was raised inside a script after its first write, for all that is known."""
    said = str(error)
    return "user_script" in said and not any(each in said for each in REFUSED_FIRST)


def what_to_do(reason: str) -> str:
    """Return what follows the sentence that a server could not be connected to."""
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return "Give the file of the authority that signed its certificate as ssl_ca_certs, and connect by a name that the certificate has."
    if "No master found" in reason:
        return "Its sentinels choose a new one, or master_name is not its name in their configuration."
    if any(each in reason for each in ("_ssl.", "reset by peer", "closed by server")):
        return "Look whether it speaks TLS (rediss://) or not, and wants a certificate of its clients (ssl_certfile and ssl_keyfile)."
    return "Check that it runs and that the URL is right."


def hint_for(reply: Exception, reason: str) -> str:
    """Return what follows the text of an error reply: what to do."""
    if isinstance(reply, (MovedError, ClusterCrossSlotError)) or "non local key" in reason:
        return ". It is a node of a cluster: write redis+cluster:// for redis://, rediss+cluster:// for rediss://."
    if isinstance(reply, NoPermissionError) or any(each in reason for each in FORBIDDEN):
        return ". ACL LOG on the server says what was not allowed; what is needed is in docs/how-to/use-redis.md, under Users."
    return ""


def harmless(exc: Exception, shown: str) -> Exception | None:
    """Return *exc* as a cause to be shown, unless its own text has a password that *shown* has not."""
    return exc if str(exc).rstrip(".") == shown else None
