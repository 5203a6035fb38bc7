"""`umbel multi`: workers as daemons, started and stopped by name, with Celery's verbs."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from umbel.cli.base import Command
from umbel.cli.multi_nodes import Node, Plan, make_plan
from umbel.cli.options import APP
from umbel.ids import node_format, nodesplit
from umbel.supervisor.pidfile import is_there, read_pid

__all__ = ["multi"]

LOOK_EVERY = 0.1  # seconds
SAY_EVERY = 2.0  # seconds between two lines about what is waited for
STARTS_WITHIN = 60.0  # seconds: twice what a daemon takes to report

USAGE = """umbel multi VERB NODES [OPTIONS]

  start NODES           start each node as a daemon
  stop NODES [-SIGNAL]  tell them to stop (SIGTERM)
  stopwait NODES        the same, and wait until they have ended
  restart NODES         stopwait, then start
  kill NODES            kill them: what they run is run again by others
  show NODES            print the command line of each
  names NODES           print their names
  get NODE NODES        print the command line of one of NODES
  expand TEMPLATE NODES print TEMPLATE with %n, %h, %d filled in
  help                  print this

NODES are names (w1 w2@host) or a number: 3 is celery1, celery2 and celery3; 3-5 is celery3 to celery5.
Options of `umbel worker` are passed on, for some nodes alone with a colon: -c 3 -c:w1 10 -Q:1-2,w4 mail
Options of multi: --pidfile=/var/run/umbel/%n.pid --logfile=/var/log/umbel/%n%I.log --hostname=HOST --prefix= --suffix=
                  --range-prefix= --executable=PYTHON --cmd= --append= --nosplash --quiet --verbose --no-color
Give the same --pidfile to every verb. `umbel worker --workers N` is mostly the better choice: it keeps its workers alive."""


class Output:
    """What is said, as the options want it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def say(self, text: str, color: str | None = None) -> None:
        """Print a line, unless --quiet."""
        if not self.plan.quiet:
            click.secho(text, fg=color if self.plan.color else None)

    def fail(self, text: str) -> None:
        """Print an error."""
        click.secho(text, fg="red" if self.plan.color else None, err=True)


