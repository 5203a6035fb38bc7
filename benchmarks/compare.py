"""Compares two sets of results: python compare.py [OLD [NEW]]; each is a folder of JSON files or a revision of git.

By default OLD is benchmarks/results of the last release tag (without a tag: of HEAD), and NEW is that of the working tree. Each row is a
median (or a percentile) that both have; a ratio above 1 is better, whichever direction the figure has. Rows of umbel's that are more than
10 % worse are marked and counted; where the rounds of both sets overlap, that may be the machine, and the mark says so. Rows of the other
queues and of the floors are there to show how much the machine changed. With --worse only marked rows are shown.
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

from _harness import RESULTS, say, table
from _queues import QUEUES

ROOT = RESULTS.parent.parent
WORSE = 0.9
HIGHER = re.compile(r"(^|_)(rate|over|times|efficiency|speedup)(_|$)|_per_s$|^of_nearest$")
LOWER = re.compile(
    r"^(p50|p99)$|(_ms|_s|_us|_mb|_percent|_per_task|_per_call|_per_message)$|^(client_commands|round_trips)$|^ms(\.|$)|^seconds$"
)
NAMES = (
    "added_ms",
    "driver",
    "lease",
    "pool",
    "queue",
    "way",
    "what",
    "results",
    "system",
    "scenario",
    "case",
    "name",
)  # of what a line of a list is about
LEFT_OUT = {
    "runs",
    "rounds",
    "machine",
    "versions",
    "min",
    "max",
    "curve",
    "by_name",
    "client_commands_by_name",
    "ping_ms",
    "mark_mb",
    "flat_mb",
    "ideal_rate",
    "work_s",
    "task_s",
}
OTHERS = {queue.name for queue in QUEUES if queue.name != "umbel"} | {"bare", "own", "bare_rate", "python"}


def rows_of(found, path=()):
    """Yield (path, value, lowest, highest) of each figure in a result."""
    if isinstance(found, list):
        for number, line in enumerate(found):
            if isinstance(line, dict):
                yield from rows_of(line, (*path, label(line) or str(number)))
        return
    for name, value in found.items():
        if name in LEFT_OUT or name in NAMES:
            continue
        if isinstance(value, dict) and isinstance(value.get("median"), int | float):
            yield (*path, name), value["median"], value.get("min", value["median"]), value.get("max", value["median"])
        elif isinstance(value, dict | list):
            yield from rows_of(value, (*path, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, name), value, value, value


def label(line):
    """What a line of a list is about."""
    words = []
    for name in NAMES:
        value = line.get(name)
        if isinstance(value, bool):
            words.append(f"{name} {'on' if value else 'off'}")
        elif isinstance(value, str):
            words.append(value)
        elif value is not None and not isinstance(value, dict | list):
            words.append(f"{value:g} ms added" if name == "added_ms" else f"{name} {value}")
    return ", ".join(words)


def direction(path):
    """1 if a larger figure is better, -1 if a smaller one is, 0 if it is no figure of speed or cost."""
    for name in reversed(path):
        if HIGHER.search(name):
            return 1
        if LOWER.search(name):
            return -1
    return 0


def about_umbel(path):
    """Is it a figure of umbel's, not of another queue or a floor?"""
    return OTHERS.isdisjoint(re.split(r"[ ,:/]+", " ".join(path)))


def read(source):
    """Return the results of a folder or of a revision, by the name of the benchmark."""
    if Path(source).is_dir():
        return {path.stem: json.loads(path.read_text()) for path in sorted(Path(source).glob("*.json"))}
    if source == str(RESULTS):
        return {}
    folder = RESULTS.relative_to(ROOT).as_posix()
    names = git("ls-tree", "--name-only", source, f"{folder}/").split()
    return {Path(name).stem: json.loads(git("show", f"{source}:{name}")) for name in names if name.endswith(".json")}


def git(*command):
    """What git answers.

    Raises:
        SystemExit: it does not know the revision.
    """
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def last_release():
    """The last tag before HEAD; HEAD itself if there is none."""
    done = subprocess.run(["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "HEAD"


def compared(old, new):
    """Yield (path, old, new, ratio, do the rounds overlap?) of the figures that both have."""
    before = {path: rest for path, *rest in rows_of(old)}
    for path, value, low, high in rows_of(new):
        way = direction(path)
        if way and path in before:
            was, lowest, highest = before[path]
            if was > 0 and value > 0:
                yield path, was, value, (value / was) ** way, low <= highest and lowest <= high and (low, high) != (value, value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", nargs="?", default=last_release(), help="a folder or a revision; the last release tag by default, or HEAD")
    parser.add_argument("new", nargs="?", default=str(RESULTS), help="a folder or a revision; benchmarks/results by default")
    parser.add_argument("--worse", action="store_true", help="show only what is marked")
    options = parser.parse_args()
    old, new = read(options.old), read(options.new)
    if not old or not new:
        raise SystemExit(f"{options.new if old else options.old} has no results. `make bench` makes them.")
    worse = 0
    for name in sorted(old.keys() & new.keys()):
        lines = []
        for path, was, value, ratio, overlap in compared(old[name], new[name]):
            mark = ("worse" + (" (rounds overlap)" if overlap else "")) if ratio < WORSE and about_umbel(path) else ""
            worse += bool(mark)
            if mark or not options.worse:
                lines.append((": ".join(path), f"{was:,.4g}", f"{value:,.4g}", f"{ratio:.2f}", mark))
        here = f"{name}: {made(old[name])} -> {made(new[name])}"
        if lines:
            table(here, ("", "old", "new", "new is times as good", ""), lines)
        for key in ("cpu", "cpus", "python", "redis"):
            if (was := old[name]["machine"].get(key)) != (now := new[name]["machine"].get(key)):
                say(f"  {key} differs: {was} -> {now}; absolute figures cannot be compared")
    for name in sorted(old.keys() ^ new.keys()):
        say(f"\n{name}: only in {options.old if name in old else options.new}")
    say(f"\n{worse} figures of umbel's are more than 10 % worse.")


def made(result):
    """When and from what a result was made."""
    return f"{result.get('date', '?')[:10]} {result.get('commit') or '?'}"


if __name__ == "__main__":
    main()
