"""Draws benchmarks/results/<benchmark>.svg from the JSON beside it, for drain, publish, latency and beat. What is not there is not drawn.

A row is one queue: a dot at the median, a line over all rounds from the smallest to the largest, and the figure. The axes are
logarithmic. umbel is blue; floors, which are no queues, are hollow; all others are grey: that can be told apart without colours, too.
"""

import json
import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

from _harness import RESULTS, say
from _queues import CLIENT, FLOOR, OWN_CLIENT

WIDTH, LEFT, RIGHT = 880, 190, 190  # pixels; the names are on the left, the figures on the right
ROW, HEAD, GAP = 24, 34, 22
UMBEL, OTHER, INK, SOFT, GRID, PAPER = "#0072b2", "#6b6b6b", "#1f1f1f", "#5c5c5c", "#dddddd", "#ffffff"
FLOORS = {FLOOR.name, CLIENT.name, OWN_CLIENT.name}
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif\""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One dot: a name, the median, the range, what is written beside it."""

    name: str
    value: float
    low: float
    high: float
    said: str

    @property
    def kind(self):
        """umbel, a floor, or another queue."""
        if self.name.startswith("umbel"):
            return "umbel"
        return "floor" if self.name.partition(",")[0] in FLOORS else "other"


def text(x, y, words, *, size=13, color=INK, anchor="start", bold=False):
    """A line of text whose base is at y."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


def line(x1, y1, x2, y2, color, width=1.0):
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"/>'


def dot(x, y, kind):
    """The median of one row."""
    color = UMBEL if kind == "umbel" else OTHER
    fill = PAPER if kind == "floor" else color
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if kind == "umbel" else 5}" fill="{fill}" stroke="{color}" stroke-width="2"/>'


def axis(panels):
    """The powers of ten below and above everything that is drawn."""
    lows = [row.low for _, rows in panels for row in rows if row.low > 0]
    highs = [row.high for _, rows in panels for row in rows]
    return math.floor(math.log10(min(lows))), max(math.ceil(math.log10(max(highs))), math.floor(math.log10(min(lows))) + 1)


def tick(power, unit):
    """What stands at a power of ten."""
    return (f"{10**power:,}" if power >= 0 else f"{10**power:.{-power}f}") + unit


def drawing(title, below, panels, unit, foot):
    """Return an SVG of some panels, one below the other, that share their axis."""
    first, last = axis(panels)
    right = WIDTH - RIGHT

    def at(value):
        share = (math.log10(max(value, 10**first)) - first) / (last - first)
        return LEFT + share * (right - LEFT)

    parts, y = [text(24, 36, title, size=19, bold=True), text(24, 58, below, color=SOFT)], 78
    for name, rows in panels:
        y += HEAD
        top, bottom = y - 2, y + ROW * len(rows) + 2
        parts.append(text(24, y - 12, name, size=14, bold=True))
        for power in range(first, last + 1):
            parts.append(line(at(10**power), top, at(10**power), bottom, GRID))
            parts.append(text(at(10**power), bottom + 14, tick(power, unit), size=11, color=SOFT, anchor="middle"))
        for row in rows:
            middle, color = y + ROW / 2, UMBEL if row.kind == "umbel" else OTHER
            ours = row.kind == "umbel"
            parts.append(text(LEFT - 14, middle + 4.5, row.name, color=UMBEL if ours else INK, anchor="end", bold=ours))
            parts.append(line(LEFT, middle, at(row.value), middle, GRID, 1.5))
            parts.append(line(at(row.low), middle, at(row.high), middle, color, 2.5))
            parts.append(dot(at(row.value), middle, row.kind))
            parts.append(text(right + 18, middle + 4.5, row.said, color=UMBEL if ours else INK, bold=ours))
            y += ROW
        y += GAP
    for words in foot:
        y += 17
        parts.append(text(24, y, words, size=11, color=SOFT))
    height = f"{y + 18:.0f}"
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT} role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f'<rect width="100%" height="100%" fill="{PAPER}"/>', *parts, "</svg>", ""])


def foot(result, *more):
    """How to read it, and on what and from what the figures were made."""
    machine = result["machine"]
    where = f"{machine.get('cpu', '?')}, {machine['cpus']} CPUs, Python {machine['python']}, Redis {machine.get('redis', '?')}"
    when = f"{result.get('date', '?')[:10]}, commit {result.get('commit') or '?'}"
    return [
        *more,
        f"{where}, Linux {machine.get('kernel', '?')}; {when}.",
        "Absolute figures say nothing about another machine: compare rows.",
    ]


