"""What a worker prints when it starts. The shapes of the lines are Celery's: tools look for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from umbel.config_values import HIDDEN, censored
from umbel.drivers import sqlite_url
from umbel.exceptions import ImproperlyConfigured
from umbel.routing import Queue

__all__ = ["banner"]

# An umbel: one stem, many branches. The stem goes on beside the configuration.
FLOWER = (
    r" o  o o o o  o   ",
    r"  \  \ | /  /    ",
    r"   `._\|/_.'     ",
)
STEM = "       |        "
FOOT = "     --+--      "
ROOM = " " * len(STEM)
CYAN, BOLD, PLAIN = "\x1b[36m", "\x1b[1m", "\x1b[0m"


def banner(
    *,
    node: str,
    version: str,
    app_name: str,
    app_id: int,
    transport: str,
    results: str,
    concurrency: int,
    pool: str,
    queues: Iterable[Queue | str],
    tasks: Iterable[str] = (),
    show_tasks: bool = False,
    color: bool = False,
    notes: Sequence[str] = (),
    platform: str = "",
    now: str = "",
    base_dir: str | Path | None = None,
) -> str:
    """Return the text.

    Args:
        node: the name of the node.
        version: that of umbel.
        app_name: the app's name.
        app_id: a number that tells apps of one name apart.
        transport: the broker's URL; its password is masked, an SQLite path made absolute.
        results: the result backend's URL; empty if results are not kept.
        concurrency: how many tasks run at once.
        pool: what runs them.
        queues: what is consumed; a name alone is a queue on a direct exchange of that name.
        tasks: names of the known tasks.
        show_tasks: list them.
        color: colour the flower and the headings.
        notes: names of settings that are set and change nothing.
        platform: the operating system, for the line below the first.
        now: the time, beside it.
        base_dir: the folder that a relative SQLite path starts at.
    """
    paint = _painted if color else _plain
    head = [f"{node} umbel v{version}", " ".join(part for part in (platform, now) if part), ""]
    config = (
        ("app", f"{app_name}:{app_id:#x}"),
        ("transport", _address(transport, base_dir)),
        ("results", _address(results or "disabled://", base_dir)),
        ("concurrency", f"{concurrency} ({pool})"),
        ("task events", "OFF (not built yet)"),
    )
    lines = [""]
    lines += [paint(CYAN, left) + right for left, right in zip(FLOWER, head, strict=True)]
    lines.append(paint(CYAN, STEM) + paint(BOLD, "[config]"))
    lines += [f"{paint(CYAN, STEM)}.> {f'{name}:':<12} {value}" for name, value in config]
    lines.append(paint(CYAN, FOOT) + paint(BOLD, "[queues]"))
    lines += [f"{ROOM}.> {_queue(queue)}" for queue in queues]
    if show_tasks:
        lines += ["", paint(BOLD, "[tasks]"), *(f"  . {name}" for name in sorted(tasks))]
    if notes:
        lines += ["", paint(BOLD, "[settings without effect]"), *(f"  - {note}" for note in notes)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _queue(queue: Queue | str) -> str:
    if isinstance(queue, str):
        queue = Queue(queue)
    exchange, kind = (queue.exchange.name, queue.exchange.type) if queue.exchange else (queue.name, "direct")
    return f"{queue.name:<16} exchange={exchange}({kind}) key={queue.routing_key or queue.name}"


def _address(url: str, base_dir: str | Path | None) -> str:
    if url.startswith("sqlite:"):
        try:
            url = sqlite_url(url, base_dir)
        except ImproperlyConfigured:  # the driver says so when it is opened; a banner fails for nothing
            return url
    return str(censored("", url)).replace(HIDDEN, "**")


def _painted(code: str, text: str) -> str:
    return f"{code}{text}{PLAIN}"


def _plain(_: str, text: str) -> str:
    return text
