"""`umbel graph`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from html import escape
from itertools import pairwise
from typing import Any

import click

from umbel.cli.base import Command, current_app_of
from umbel.result import GroupResult
from umbel.result.graph import dot
from umbel.result.tree import Tree

__all__ = ["graph"]

COLOURS = {
    "SUCCESS": "#d8f0d8",
    "FAILURE": "#f6d3d3",
    "REVOKED": "#e6e6e6",
    "STARTED": "#fff2cc",
    "PROGRESS": "#fff2cc",
    "RETRY": "#ffe0c2",
}
WIDTH, HEIGHT, GAP, LEFT = 230, 44, 16, 60  # of a box in a drawing, and what is free between two rows and two columns


@click.pass_context
def show(ctx: click.Context, id: str, form: str) -> int:
    """Prints the workflow of the task or saved group ID: its tasks, their states, and how far they are.

    Of a task it is the whole workflow that it belongs to, also what has not started, and what its tasks sent.
    """
    app = current_app_of(ctx)
    try:
        result: Any = GroupResult.restore(id, app=app) if app.backend.keeps_flows else None
        tree = (result or app.AsyncResult(id)).tree()
    except NotImplementedError as exc:  # there is no result backend; the text says what to set
        raise click.ClickException(str(exc)) from None
    click.echo(FORMS[form](tree).rstrip("\n"))
    return 0


def as_json(tree: Tree) -> str:
    """Return it as JSON."""
    return json.dumps(tree.to_dict(), ensure_ascii=False, default=repr)


def as_text(tree: Tree) -> str:
    """Return it as lines, each member below what it belongs to."""
    return "\n".join(lines(tree, "", ""))


def lines(tree: Tree, first: str, others: str) -> Iterator[str]:
    """Yield the lines of a tree; *first* stands before its own, *others* before those of its members."""
    yield f"{first}{label(tree)}"
    for at, each in enumerate(tree.members):
        last = at == len(tree.members) - 1
        yield from lines(each, others + ("└─ " if last else "├─ "), others + ("   " if last else "│  "))


def label(tree: Tree) -> str:
    """Return what is said of one part."""
    words = [tree.name if tree.kind == "task" and tree.name else tree.kind, tree.id or "", tree.state]
    if tree.progress is not None:
        words.append(f"{tree.progress.current:g}/{tree.progress.total:g}")
        words.append(tree.progress.message)
    return " ".join(word for word in words if word)


Edge = tuple[str, str]


class Drawing:
    """The tasks of a tree as boxes, with arrows from each to what follows it."""

    def __init__(self, tree: Tree) -> None:
        self.boxes: dict[str, Tree] = {}
        self.edges: list[Edge] = []
        self._add(tree)

    def _add(self, tree: Tree) -> tuple[list[str], list[str]]:
        """Add a part; return the boxes that it begins with, and those that it ends with."""
        if tree.kind == "task":
            name = str(tree.id)
            self.boxes[name] = tree
            for each in tree.members:
                self._join([name], self._add(each)[0])
            return [name], [name]
        parts = [self._add(each) for each in tree.members]
        if tree.kind == "chain" and parts:
            for (_, ends), (starts, _) in pairwise(parts):
                self._join(ends, starts)
            return parts[0][0], parts[-1][1]
        return [name for starts, _ in parts for name in starts], [name for _, ends in parts for name in ends]

    def _join(self, ends: list[str], starts: list[str]) -> None:
        self.edges += [(a, b) for a in ends for b in starts]

    def columns(self) -> dict[str, int]:
        """Return for each box how many are before it, along the longest way."""
        column = dict.fromkeys(self.boxes, 0)
        for _ in self.boxes:  # as often as the longest way is long, at most
            moved = [(b, column[a] + 1) for a, b in self.edges if column[b] <= column[a]]
            if not moved:
                break
            column.update(moved)
        return column


def as_dot(tree: Tree) -> str:
    """Return it in the language of Graphviz."""
    drawing = Drawing(tree)
    return dot(
        [(name, f"{each.name or 'task'}\n{name}\n{each.state}", COLOURS.get(each.state, "")) for name, each in drawing.boxes.items()],
        drawing.edges,
    )


def as_svg(tree: Tree) -> str:
    """Return it as a picture: columns from left to right, in each the tasks that may run at the same time."""
    drawing, places, heights = Drawing(tree), dict[str, tuple[int, int]](), dict[int, int]()
    for name, column in drawing.columns().items():
        row = heights.get(column, 0)
        heights[column] = row + 1
        places[name] = GAP + column * (WIDTH + LEFT), GAP + row * (HEIGHT + GAP)
    width = GAP + (max(heights, default=0) + 1) * (WIDTH + LEFT) - LEFT + GAP
    height = GAP + max(heights.values(), default=1) * (HEIGHT + GAP)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        *(arrow(places[a], places[b]) for a, b in drawing.edges),
        *(box(each, *places[name]) for name, each in drawing.boxes.items()),
        "</svg>",
    ])  # fmt: skip


def arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the line from one box to another."""
    x, y, to_x, to_y = start[0] + WIDTH, start[1] + HEIGHT // 2, end[0], end[1] + HEIGHT // 2
    return f'  <path d="M{x} {y} C{x + LEFT // 2} {y} {to_x - LEFT // 2} {to_y} {to_x} {to_y}" fill="none" stroke="#888"/>'


def box(tree: Tree, x: int, y: int) -> str:
    """Return one task."""
    name, state = escape(tree.name or str(tree.id)), escape(label(tree).partition(str(tree.id))[2].strip() or tree.state)
    return (
        f'  <g><title>{escape(str(tree.id))}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
        f'fill="{COLOURS.get(tree.state, "#fff")}" stroke="#555"/>'
        f'<text x="{x + 8}" y="{y + 18}">{name[:40]}</text><text x="{x + 8}" y="{y + 35}" fill="#555">{state[:40]}</text></g>'
    )


FORMS: Mapping[str, Callable[[Tree], str]] = {"text": as_text, "dot": as_dot, "svg": as_svg, "json": as_json}

graph = Command(
    "graph",
    callback=show,
    params=[
        click.Argument(["id"]),
        click.Option(["--format", "form"], type=click.Choice(list(FORMS)), default="text", help="How to print it.", show_default=True),
    ],
    help=show.__doc__,
    short_help="Print a workflow and how far it is.",
)