def rate(line, name):
    """A row of a rate."""
    value = line["rate"]["median"]
    return Row(name=name, value=value, low=line["rate"]["min"], high=line["rate"]["max"], said=f"{value:,.0f}/s")


def reading(result):
    """What dots and lines of rates are."""
    most = max(len(line["rate"]["rounds"]) for line in result["medians"])
    return f"Dot: median of {most} round{'s' * (most > 1)}; line: from the smallest to the largest."


def fastest_first(rows):
    """The largest on top."""
    return sorted(rows, key=lambda row: -row.value)


def drain(result):
    """Results off, and on."""
    panels = []
    for stored, name in ((False, "Results off"), (True, "Results on")):
        rows = [rate(line, line["queue"]) for line in result["medians"] if line["results"] == stored and line["rate"]["median"] > 0]
        if rows:
            panels.append((name, fastest_first(rows)))
    return drawing(
        "Queued no-op tasks per second",
        "One worker with one process that runs tasks, each queue with its own defaults; a larger figure is better.",
        panels,
        "/s",
        foot(result, reading(result), f"Hollow: {FLOOR.name} is no queue, but the least that a worker must do."),
    )


def publish(result):
    """One panel for each way."""
    names = {"One call at a time": {"loop"}, "adelay() from 100 coroutines": {"async"}, "The queue's call for many": {"bulk", "pipeline"}}
    panels = []
    for name, ways in names.items():
        lines = [line for line in result["medians"] if line["way"] in ways and line["rate"]["median"] > 0]
        rows = [
            rate(line, line["queue"] + (", results on" if line["results"] else "") + (", pipelined" if line["way"] == "pipeline" else ""))
            for line in lines
        ]
        if rows:
            panels.append((name, fastest_first(rows)))
    clients = f"{CLIENT.name} and {OWN_CLIENT.name} are no queues, but clients that push the same bytes as umbel."
    return drawing(
        "Calls sent per second by one process",
        "Results off, unless it is said; a larger figure is better.",
        panels,
        "/s",
        foot(result, reading(result), f"Hollow: {clients}"),
    )


def latency(result):
    """From the call to its return, to the start of its task, to its result."""
    names = {"delay_ms": "delay() returns", "start_ms": "The task starts", "get_ms": "get() has the result"}
    panels = []
    for key, name in names.items():
        rows = []
        for case, line in result["cases"].items():
            p50, p99 = line[key]["p50"], line[key]["p99"]
            rows.append(Row(name=case, value=p50, low=p50, high=p99, said=f"{p50:.2f} ms, p99 {p99:.2f}"))
        panels.append((name, sorted(rows, key=lambda row: row.value)))
    calls = min(line["delay_ms"]["calls"] for line in result["cases"].values())
    return drawing(
        "How long a call takes on an idle worker",
        "From the moment before delay(); a smaller figure is better.",
        panels,
        " ms",
        foot(result, f"Dot: median of {calls} calls that were made alone; line: to the 99th percentile."),
    )


def beat(result):
    """What schedulers with many entries send, how soon an edit counts, what an idle one costs."""
    cases = result["cases"]

    def rows(key, said, reverse=False):
        found = []
        for name, line in cases.items():
            if (value := line.get(key)) is not None:
                names = ("p50", "p50", "p99") if "p50" in value else ("median", "min", "max")
                middle, low, high = (max(value[each], 0.1) for each in names)
                found.append(Row(name=name, value=middle, low=low, high=high, said=said(value, line)))
        return sorted(found, key=lambda row: row.value, reverse=reverse)

    panels = [
        (
            "Sent per second",
            rows("sent_per_second", lambda each, line: f"{each['median']:,.0f}/s of {line['due_per_second']['median']:,.0f}", True),
        ),
        ("An edit counts after so many ms", rows("edit_ms", lambda each, _: f"{each['p50']:,.0f} ms, p99 {each['p99']:,.0f}")),
        ("% of a core while nothing is due", rows("idle_cpu_percent", lambda each, _: f"{each['median']:.1f} %")),
    ]
    return drawing(
        f"Schedulers with {result['count']:,} entries",
        "One process each; of the first a larger figure is better, of the others a smaller.",
        panels,
        "",
        foot(result, "Dot: median; line: all rounds, of edits to the 99th percentile. Celery's beat cannot be edited."),
    )


def main():
    for draw in (drain, publish, latency, beat):
        path = RESULTS / f"{draw.__name__}.json"
        if path.exists():
            path.with_suffix(".svg").write_text(draw(json.loads(path.read_text())))
            say(f"{path.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
