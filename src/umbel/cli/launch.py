"""How `umbel worker` becomes what it is to be: a daemon, another user, a supervisor, a worker of one."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from umbel import logs, signals
from umbel.cli.base import is_quiet, without_color
from umbel.cli.errors import explain
from umbel.cli.frames import from_first_foreign_frame
from umbel.cli.options import APP, FOLDER, WORDS
from umbel.exceptions import ImproperlyConfigured
from umbel.ids import node_format, nodename, nodesplit

if TYPE_CHECKING:
    from umbel.supervisor.daemon import Report
    from umbel.supervisor.link import Link

__all__ = ["Launch", "launched", "node_names", "supervise", "told_when_ready"]

SUPERVISOR = "supervisor"  # the name of its node, for %n in the names of its files
FORMAT = logs.FORMAT.replace("%(processName)s", "Supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the options of the command line say of the process itself."""

    detach: bool
    pidfile: str | None
    uid: str | None
    gid: str | None
    umask: int | None

    @classmethod
    def take(cls, given: dict[str, Any]) -> Launch:
        """Take the options out of *given*."""
        return cls(**{name: given.pop(name) for name in ("detach", "pidfile", "uid", "gid", "umask")})


@contextlib.contextmanager
def launched(launch: Launch, *, node: str, logfile: str | None) -> Iterator[Report]:
    """Be what *launch* says while the block runs; it reports when all is ready.

    Args:
        launch: of the command line.
        node: whose name stands in the names of files.
        logfile: what a daemon prints goes there, too.
    """
    from umbel.supervisor.daemon import Report, detach
    from umbel.supervisor.pidfile import PidFile
    from umbel.supervisor.user import become

    become(launch.uid, launch.gid)
    if launch.umask is not None:
        os.umask(launch.umask)
    report = Report()
    if launch.detach:
        if logfile is None:
            click.echo("There is no --logfile, so what the daemon logs is lost.", err=True)
        report = detach(logfile and node_format(logfile, node))
    pidfile = PidFile(node_format(launch.pidfile, node)) if launch.pidfile else None
    try:
        if pidfile is not None:
            pidfile.take()
        yield report
    except BaseException as exc:
        report.failed(*told(exc))
        raise
    finally:
        if pidfile is not None:
            pidfile.give_up()


def told(exc: BaseException) -> tuple[str, int]:
    """Return the text and the exit code of an error."""
    if isinstance(exc, click.ClickException):
        return f"Error: {exc.format_message()}", exc.exit_code
    explained = explain(exc)
    if explained is not None:
        return f"Error: {explained.sentence}", explained.exit_code
    return "".join(traceback.format_exception(type(exc), exc, from_first_foreign_frame(exc.__traceback__))), 1


def node_names(template: str | None, count: int) -> list[str]:
    """Return the names of *count* nodes: as `%i` or `%I` in the template says, else with a number behind the first half.

    They are the same at each start, so that logs, dashboards and leases of a machine go on under their names.
    """
    left, host = nodesplit(template or "celery@")
    left = left or "celery"
    if not re.search("%[iI]", f"{left}@{host}".replace("%%", "")):
        left += "%i"
    return [nodename(f"{left}@{host}", index=index) for index in range(1, count + 1)]


def supervise(ctx: click.Context, given: dict[str, Any], count: int, launch: Launch) -> int:
    """Run *count* workers with this command line, and return the exit code."""
    from umbel.supervisor import Supervisor
    from umbel.supervisor.process import Command

    if ctx.obj is not None and APP not in ctx.meta:
        raise click.UsageError("--workers starts new processes, which need -A to find the app. Give it, for example: -A mysite.", ctx)
    nodes = node_names(given["hostname"], count)
    node = f"{SUPERVISOR}@{nodesplit(nodes[0])[1]}"
    command = Command(words=ctx.meta[WORDS], folder=ctx.meta[FOLDER])
    with launched(launch, node=node, logfile=given["logfile"]) as report:
        open_log(given, node, color=False if without_color(ctx) else None)
        if not is_quiet(ctx):
            click.echo(f"umbel supervisor, pid {os.getpid()}: {count} worker(s), {nodes[0]} to {nodes[-1]}")
        code = Supervisor(command, nodes, quiet=is_quiet(ctx), on_ready=report.ready).run()
        report.ended(code)
    return code


def open_log(given: dict[str, Any], node: str, *, color: bool | None) -> None:
    """Begin the log of the supervisor: the workers' file, unless each has its own."""
    path = node_format(given["logfile"], node) if given["logfile"] else None
    level = logging.getLevelNamesMapping()[given["loglevel"]]
    try:
        logs.setup_logging(min(level, logging.WARNING), path, format=FORMAT, color=color, redirect_stdouts=False)
    except OSError as exc:
        raise ImproperlyConfigured(
            f"The log cannot be written to {path} ({exc.strerror}). Make its folder, or give another file with -f."
        ) from exc


@contextlib.contextmanager
def told_when_ready(link: Link | None, ready: Callable[[], None]) -> Iterator[None]:
    """Tell whoever started this worker when it is ready, in the block: the supervisor; else systemd, and the command that waits."""
    from umbel.supervisor.notify import notify

    def tell(**_: object) -> None:
        if link is not None:
            link.say_ready()
        else:
            notify("READY=1")
            ready()

    def stopping(**_: object) -> None:
        if link is None:
            notify("STOPPING=1")

    signals.worker_ready.connect(tell, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    try:
        yield
    finally:
        signals.worker_ready.disconnect(tell)
        signals.worker_shutting_down.disconnect(stopping)
