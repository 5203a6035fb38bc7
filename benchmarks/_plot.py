"""Lines over logarithmic axes, as SVG, written by hand."""

from math import log10
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, GAP = 420, 300, 70, 40, 90
COLOURS = ("#1b6ca8", "#c8553d", "#4a7c59", "#8e6c8a", "#8a6d1b", "#333333")


class Axis:
    """Numbers, from 10^n to 10^m, along so many pixels."""

    def __init__(self, values, pixels):
        from math import ceil, floor

        self.low, self.high = floor(log10(min(values))), ceil(log10(max(values)) - 0.01)
        self.high += self.high == self.low
        self.pixels = pixels

    def at(self, value):
        """Where *value* is."""
        return (log10(value) - self.low) / (self.high - self.low) * self.pixels

    @property
    def ticks(self):
        """The powers of ten."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def plain(number):
    """A power of ten as people write it."""
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"


def text(x, y, words, *, size=12, anchor="middle", more=""):
    """Some words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {more}>{words}</text>'


def panel(left, title, across, lines):
    """One plot: *lines* are (name, [(x, y), ...])."""
    points = [point for _, line in lines for point in line if point[1] > 0]
    x, y = Axis([a for a, _ in points], WIDTH), Axis([b for _, b in points], HEIGHT)
    bottom = TOP + HEIGHT
    parts = [text(left + WIDTH / 2, TOP - 14, title, size=14), text(left + WIDTH / 2, bottom + 38, across)]
    for tick in x.ticks:
        at = left + x.at(tick)
        parts += [f'<path d="M{at:.1f} {TOP}V{bottom}" stroke="#ddd"/>', text(at, bottom + 18, plain(tick))]
    for tick in y.ticks:
        at = bottom - y.at(tick)
        parts += [f'<path d="M{left} {at:.1f}H{left + WIDTH}" stroke="#ddd"/>', text(left - 8, at + 4, plain(tick), anchor="end")]
    for (_, line), colour in zip(lines, COLOURS, strict=False):
        path = " ".join(f"{left + x.at(a):.1f},{bottom - y.at(b):.1f}" for a, b in line if b > 0)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return parts


def write(path, panels, across):
    """Write plots side by side, with one legend: *panels* are (title, lines)."""
    wide, high = LEFT + len(panels) * (WIDTH + GAP), TOP + HEIGHT + 90
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" fill="#222">'
    parts = [head, f'<rect width="{wide}" height="{high}" fill="#fff"/>']
    for number, (title, lines) in enumerate(panels):
        parts += panel(LEFT + number * (WIDTH + GAP), title, across, lines)
    for number, ((name, _), colour) in enumerate(zip(panels[0][1], COLOURS, strict=False)):
        at = LEFT + number * 150
        parts.append(f'<path d="M{at} {high - 20}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(text(at + 30, high - 16, name, anchor="start"))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join([*parts, "</svg>"]) + "\n")
