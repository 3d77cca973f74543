"""The measures of a study as a table: a row for each place of each grid.

All is measured on the picture files, so that a study that went on where it stopped gives the same numbers as one that
was never stopped. Times are in a table of their own, since they are the only numbers that differ.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import PurePath
from statistics import mean
from typing import Any

import torch

from phosphene.dreaming.resample import resize
from phosphene.dreaming.strength import rms_change
from phosphene.imagefile import Photo
from phosphene.studies.measure.measures import BANDS, PICTURE_MEASURES, energies_added, feature_distance, looked_at
from phosphene.studies.run.cell import Result
from phosphene.studies.run.folder import Folder
from phosphene.studies.study import Place, Study
from phosphene.types import Image

Row = dict[str, Any]

MEASURE_COLUMNS = (
    *PICTURE_MEASURES,
    *(f"strength_band_{band}" for band in range(1, BANDS + 1)),
    "score_before", "score_after", "score_gain", "uniqueness_features", "uniqueness_pixels", "seeds_features",
)  # fmt: skip
COLUMNS = (
    "photograph", "grid", "row", "column", "seed", "cell", "model", "weights", "layers",
    "octaves", "steps", "step_size", "drive", "wanted_change", *MEASURE_COLUMNS, "failure",
)  # fmt: skip


def measure(study: Study, photo: Photo, folder: Folder, results: Mapping[str, Result]) -> list[Row]:
    """Measure a study's pictures; a failed cell's row has its reason, and None for what could not be measured."""
    threads, photograph = torch.get_num_threads(), PurePath(study.source).name
    torch.set_num_threads(1)  # as in a cell: the last bits depend on it
    try:
        of_cell = {name: _of_cell(r, folder.dream(name), photo) for name, r in results.items() if r.failure is None}
        return [
            {column: row.get(column) for column in COLUMNS}
            for grid in study.grids
            for place, apart in _distances(grid.places, folder, results)
            for row in [
                {"photograph": photograph, **_placed(grid.name, place, results[place.cell])}
                | of_cell.get(place.cell, {})
                | apart
            ]
        ]
    finally:
        torch.set_num_threads(threads)


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Spell rows as CSV; numbers with all their digits, None as nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def times(results: Mapping[str, Result]) -> bytes:
    """What the cells took, as CSV: seconds, seconds for a step of the last octave, and how many dreams were tried."""
    columns = ("cell", "seconds", "seconds_per_step", "tries")
    rows = [(name, r.seconds, r.seconds_per_step, len(r.tries)) for name, r in results.items()]
    return to_csv([dict(zip(columns, row, strict=True)) for row in rows], columns)


def _placed(grid: str, place: Place, result: Result) -> Row:
    recipe = result.recipe or result.cell.recipe
    return {
        "grid": grid,
        "row": place.row,
        "column": place.column,
        "seed": place.seed,
        "cell": place.cell,
        "model": recipe.model,
        "weights": recipe.weights,
        "layers": " ".join(map(str, recipe.objective.terms)),
        "octaves": recipe.octaves,
        "steps": recipe.steps,
        "step_size": recipe.step_size if result.recipe else None,
        "drive": recipe.drive if result.recipe else None,
        "wanted_change": result.cell.change,
        "failure": result.failure,
    }


def _of_cell(result: Result, dream: Image, photo: Photo) -> Row:
    photograph = resize(photo.image, (dream.shape[1], dream.shape[2]))
    before, after = result.score_before or 0.0, result.score_after or 0.0
    bands = energies_added(dream, photograph)
    return {
        **{column: of(dream, photograph) for column, of in PICTURE_MEASURES.items()},
        **{f"strength_band_{band}": energy for band, energy in enumerate(bands, start=1)},
        "score_before": before,
        "score_after": after,
        "score_gain": after / before if before > 0 else None,
    }


def _distances(places: Sequence[Place], folder: Folder, results: Mapping[str, Result]) -> Iterable[tuple[Place, Row]]:
    """Each place, in order, with its mean distances to the others of its group and seed, and to its other seeds."""
    there = [place for place in places if results[place.cell].failure is None]
    others = _apart(there, lambda place: (place.group, place.seed), folder)
    seeds = _apart(there, lambda place: (place.row, place.column), folder)
    none = (None, None)
    for place in places:
        features, pixels = others.get(place, none)
        yield (
            place,
            {
                "uniqueness_features": features,
                "uniqueness_pixels": pixels,
                "seeds_features": seeds.get(place, none)[0],
            },
        )


def _apart(
    places: Sequence[Place], company: Callable[[Place], Any], folder: Folder
) -> dict[Place, tuple[float, float]]:
    """Mean distances, in features and in pixels, of each dream to those in its company that are of its size."""
    found = {}
    for _, members in groupby(sorted(places, key=company), key=company):
        dreams = {place: folder.dream(place.cell) for place in members}
        seen = {place: looked_at(dream) for place, dream in dreams.items()} if len(dreams) > 1 else {}
        for place, dream in dreams.items():
            others = [other for other in dreams if other != place and dreams[other].shape == dream.shape]
            if others:
                found[place] = (
                    mean(feature_distance(seen[place], seen[other]) for other in others),
                    mean(rms_change(dream, dreams[other]) for other in others),
                )
    return found
