"""The page of a survey: the answer, one large picture, then how, then all else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from phosphene.imagefile.formats import WEBP
from phosphene.networks import registry
from phosphene.studies.measure.claims import Finding, coarseness, findings
from phosphene.studies.measure.measures import MEASURES, Measure
from phosphene.studies.measure.table import Row
from phosphene.studies.page.charts import Chart, Key, spread_of, summaries
from phosphene.studies.page.plots import Series, Spread, dot_plot, line_plot
from phosphene.studies.page.report import data_of, environment, small
from phosphene.types import Image, Size

SMALL_FILE = replace(WEBP, whole={"quality": 70})
"""How pictures are compressed: hundreds of them are to fit into one page."""

CHARTED = ("strength", "uniqueness_features", "ssim", "colour_shift")
"""Measures that are drawn; all are in the table."""

HEADINGS = {
    "holds": "Holds",
    "does not hold: the opposite does": "The opposite holds",
    "cannot be told from chance": "Cannot be told from chance",
    "too few to tell": "Too few to tell",
    "cannot be tested": "Cannot be tested here",
}
"""Verdicts, and how the page's opening calls them, in its order."""


def page(studies: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the page of studies that were run and measured, by the names of their photographs."""
    found, first = findings(rows), next(iter(studies.values())).study
    good = [row for row in rows if row["failure"] is None]
    return (
        environment()
        .get_template("survey.html")
        .render(
            answer=answer(found),
            hero=_hero(studies),
            photographs=[_photograph(name, study) for name, study in studies.items()],
            findings=found,
            failures={f"{name}/{cell}": why for name, s in studies.items() for cell, why in s.failures.items()},
            absent={each.model: each for study in studies.values() for each in study.study.absent},
            models=[registry.card(model) for model in first.models],
            seeds=sorted({row["seed"] for row in rows}),
            settings=max((cell.recipe for cell in first.cells), key=lambda recipe: recipe.octaves),
            change=first.cells[0].change,
            grids=first.grids,
            notes=dict.fromkeys(note for study in studies.values() for note in study.study.notes),
            charts=[*(_dots(measure, good) for measure in MEASURES if measure.column in CHARTED), *_depths(good)],
            summaries={grid.name: summaries(grid, rows) for grid in first.grids},
            measures=MEASURES,
            versions=next(
                (r.made.versions for study in studies.values() for r in study.results.values() if r.made), {}
            ),
        )
    )


def answer(found: Sequence[Finding]) -> dict[str, list[Finding]]:
    """The answer: what holds, what does not, what cannot be told, and what cannot be tested."""
    return {heading: [each for each in found if each.verdict == verdict] for verdict, heading in HEADINGS.items()}


def _hero(studies: Mapping[str, Any]) -> dict[str, str]:
    """A photograph and what a network makes of it, untrained and trained where there are both, in one picture."""
    good = {name: [row for row in study.rows if row["failure"] is None] for name, study in studies.items()}
    name = next((name for name, there in good.items() if there), None)
    if name is None:
        return {}
    study, there = studies[name], good[name]
    trained = [row for row in there if row["weights"] == "pretrained"] or there
    twins = [row for row in there if (row["model"], row["weights"]) == (trained[0]["model"], "untrained")]
    shown = [*twins[:1], trained[0]] if twins and twins[0] != trained[0] else [trained[0]]
    dreams = [small(study.picture(row)) for row in shown]
    photograph = small(study.photo.image, _size(dreams[0]))
    return {
        "image": data_of(torch.cat([photograph, *dreams], dim=2)),
        "label": ", ".join(["the photograph", *(row["row"] for row in shown)]),
        "layer": trained[0]["layers"],
    }


def _photograph(name: str, study: Any) -> dict[str, Any]:
    """A photograph, and its dreams by grid and network: for each, lines of pictures with a label each."""
    grids = []
    for grid in study.study.grids:
        there = [row for row in study.rows if row["grid"] == grid.name]
        seeds = sorted({row["seed"] for row in there})
        lines = [
            (line, [_shown(name, study, row, len(grid.columns)) for row in _in_order(there, line, grid.columns, seeds)])
            for line in grid.rows
        ]
        several = len(grid.columns) > 1
        across = len(grid.columns) if several else len(seeds)
        grids.append({"title": grid.title, "lines": lines, "across": across, "several": several})
    like = next((study.picture(row) for row in study.rows if row["failure"] is None), study.photo.image)
    photograph = data_of(small(study.photo.image, _size(like)), SMALL_FILE)
    return {"name": name, "source": study.study.source, "image": photograph, "grids": grids}


def _size(image: Image) -> Size:
    return image.shape[1], image.shape[2]


def _in_order(rows: Sequence[Row], line: str, columns: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """The rows of a line: seeds one below the other, or beside each other where there is but one column."""
    places = {(row["seed"], row["column"]): row for row in rows if row["row"] == line}
    return [places[seed, column] for seed in seeds for column in columns]


def _shown(name: str, study: Any, row: Row, columns: int) -> dict[str, str]:
    place = ([row["column"]] if columns > 1 else []) + [f"seed {row['seed']}"]
    return {
        "key": f"{name}-{row['grid']}-{row['cell']}",
        "photograph": name,
        "image": "" if row["failure"] else data_of(small(study.picture(row)), SMALL_FILE),
        "label": " · ".join(place),
        "network": row["row"],
        "layers": row["layers"],
        "step_size": row["step_size"],
        "failure": row["failure"] or "",
    }


def _dots(measure: Measure, rows: Sequence[Row]) -> Chart:
    """A measure of the first grid's dreams, by network: mean and range over photographs and seeds."""
    first = [row for row in rows if row["grid"] == rows[0]["grid"] and row["column"] == rows[0]["column"]]
    kinds = {"pretrained": "trained", "untrained": "untrained"}
    spreads = [
        Spread(model, kind, *spread)
        for model in dict.fromkeys(row["model"] for row in first)
        for weights, kind in kinds.items()
        if (spread := spread_of(r[measure.column] for r in first if (r["model"], r["weights"]) == (model, weights)))
    ]
    shown = [kind for kind in kinds.values() if any(spread.kind == kind for spread in spreads)]
    svg = dot_plot(spreads, f"{measure.name} ({measure.unit})", shown) if spreads else ""
    return Chart(measure.name, svg, tuple(Key(kind, number) for number, kind in enumerate(shown)))


def _depths(rows: Sequence[Row]) -> list[Chart]:
    """How coarse patterns are by depth: a line for each network, the mean over photographs and seeds."""
    deep = [row for row in rows if row["grid"] == "depth"]
    series = []
    for number, line in enumerate(dict.fromkeys(row["row"] for row in deep)):
        spreads = [
            spread_of(coarseness(row) for row in deep if (row["row"], row["column"]) == (line, column))
            for column in dict.fromkeys(row["column"] for row in deep)
        ]
        points = tuple((float(place), spread[0]) for place, spread in enumerate(spreads) if spread)
        series.append(Series(line, points, number % 6))
    if not series:
        return []
    ticks = [(float(place), column) for place, column in enumerate(dict.fromkeys(row["column"] for row in deep))]
    svg = line_plot(series, "relative depth", "mean octave band", x_ticks=ticks)
    keys = tuple(Key(each.name, each.colour) for each in series)
    return [
        Chart("Coarseness by depth", svg, keys, "Band 1 has wavelengths of 2 to 4 px, each next twice as long ones.")
    ]
