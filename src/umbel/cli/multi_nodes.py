"""From the words behind `umbel multi VERB` to nodes, each with its command line. Nothing here starts or reads anything."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from umbel.cli.worker import worker
from umbel.ids import node_format, nodename, nodesplit

__all__ = ["Node", "Plan", "make_plan"]

FLAGS = ("--nosplash", "--quiet", "-q", "--verbose", "--no-color", "-C")  # of multi itself
VALUES = ("--prefix", "--suffix", "--range-prefix", "--hostname", "-n", "--cmd", "--append", "--executable")
PIDFILE, LOGFILE = "/var/run/umbel/%n.pid", "/var/log/umbel/%n%I.log"
RANGE = re.compile(r"(\d+)(?:-(\d+))?")
MOST = 1000  # nodes of a range: more is a slip of the finger


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One worker that multi starts and stops."""

    name: str
    command: tuple[str, ...]
    pidfile: Path
    logfile: Path


@dataclass(slots=True, kw_only=True)
class Words:
    """What was typed, sorted. An option is (its word, its value or None, whom it is for or None for all)."""

    names: list[str] = field(default_factory=list)
    options: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    own: dict[str, str] = field(default_factory=dict)
    signal: int | None = None
    rest: list[str] = field(default_factory=list)  # behind `--`


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a verb works with."""

    nodes: Sequence[Node]
    signal: int
    quiet: bool
    splash: bool
    verbose: bool
    color: bool


def make_plan(words: Sequence[str], *, app: str | None = None) -> Plan:
    """Read the words behind a verb.

    Args:
        words: names or a range, options of multi, options of the workers.
        app: the `-A` that stood before `multi`.

    Raises:
        UsageError: they cannot be understood.
    """
    sorted_words = sort(words)
    if app is not None and not any(word in {"-A", "--app"} for word, _, _ in sorted_words.options):
        sorted_words.options.insert(0, ("-A", app, None))
    own = sorted_words.own
    names = node_names(sorted_words.names, own)
    check_whom(sorted_words.options, names)
    quiet = any(word in own for word in ("--quiet", "-q"))
    return Plan(
        nodes=[node(name, place, names, sorted_words) for place, name in enumerate(names, 1)],
        signal=sorted_words.signal or signal.SIGTERM,
        quiet=quiet,
        splash=not quiet and "--nosplash" not in own,
        verbose="--verbose" in own,
        color="--no-color" not in own and "-C" not in own,
    )


def sort(words: Sequence[str]) -> Words:
    """Tell names, options of multi, options of workers and a signal from each other."""
    found = Words()
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            found.rest = left
            break
        if not word.startswith("-") or word == "-":
            found.names.append(word)
        elif (number := signal_of(word)) is not None:
            found.signal = number
        else:
            take_option(word, left, found)
    return found


def signal_of(word: str) -> int | None:
    """Return the number of `-TERM`, `-SIGTERM` or `-15`; None for anything else."""
    name = word[1:]
    if name.isdecimal():
        return int(name)
    return getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None) if name.isupper() and len(name) > 1 else None


def take_option(word: str, left: list[str], found: Words) -> None:
    """Take one option, with its value from behind `=` or from *left*."""
    name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
    name, _, whom = name.partition(":")
    if not word.startswith("--") and len(name) > 2 and takes_value(name[:2]):  # noqa: PLR2004 - -c3
        name, equals, value = name[:2], "=", name[2:]
    given: str | None = None
    if takes_value(name):
        if not equals and not left:
            raise click.UsageError(f"The option {word} needs a value.")
        given = value if equals else left.pop(0)
    if name in FLAGS or name in VALUES:
        found.own[name] = given or ""
    else:
        found.options.append((name, given, whom or None))


def takes_value(name: str) -> bool:
    """Answer whether an option has a value.

    Raises:
        UsageError: neither multi nor a worker knows it.
    """
    if name in FLAGS or name in VALUES:
        return name in VALUES
    for parameter in worker.params:
        if isinstance(parameter, click.Option) and name in parameter.opts:
            return not parameter.is_flag
    if name.startswith("--") or len(name) == 2:  # noqa: PLR2004 - a dash and a letter
        raise click.UsageError(f"Neither multi nor a worker has the option {name}. `umbel multi help` and `umbel worker --help` list them.")
    return False


def node_names(words: Sequence[str], own: dict[str, str]) -> list[str]:
    """Return the full names: `3` is celery1 to celery3, `3-5` is celery3 to celery5, all else is a name or `name@host`."""
    found = RANGE.fullmatch(words[0]) if len(words) == 1 else None
    if found is not None:
        first, last = (1, int(found[1])) if found[2] is None else (int(found[1]), int(found[2]))
        if not 0 <= last - first < MOST:
            raise click.UsageError(f"The range {words[0]!r} has no nodes, or more than {MOST}. Write 3 or 3-5.")
        words = [f"{own.get('--range-prefix') or 'celery'}{number}" for number in range(first, last + 1)]
    host = own.get("--suffix") or own.get("--hostname") or own.get("-n") or "%h"
    names = [nodename(f"{own.get('--prefix', '')}{full_name(word, host.strip(chr(34)))}") for word in words]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise click.UsageError(f"Two nodes would have the name {min(repeated)}, and one file for their process ids. Give each its own.")
    return names


def full_name(word: str, host: str) -> str:
    """Return `name@host`."""
    return word if "@" in word else f"{word}@{host.removeprefix('@')}"


def check_whom(options: Iterable[tuple[str, str | None, str | None]], names: Sequence[str]) -> None:
    """Refuse options for nodes that there are not: they would be lost in silence."""
    for word, _, whom in options:
        for each in filter(None, (whom or "").split(",")):
            if not any(is_for(each, name, place, names) for place, name in enumerate(names, 1)):
                raise click.UsageError(f"{word}:{whom} is for {each}, but the nodes are {', '.join(names) or 'none'}.")


def is_for(whom: str, name: str, place: int, names: Sequence[str]) -> bool:
    """Answer whether one of `w1`, `w1@host`, `2`, `1-3` means the node *name*, the *place*th."""
    if whom in {name, nodesplit(name)[0]}:
        return True
    found = RANGE.fullmatch(whom)
    if found is None or any(whom == nodesplit(each)[0] for each in names):
        return False
    return int(found[1]) <= place <= int(found[2] or found[1])


def node(name: str, place: int, names: Sequence[str], words: Words) -> Node:
    """Make one node. An option for it alone stands in the place of the same option for all."""
    chosen: dict[str, str | None] = {}
    for word, value, whom in sorted(words.options, key=lambda option: option[2] is not None):
        if whom is None or any(is_for(each, name, place, names) for each in whom.split(",")):
            chosen.pop(same := spelling(word), None)
            chosen[same] = value if value is None or same in {"--pidfile", "--logfile"} else node_format(value, name)
    workdir = Path(chosen.get("--workdir") or "")
    pidfile, logfile = chosen.pop("--pidfile", None) or PIDFILE, chosen.pop("--logfile", None) or LOGFILE
    pidfile, logfile = node_format(pidfile, name), node_format(logfile, name)
    start = shlex.split(words.own["--cmd"]) if "--cmd" in words.own else ["-m", "umbel", "worker", "--detach"]
    options = [part for option in chosen.items() for part in option if part is not None]
    command = [
        words.own.get("--executable") or sys.executable,
        *start,
        *options,
        "-n",
        name,
        f"--pidfile={pidfile}",
        f"--logfile={logfile}",
    ]
    command += shlex.split(words.own.get("--append", ""))
    if words.rest:
        command += ["--", *words.rest]
    return Node(name=name, command=tuple(command), pidfile=workdir / pidfile, logfile=workdir / logfile)


def spelling(word: str) -> str:
    """Return the longest spelling of an option, so that `-c` and `--concurrency` are the same one."""
    return next((max(parameter.opts, key=len) for parameter in worker.params if word in parameter.opts), word)
