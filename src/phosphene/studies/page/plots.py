"""Plots as SVG: drawn in the page's own colours, so that they follow it from light to dark, with labelled axes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460, 76, 14, 12, 46

HEIGHT = 300
"""Of a plot of lines; that of a dot plot depends on what is in it."""

TICKS = 5
"""About how many numbers stand beside an axis."""

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Series:
    """A line of a plot, or the marks of one kind: a name, points (x, y), and the number of its colour."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Spread:
    """A mark of a dot plot: in which line of the plot, of which kind, and its mean, least and largest value."""

    line: str
    kind: str
    mean: float
    least: float
    most: float


def line_plot(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    x_ticks: Sequence[tuple[float, str]] = (),
    logarithmic: bool = False,
) -> str:
    """Draw lines; with `logarithmic`, y goes by powers of ten. `x_ticks` are places and their names."""
    xs = [x for each in series for x, _ in each.points]
    ys = [log10(y) if logarithmic else y for each in series for _, y in each.points]
    ticks = x_ticks or [(tick, f"{tick:g}") for tick in nice_ticks(min(xs), max(xs)) if min(xs) <= tick <= max(xs)]
    y_ticks = (
        [log10(tick) for tick in log_ticks(10 ** min(ys), 10 ** max(ys))]
        if logarithmic
        else nice_ticks(min(ys), max(ys))
    )
    across = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _scale(min(y_ticks), max(y_ticks), HEIGHT - BOTTOM, TOP)
    parts = [_y_axis(up, y_ticks, y_label, HEIGHT, logarithmic), _x_axis(across, ticks, x_label, HEIGHT)]
    for each in series:
        places = " ".join(f"{across(x):.1f},{up(log10(y) if logarithmic else y):.1f}" for x, y in each.points)
        dashes = ' stroke-dasharray="5 4"' if each.dashed else ""
        line = f'<polyline class="line c{each.colour}" points="{places}"{dashes}>'
        parts.append(f"{line}<title>{escape(each.name)}</title></polyline>")
    return _svg(parts, HEIGHT, f"{y_label} by {x_label}")


def dot_plot(spreads: Sequence[Spread], x_label: str, kinds: Sequence[str]) -> str:
    """Draw a line for each name, with a mark for each kind: a dot at the mean, a bar from least to largest."""
    lines = list(dict.fromkeys(spread.line for spread in spreads))
    pitch = 14 * len(kinds) + 26
    height = TOP + pitch * len(lines) + BOTTOM
    ticks = nice_ticks(min(s.least for s in spreads), max(s.most for s in spreads))
    across = _scale(min(ticks), max(ticks), 12, WIDTH - RIGHT)
    parts = [_x_axis(across, [(tick, _number(tick)) for tick in ticks], x_label, height, start=12)]
    for spread in spreads:
        top = TOP + pitch * lines.index(spread.line)
        y = top + 24 + 14 * kinds.index(spread.kind)
        colour = kinds.index(spread.kind)
        least, mean, most = (across(value) for value in (spread.least, spread.mean, spread.most))
        parts.append(
            f'<g class="c{colour}"><title>{escape(f"{spread.line}, {spread.kind}: {spread.mean:.4g}")}'
            f" ({spread.least:.4g} to {spread.most:.4g})</title>"
            f'<line class="bar" x1="{least:.1f}" x2="{most:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="dot" cx="{mean:.1f}" cy="{y}" r="4.5"/></g>'
        )
    for index, line in enumerate(lines):
        parts.append(f'<text class="name" x="12" y="{TOP + pitch * index + 12}">{escape(line)}</text>')
    return _svg(parts, height, f"{x_label} by {' and '.join(kinds)}")


def nice_ticks(least: float, most: float) -> list[float]:
    """Return evenly spaced round numbers from below `least` to above `most`: 1, 2 or 5 times a power of ten apart."""
    span = (most - least) or abs(most) or 1.0
    rough = span / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = floor(least / step + 1e-9), ceil(most / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def log_ticks(least: float, most: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten, from the last one below `least` to the first above `most`."""
    powers = range(floor(log10(least)) - 1, ceil(log10(most)) + 2)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(index for index, tick in enumerate(ticks) if tick <= least * (1 + 1e-9))
    last = min(index for index, tick in enumerate(ticks) if tick >= most * (1 - 1e-9))
    return ticks[first : max(last, first + 1) + 1]


def _scale(least: float, most: float, start: float, stop: float) -> Scale:
    span = (most - least) or 1.0
    return lambda value: start + (value - least) / span * (stop - start)


def _x_axis(across: Scale, ticks: Sequence[tuple[float, str]], label: str, height: int, start: int = LEFT) -> str:
    bottom = height - BOTTOM
    marks = "".join(
        f'<line class="grid" x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{TOP}" y2="{bottom}"/>'
        f'<text class="tick" x="{across(x):.1f}" y="{bottom + 17}" text-anchor="middle">{escape(name)}</text>'
        for x, name in ticks
    )
    middle = (start + WIDTH - RIGHT) / 2
    return f'{marks}<text class="label" x="{middle}" y="{height - 8}" text-anchor="middle">{escape(label)}</text>'


def _y_axis(up: Scale, ticks: Sequence[float], label: str, height: int, logarithmic: bool) -> str:
    marks = "".join(
        f'<line class="grid{" zero" if y == 0 and not logarithmic else ""}" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
        f'y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">'
        f"{_number(10**y if logarithmic else y)}</text>"
        for y in ticks
    )
    middle = (TOP + height - BOTTOM) / 2
    turned = f'transform="translate(14 {middle}) rotate(-90)"'
    return f'{marks}<text class="label" {turned} text-anchor="middle">{escape(label)}</text>'


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _svg(parts: Sequence[str], height: int, name: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}">'
        f"{''.join(parts)}</svg>"
    )
