"""`umbel worker`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from umbel.cli.base import CommaList, Command, Kind, current_app_of, is_quiet, program_of, without_color
from umbel.cli.launch import Launch, launched, supervise, told_when_ready
from umbel.exceptions import QueueNotFound
from umbel.ids import nodename
from umbel.supervisor.link import Link, Role

__all__ = ["worker"]

POOLS = ("prefork", "processes", "threads", "solo", "asyncio")
POOLS_OF_CELERY = ("eventlet", "gevent", "custom")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")

# Options of Celery's that have no meaning here: there is no mingle, gossip or heartbeat to leave out, a slot that is free
# is always found first, children always come from the zygote, and the broker remembers what was revoked.
IGNORED_FLAGS = ("--without-gossip", "--without-mingle", "--without-heartbeat")
IGNORED_VALUES = (
    ("-O", "--optimization"),
    ("--heartbeat-interval",),
    ("--pool-start-method",),
    ("-S", "--statedb"),
)

LATER_VALUES = (("--autoscale",), ("--executable",))


class PoolName(Kind):
    """One of our pools; what Celery has besides is answered with what to take instead."""

    name = "pool"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """Show the choices in the help."""
        return f"[{'|'.join(POOLS)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name."""
        pool = str(value).lower()
        if pool in POOLS_OF_CELERY:
            self.fail(
                f"there is no {pool} pool. -P asyncio runs 'async def' tasks as coroutines, -P threads runs blocking ones in threads.",
                param,
                ctx,
            )
        if pool not in POOLS:
            self.fail(f"there is no pool {value!r}. There are: {', '.join(POOLS)}.", param, ctx)
        return pool


class Concurrency(Kind):
    """How many tasks at once: a number, or `auto`."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Check the number."""
        text = str(value).strip().lower()
        if text == "auto":
            return text
        if not text.isdecimal():
            self.fail(f"{value!r} is neither a number from 0 on (0: one per CPU) nor 'auto'.", param, ctx)
        return int(text)


