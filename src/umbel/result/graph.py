"""A graph of what depends on what, and the walk over a result and its children."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TextIO, TypeVar

from umbel.exceptions import IncompleteStream

__all__ = ["DependencyGraph", "dot", "graph_of", "walk"]

N = TypeVar("N", bound=Hashable)


class DependencyGraph(Generic[N]):
    """Nodes, and for each those that it depends on."""

    def __init__(self, it: Iterable[tuple[N, Iterable[N]]] = (), formatter: Callable[[N], str] = str) -> None:
        self.adjacent: dict[N, list[N]] = {}
        self.formatter = formatter
        for node, others in it:
            self.add_arc(node)
            for other in others:
                self.add_edge(node, other)

    def add_arc(self, obj: N) -> None:
        """Add a node."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: N, B: N) -> None:  # noqa: N803 - Celery's names
        """Let *A* depend on *B*."""
        self.add_arc(B)
        self.adjacent.setdefault(A, []).append(B)

    def edges(self) -> list[N]:
        """Return the nodes that others depend on."""
        return list(dict.fromkeys(other for others in self.adjacent.values() for other in others))

    def valency_of(self, obj: N) -> int:
        """Return how many nodes *obj* depends on, and they on, each counted as often as it is reached."""
        others = self.adjacent.get(obj, [])
        return len(others) + sum(self.valency_of(other) for other in others)

    def topsort(self) -> list[N]:
        """Return the nodes so that each stands behind those that it depends on.

        Raises:
            ValueError: some depend on each other in a ring.
        """
        done: dict[N, None] = {}
        for start in self.adjacent:
            self._place(start, done)
        return list(done)

    def _place(self, start: N, done: dict[N, None]) -> None:
        trail = {start: iter(self.adjacent[start])}
        while trail:
            node = next(reversed(trail))
            other = next((each for each in trail[node] if each not in done), None)
            if other is None:
                done[node] = None
                del trail[node]
            elif other in trail:
                raise ValueError(f"{other!r} depends on itself: {' -> '.join(map(str, [*trail, other]))}.")
            else:
                trail[other] = iter(self.adjacent[other])

    def to_dot(self, fh: TextIO, formatter: Callable[[N], str] | None = None) -> None:
        """Write the graph in the language of Graphviz."""
        name = formatter or self.formatter
        fh.write(dot([(str(node), name(node), "") for node in self], [(str(a), str(b)) for a, others in self.items() for b in others]))

    def items(self) -> Iterable[tuple[N, list[N]]]:
        """Return the nodes with what each depends on."""
        return self.adjacent.items()

    def __iter__(self) -> Iterator[N]:
        return iter(self.adjacent)

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: object) -> bool:
        return obj in self.adjacent

    def __getitem__(self, node: N) -> list[N]:
        return self.adjacent[node]

    def __repr__(self) -> str:
        return "\n".join(f"{node}({len(others)})" + "".join(f"\n    {other}" for other in others) for node, others in self.items())


def dot(nodes: Iterable[tuple[str, str, str]], edges: Iterable[tuple[str, str]]) -> str:
    """Return a drawing in the language of Graphviz; of each node its id, its text and its colour."""
    lines = [
        "digraph workflow {",
        "    rankdir=LR;",
        '    node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif"];',
    ]
    for name, text, colour in nodes:
        fill = f", fillcolor={quoted(colour)}" if colour else ""
        lines.append(f"    {quoted(name)} [label={quoted(text)}{fill}];")
    lines += [f"    {quoted(a)} -> {quoted(b)};" for a, b in edges]
    return "\n".join([*lines, "}"]) + "\n"


def quoted(text: str) -> str:
    """Return *text* as a string of Graphviz."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def walk(result: Any, *, intermediate: bool) -> Iterator[tuple[Any, Any]]:
    """Yield each result below *result* with the one that it is a child of, those that are nearer first.

    Raises:
        IncompleteStream: one has not ended, so its children are not known, and not *intermediate*.
    """
    waiting: deque[tuple[Any, Any]] = deque([(None, result)])
    while waiting:
        parent, node = waiting.popleft()
        yield parent, node
        if node.ready():
            waiting.extend((node, child) for child in node.children or ())
        elif not intermediate:
            raise IncompleteStream(f"{node} has not ended: what it sends is not known yet. Ask with intermediate=True to see what is.")


def graph_of(result: Any, *, intermediate: bool, formatter: Callable[[Any], str] | None) -> DependencyGraph[Any]:
    """Return *result* and all below it, each with its children."""
    graph: DependencyGraph[Any] = DependencyGraph(formatter=formatter or str)
    for parent, node in walk(result, intermediate=intermediate):
        graph.add_arc(node)
        if parent is not None:
            graph.add_edge(parent, node)
    return graph
