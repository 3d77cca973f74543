"""The page's plots and its summary table, from the table of measures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from phosphene.studies.measure.measures import BANDS, MEASURES, Measure
from phosphene.studies.measure.table import Row
from phosphene.studies.page.plots import Series, Spread, dot_plot, line_plot
from phosphene.studies.run.cell import Result
from phosphene.studies.study import Grid, Study


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a name, the number of its colour, and whether its line is dashed."""

    name: str
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A plot as SVG, with a title and a legend."""

    title: str
    svg: str
    legend: tuple[Key, ...]
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """A place of a grid in numbers: by measure's column, the mean and the range over the seeds that did not fail."""

    row: str
    column: str
    layers: str
    step_size: str
    drive: str
    values: Mapping[str, tuple[float, float, float]]


def charts(study: Study, rows: Sequence[Row], results: Mapping[str, Result]) -> list[Chart]:
    """Draw what there is to draw of the first grid: each measure, the octave bands, and the score over the steps."""
    grid = study.grids[0]
    there = [row for row in rows if row["grid"] == grid.name and row["failure"] is None]
    drawn = [_dots(grid, there, measure) for measure in MEASURES if measure.column != "change"]
    lines = [_bands(grid, there), _climbs(grid, results)]
    return [chart for chart in [*drawn, *lines] if chart is not None]


def summaries(grid: Grid, rows: Sequence[Row]) -> list[Summary]:
    """Sum up the measures of each place of a grid."""
    found = []
    for row in grid.rows:
        for column in grid.columns:
            there = [r for r in rows if (r["grid"], r["row"], r["column"]) == (grid.name, row, column)]
            good = [r for r in there if r["failure"] is None]
            if good:
                found.append(
                    Summary(
                        row=row,
                        column=column,
                        layers=good[0]["layers"],
                        step_size=_range(r["step_size"] for r in good),
                        drive=_range(r["drive"] for r in good),
                        values={
                            measure.column: spread
                            for measure in MEASURES
                            if (spread := spread_of(r[measure.column] for r in good)) is not None
                        },
                    )
                )
    return found


def spread_of(values: Iterable[float | None]) -> tuple[float, float, float] | None:
    """Mean, least and largest of the values that there are."""
    known = [value for value in values if value is not None]
    return (sum(known) / len(known), min(known), max(known)) if known else None


def _range(values: Iterable[float]) -> str:
    known = sorted(values)
    return f"{known[0]:.3g}" if f"{known[0]:.3g}" == f"{known[-1]:.3g}" else f"{known[0]:.3g}–{known[-1]:.3g}"


def _dots(grid: Grid, rows: Sequence[Row], measure: Measure) -> Chart | None:
    spreads = []
    for row in grid.rows:
        for column in grid.columns:
            spread = spread_of(r[measure.column] for r in rows if (r["row"], r["column"]) == (row, column))
            if spread is not None:
                spreads.append(Spread(row or "all", column, *spread))
    if not spreads:
        return None
    kinds = list(dict.fromkeys(spread.kind for spread in spreads))
    svg = dot_plot(spreads, f"{measure.name} ({measure.unit})", kinds)
    return Chart(measure.name, svg, tuple(Key(kind, number) for number, kind in enumerate(kinds)))


def _lines(grid: Grid) -> tuple[list[tuple[str, str, str]], str]:
    """Which places a line plot compares, each as name, row and column; and which of all places these are.

    They are a grid's rows, for one column; or the columns, where there is but one row.
    """
    if len(grid.rows) == 1:
        return [(column, grid.rows[0], column) for column in grid.columns], ""
    column = "octaves" if "octaves" in grid.columns else grid.columns[0]
    return [(row, row, column) for row in grid.rows], f", for {column}"


def _bands(grid: Grid, rows: Sequence[Row]) -> Chart | None:
    series, (lines, which) = [], _lines(grid)
    for number, (name, row, column) in enumerate(lines):
        there = [r for r in rows if (r["row"], r["column"]) == (row, column)]
        bands = [spread_of(r[f"strength_band_{band}"] for r in there) for band in range(1, BANDS + 1)]
        points = tuple((float(band), spread[0]) for band, spread in enumerate(bands, start=1) if spread)
        if points:
            series.append(Series(name, points, number % 6, _dashed(name)))
    if not series:
        return None
    ticks = [(float(band), f"{2**band}–{2 ** (band + 1)}") for band in range(1, BANDS + 1)]
    svg = line_plot(series, "wavelength (px)", "energy added", x_ticks=ticks)
    note = f"Mean over the seeds{which}. Below zero, the dream is smoother than the photograph."
    return Chart("Pattern strength by octave band", svg, _keys(series), note)


def _climbs(grid: Grid, results: Mapping[str, Result]) -> Chart | None:
    series, (lines, which) = [], _lines(grid)
    for number, (name, row, column) in enumerate(lines):
        for place in grid.at(row, column)[:1]:
            result = results[place.cell]
            before, trace = result.score_before or 0.0, result.trace
            if before > 0 and all(score > 0 for *_, score in trace) and trace:
                points = tuple((float(step), score / before) for step, (*_, score) in enumerate(trace, start=1))
                series.append(Series(name, points, number % 6, _dashed(name)))
    if not series:
        return None
    svg = line_plot(series, "step, over all octaves", "score over the photograph’s", logarithmic=True)
    note = f"First seed{which}. A new octave begins where a curve jumps: its picture is larger."
    return Chart("Score over the steps", svg, _keys(series), note)


def _keys(series: Sequence[Series]) -> tuple[Key, ...]:
    return tuple(Key(each.name, each.colour, each.dashed) for each in series)


def _dashed(row: str) -> bool:
    return row.endswith(" untrained")