def refuse_later(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Say that an option of Celery's is not built yet."""
    if value:
        raise click.UsageError(f"The option {max(param.opts, key=len)} comes with a later version of umbel.", ctx)


def options() -> list[click.Parameter]:
    """Make all options of the command."""
    return [*own_options(), *beat_options(), *process_options(), *celery_options()]


def own_options() -> list[click.Parameter]:
    """Make the options that do something."""
    level = click.Choice(LEVELS, case_sensitive=False)
    words = CommaList()
    return [
        click.Option(["-l", "--loglevel"], type=level, default="WARNING", show_default=True, help="What to log."),
        click.Option(["-P", "--pool"], type=PoolName(), help="Where tasks run; worker_pool by default."),
        click.Option(["-c", "--concurrency"], type=Concurrency(), help="Tasks at once; one per CPU by default."),
        click.Option(["-Q", "--queues"], type=words, help="Queues to consume, instead of all of task_queues."),
        click.Option(["-X", "--exclude-queues"], type=words, help="Queues not to consume."),
        click.Option(
            ["-n", "--hostname"],
            metavar="NODE",
            help="Name of the node: name@%h; %h, %n, %d are the host, its first part, its domain, %i the number of the worker.",
        ),
        click.Option(
            ["-f", "--logfile"],
            type=click.Path(dir_okay=False),
            help="File for the log, instead of standard error; %n, %h, %d: the node; %i, %I: the worker's number, with - before it.",
        ),
        click.Option(["-I", "--include"], type=words, help="More modules to import."),
        click.Option(["-E", "--task-events", "--events"], is_flag=True, help="Accepted; events come with a later version."),
        click.Option(["--prefetch-multiplier"], type=click.IntRange(min=0), help="Messages to hold per slot at most; 0: as run times say."),
        click.Option(["--disable-prefetch"], is_flag=True, help="Hold one message per slot at most."),
        click.Option(
            ["--time-limit"], type=click.FloatRange(min=0), help="Seconds after which a task is ended; task_time_limit by default."
        ),
        click.Option(
            ["--soft-time-limit"],
            type=click.FloatRange(min=0),
            help="Seconds after which SoftTimeLimitExceeded is raised in a task; task_soft_time_limit by default.",
        ),
        click.Option(["--max-tasks-per-child"], type=click.IntRange(min=0), help="Tasks after which a process is replaced."),
        click.Option(["--max-memory-per-child"], type=click.IntRange(min=0), help="KiB of memory above which a process is replaced."),
        click.Option(["--purge", "--discard"], is_flag=True, help="Delete what waits in the queues first. There is no undo."),
    ]


def beat_options() -> list[click.Parameter]:
    """Make those of a scheduler beside the worker."""
    return [
        click.Option(["-B", "--beat"], is_flag=True, help="Send periodic tasks, too; many workers may, of which one does."),
        click.Option(
            ["--scheduler"], metavar="CLASS", help="With -B: run this subclass of umbel.beat.Scheduler instead of umbel's scheduler."
        ),
        click.Option(
            ["-s", "--schedule-filename", "--schedule"], type=click.Path(dir_okay=False), help="With -B: file of PersistentScheduler."
        ),
    ]


class Octal(Kind):
    """A mask of permissions, as a shell writes it."""

    name = "OCTAL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the digits."""
        if isinstance(value, int):
            return value
        try:
            return int(str(value), 8)
        except ValueError:
            self.fail(f"{value!r} is no octal number, such as 022.", param, ctx)


def process_options() -> list[click.Parameter]:
    """Make the options that say how the process runs."""
    return [
        click.Option(
            ["--workers"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Run N workers like this, keep them alive, and replace them one by one on SIGHUP.",
        ),
        click.Option(["-D", "--detach"], is_flag=True, help="Go on in the background; the command ends when the worker is ready."),
        click.Option(["--pidfile"], type=click.Path(dir_okay=False), help="File for the process id; %n, %h, %d: the node."),
        click.Option(["--uid"], metavar="USER", help="The user to become, if root starts it."),
        click.Option(["--gid"], metavar="GROUP", help="The group to become, if root starts it."),
        click.Option(["--umask"], type=Octal(), help="Permissions that new files do not get, such as 022."),
    ]


def celery_options() -> list[click.Parameter]:
    """Make the options that are accepted without effect, and those that come later."""
    made: list[click.Parameter] = [click.Option([name], is_flag=True, hidden=True, expose_value=False) for name in IGNORED_FLAGS]
    made += [click.Option([*names], hidden=True, expose_value=False) for names in IGNORED_VALUES]
    made += [click.Option([*names], hidden=True, expose_value=False, callback=refuse_later) for names in LATER_VALUES]
    return made


@click.pass_context
def run_worker(ctx: click.Context, /, **given: Any) -> int:
    """Runs tasks until it is told to stop: SIGTERM or Ctrl-C once, after the tasks that run; Ctrl-C again, at once.

    Settings may follow the options: umbel -A mysite worker -- worker_prefetch_multiplier=1
    """
    role, launch, workers = Role.take(), Launch.take(given), given.pop("workers")
    if role is not None:
        return run_one(ctx, given | {"hostname": role.node, "index": role.index}, Link(role.descriptor), quiet=role.quiet)
    if workers:
        return supervise(ctx, given, workers, launch)
    with launched(launch, node=nodename(given["hostname"]), logfile=given["logfile"]) as report:
        code = run_one(ctx, given, None, ready=report.ready, quiet=is_quiet(ctx))
        report.ended(code)
    return code


def run_one(ctx: click.Context, given: dict[str, Any], link: Link | None, *, quiet: bool, ready: Callable[[], None] = lambda: None) -> int:
    """Run one worker in this process."""
    app = current_app_of(ctx)
    apply_overrides(ctx, app)
    started = app.Worker(**worker_arguments(given), quiet=quiet, no_color=without_color(ctx), program=program_of(ctx))
    started.shutdown.link = link
    try:
        with told_when_ready(link, ready):
            return int(started.run() or 0)
    except QueueNotFound as exc:
        raise click.UsageError(str(exc), ctx) from None
    except ModuleNotFoundError as exc:
        if exc.name not in (given["include"] or ()):
            raise
        raise click.BadParameter(f"the module {exc.name} was not found.", ctx, param_hint="'-I' / '--include'") from None


def worker_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options as `Worker` takes them."""
    multiplier = given.pop("prefetch_multiplier") or None
    if given.pop("disable_prefetch"):
        multiplier = 1
    level = "CRITICAL" if given["loglevel"] == "FATAL" else given["loglevel"]
    return given | {"loglevel": level, "prefetch_multiplier": multiplier}


def apply_overrides(ctx: click.Context, app: Any) -> None:
    """Set what follows the options."""
    if not ctx.args:
        return
    from umbel.cli.overrides import parse_overrides
    from umbel.exceptions import ImproperlyConfigured

    try:
        app.conf.update(parse_overrides(ctx.args, "worker"))
    except (ValueError, ImproperlyConfigured) as exc:
        raise click.UsageError(str(exc), ctx) from None


IGNORED = ", ".join([*IGNORED_FLAGS, *(names[-1] for names in IGNORED_VALUES)])

worker = Command(
    "worker",
    callback=run_worker,
    params=options(),
    help=run_worker.__doc__,
    short_help="Run tasks.",
    context_settings={"allow_extra_args": True},
    epilog=f"Accepted without effect, for scripts made for Celery: {IGNORED}.",
)
