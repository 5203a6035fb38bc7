"""Rows for people: a table on a terminal, plain columns for a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

import click

__all__ = ["ago", "print_rows", "printable"]

UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def print_rows(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0, colors: bool = True) -> None:
    """Print *rows* under *heads*; the last *numbers* columns hold numbers."""
    texts = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
        for row in [heads, *texts]:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.console import Console  # a fifth of a second, that only a terminal needs
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for n, head in enumerate(heads):
        right = n >= len(heads) - numbers
        # What is copied from here, such as an id, is never cut; a number in two lines is none, and its head may have several.
        words = head.replace(" ", "\n") if right else head
        table.add_column(words, justify="right" if right else "left", no_wrap=right or n == 0, overflow="fold")
    for row in texts:
        table.add_row(*(Text(cell) for cell in row))
    Console(no_color=not colors, highlight=False).print(table)


def printable(text: str, *, lines: bool = False) -> str:
    """Return *text* with what a terminal would obey written out: a sender chooses what a letter holds."""
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def ago(at: float) -> str:
    """Return how long ago *at* was, in its largest unit."""
    age = max(0, int(time.time() - at))
    size, unit = next(((size, unit) for size, unit in UNITS if age >= size), (1, "s"))
    return f"{age // size}{unit}"