class Multi(Command):
    """Its words are no options of click's: a colon stands in some."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Show what stands behind the command."""
        return ["VERB", "NODES", "[OPTIONS]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep all words for `run_multi`."""
        ctx.args = list(args)
        return []


@click.pass_context
def run_multi(ctx: click.Context) -> int:
    """Start and stop workers as daemons, by name."""
    verb, *words = ctx.args or ["help"]
    if verb in {"help", "--help", "-h"}:
        click.echo(USAGE)
        return 0
    app = ctx.meta.get(APP)
    if verb in {"get", "expand"}:
        if not words:
            raise click.UsageError(f"What to {verb} is missing. `umbel multi help` shows how.", ctx)
        return SHOWN[verb](words[0], make_plan(words[1:], app=app))
    if verb not in VERBS:
        raise click.UsageError(f"There is no verb {verb!r}. There are: {', '.join([*VERBS, *SHOWN, 'help'])}.", ctx)
    plan = make_plan(words, app=app)
    if not plan.nodes:
        raise click.UsageError(f"No nodes were named. Give names or a number: umbel multi {verb} w1 w2, umbel multi {verb} 3.", ctx)
    return VERBS[verb](plan)


# What only prints


def show(plan: Plan) -> int:
    """Print command lines."""
    for node in plan.nodes:
        click.echo(shlex.join(node.command))
    return 0


def names(plan: Plan) -> int:
    """Print names."""
    for node in plan.nodes:
        click.echo(node.name)
    return 0


def get(name: str, plan: Plan) -> int:
    """Print the command line of one node."""
    for node in plan.nodes:
        if name in {node.name, nodesplit(node.name)[0]}:
            click.echo(shlex.join(node.command))
            return 0
    raise click.UsageError(f"There is no node {name!r} among {', '.join(node.name for node in plan.nodes) or 'none'}.")


def expand(template: str, plan: Plan) -> int:
    """Print a template for each node."""
    for node in plan.nodes:
        click.echo(node_format(template, node.name))
    return 0


# Starting


def start(plan: Plan) -> int:
    """Start all nodes, at the same time, and say how each start went."""
    out = Output(plan)
    splash(out)
    out.say("> Starting nodes...")
    return started(plan.nodes, out)


def started(nodes: Sequence[Node], out: Output) -> int:
    """Start *nodes*; return 1 if one of them does not run."""
    begun = [(node, begin(node, out)) for node in nodes]
    return max([finish(node, process, out) for node, process in begun], default=0)


def begin(node: Node, out: Output) -> subprocess.Popen[str]:
    """Start one daemon. The command ends when it is ready, or has failed."""
    for folder in {node.pidfile.parent, node.logfile.parent}:
        with contextlib.suppress(OSError):  # the daemon says so, with what to do
            folder.mkdir(parents=True, exist_ok=True)
    if out.plan.verbose:
        out.say(f"\t{shlex.join(node.command)}")
    return subprocess.Popen(list(node.command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our program


def finish(node: Node, process: subprocess.Popen[str], out: Output) -> int:
    """Say how the start of one node went."""
    try:
        _, said = process.communicate(timeout=STARTS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        out.fail(f"\t> {node.name}: it did not say within {STARTS_WITHIN:g} s how its start went. See {node.logfile}.")
        return 1
    if process.returncode:
        out.fail(f"\t> {node.name}: FAILED (exit code {process.returncode})\n{said.rstrip()}")
        return 1
    out.say(f"\t> {node.name}: OK", "green")
    if said.strip():
        out.say(said.rstrip())
    return 0


# Stopping


def stop(plan: Plan) -> int:
    """Tell all nodes to stop, and wait for none."""
    out = Output(plan)
    splash(out)
    return told(plan, out)[1]


def told(plan: Plan, out: Output) -> tuple[list[tuple[Node, int]], int]:
    """Send the signal; return who got it, and the exit code."""
    out.say("> Stopping nodes...", "blue")
    reached, code = [], 0
    for node in plan.nodes:
        pid = pid_of(node)
        if pid is None:
            out.say(f"\t> {node.name}: DOWN", "magenta")
        elif send(node, pid, plan.signal, out):
            reached.append((node, pid))
        else:
            code = 1
    return reached, code


def send(node: Node, pid: int, number: int, out: Output) -> bool:
    """Send a signal to a node that is there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # since a moment
        out.say(f"\t> {node.name}: DOWN", "magenta")
    except PermissionError:
        out.fail(f"\t> {node.name}: this user may not signal process {pid}. Use the user that runs it, or root.")
        return False
    else:
        out.say(f"\t> {node.name}: {signal.Signals(number).name.removeprefix('SIG')} -> {pid}")
    return True


def stopwait(plan: Plan) -> int:
    """Tell all nodes to stop, and wait until they have: as long as their tasks take."""
    out = Output(plan)
    splash(out)
    reached, code = told(plan, out)
    wait(reached, out)
    return code


def wait(nodes: Sequence[tuple[Node, int]], out: Output) -> None:
    """Wait for the ends of *nodes*, and say now and then for whom."""
    left, say_at = list(nodes), 0.0
    while left:
        if time.monotonic() >= say_at:
            say_at = time.monotonic() + SAY_EVERY
            out.say(f"> Waiting for {len(left)} node{'s' if len(left) > 1 else ''} -> {', '.join(str(pid) for _, pid in left)}...", "blue")
        time.sleep(LOOK_EVERY)
        for node, pid in left:
            if not is_there(pid):
                out.say(f"\t> {node.name}: OK", "green")
        left = [(node, pid) for node, pid in left if is_there(pid)]


def restart(plan: Plan) -> int:
    """Stop all nodes, wait, and start them."""
    out = Output(plan)
    splash(out)
    reached, code = told(plan, out)
    wait(reached, out)
    if code:
        return code
    out.say("> Starting nodes...")
    return started(plan.nodes, out)


def kill(plan: Plan) -> int:
    """Kill all nodes."""
    out = Output(plan)
    splash(out)
    code = 0
    for node in plan.nodes:
        pid = pid_of(node)
        if pid is None:
            out.say(f"\t> {node.name}: DOWN", "magenta")
        elif send(node, pid, signal.SIGKILL, out):
            with contextlib.suppress(OSError):
                node.pidfile.unlink()
        else:
            code = 1
    return code


def pid_of(node: Node) -> int | None:
    """Return the process id of a node; None if it is down, also if its file names a process that is something else by now."""
    pid = read_pid(node.pidfile)
    return pid if pid is not None and is_there(pid) and may_be_worker(pid) else None


def may_be_worker(pid: int) -> bool:
    """Answer whether the process was started as a worker, where /proc can tell: after a crash of the machine numbers are used again."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return True
    return b"worker" in words


def splash(out: Output) -> None:
    """Say what this is."""
    if out.plan.splash:
        from umbel import __version__

        out.say(f"umbel multi v{__version__}", "cyan")


VERBS: dict[str, Callable[[Plan], int]] = {
    "start": start, "stop": stop, "stopwait": stopwait, "stop_verify": stopwait, "restart": restart, "kill": kill, "show": show,
    "names": names,
}  # fmt: skip
SHOWN: dict[str, Callable[[str, Plan], int]] = {"get": get, "expand": expand}

multi = Multi(
    "multi",
    callback=run_multi,
    help=USAGE,
    short_help="Start and stop workers as daemons, by name.",
    add_help_option=False,
)
