"""The plan of a comparison: the report's three experiments, and each network's depth, on equal terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from phosphene.dreaming.pyramid import fitted_size, octave_sizes
from phosphene.errors import SettingsError, UnknownNameError, UsageError, WeightsError, shown
from phosphene.imagefile import Photo
from phosphene.networks import registry, weights
from phosphene.networks.facts import layer_at
from phosphene.recipe.settings import PRESETS, Recipe
from phosphene.recipe.spelling import validated
from phosphene.recipe.terms import KINDS
from phosphene.studies.run.calibrate import first_step_size
from phosphene.studies.study import CHANGE, DEPTHS, MODES, SEEDS, Absent, Cell, Grid, Place, Study, file_name

Trained = Literal["pretrained", "untrained", "both"]

EXPERIMENT_DEPTH = 0.7
"""Relative depth of the layer that the experiments raise: where the networks that we know dream faces."""

MOST = 1000
"""Seeds and depths at most."""

MODES_SAID = {
    "plain": "Plain is the main loop at one size, with as many steps",
    "octaves": "Octaves are several sizes, from coarse to fine",
    "tiles": "Tiles are octaves whose gradient is computed in tiles",
}

VARIED = {"model", "weights", "guide", *KINDS}
"""What a comparison sets itself, and cannot be given."""


@dataclass(frozen=True)
class Row:
    """A network of a comparison: its model, and whether it is trained."""

    model: str
    weights: Literal["pretrained", "untrained"]

    def __str__(self) -> str:
        return f"{self.model} {'trained' if self.weights == 'pretrained' else 'untrained'}"


def comparison(
    photo: Photo,
    *,
    models: Sequence[str],
    modes: Sequence[str] = MODES,
    depths: int = DEPTHS,
    trained: Trained = "pretrained",
    seeds: int = SEEDS,
    change: float = CHANGE,
    settings: Mapping[str, Any],
) -> Study:
    """Plan the report's study: models by experiments, and trained models by relative depth, for several seeds.

    Where none is trained, depth is shown of what is untrained.

    `change` is the root-mean-square change of the picture, in pixel units 0 to 1, that every dream is brought to;
    `settings` are the same for all. Models whose trained weights cannot be had are `absent`. Raises `UsageError` for
    what cannot be done as asked.
    """
    _check(models, modes, depths, seeds, change, settings)
    absent = _absent(models) if trained != "untrained" else ()
    rows = _rows(models, trained, {each.model for each in absent})
    if not rows:
        missing = ", ".join(each.model for each in absent)
        raise UsageError(
            f"the trained weights of {missing} cannot be had here: take models whose weights can, or untrained ones "
            f"(--weights untrained)"
        )
    shared, notes = _seen_by_all(photo, rows, {**PRESETS["octaves"], **settings})
    first = shared.pop("seed", 0)
    each_seed = range(first, first + seeds)
    experiments = {
        (row, mode, seed): _cell(row, mode, EXPERIMENT_DEPTH, seed, shared, change)
        for row, mode, seed in product(rows, modes, each_seed)
    }
    fractions = [(index + 0.5) / depths for index in range(depths)]
    trained_rows = [row for row in rows if row.weights == "pretrained"]
    deep = {
        (row, f"{fraction:.0%} deep", seed): _cell(row, "octaves", fraction, seed, shared, change)
        for row, fraction, seed in product(trained_rows or rows, fractions, each_seed)
    }
    cells = {cell.name: cell for cell in [*experiments.values(), *deep.values()]}
    return Study(
        kind="comparison",
        source=photo.source,
        source_sha256=photo.sha256,
        cells=tuple(cells.values()),
        grids=(_experiment_grid(experiments), *([_depth_grid(deep)] if deep else [])),
        models=tuple(dict.fromkeys(row.model for row in rows)),
        absent=absent,
        notes=notes,
    )


def _check(
    models: Sequence[str], modes: Sequence[str], depths: int, seeds: int, change: float, settings: Mapping[str, Any]
) -> None:
    if not models or not modes or not 1 <= seeds <= MOST or not 0 <= depths <= MOST or not 0 < change < 1:
        raise SettingsError(
            f"a comparison needs models, modes, 1 to {MOST} seeds, 0 to {MOST} depths and a change within 0 and 1; "
            f"given were {list(models)}, {list(modes)}, {shown(seeds)}, {shown(depths)} and {change}"
        )
    for model in models:
        registry.card(model)
    for mode in modes:
        if mode not in MODES:
            raise UnknownNameError("experiment", mode, MODES, f"The experiments are {', '.join(MODES)}.")
    for name in sorted(VARIED & set(settings)):
        raise SettingsError(f"a comparison sets {name} itself, since it compares networks, layers and seeds")


def _absent(models: Sequence[str]) -> tuple[Absent, ...]:
    found = []
    for card in map(registry.card, dict.fromkeys(models)):
        if card.source == "own":
            continue
        try:
            weights.fetch(card)
        except WeightsError:
            found.append(Absent(model=card.name, file=card.weights_file, url=card.weights_url))
    return tuple(found)


def _rows(models: Sequence[str], trained: Trained, absent: set[str]) -> list[Row]:
    rows = []
    for model in models:
        if trained != "untrained" and model not in absent:
            rows.append(Row(model, "pretrained"))
        if trained != "pretrained":
            rows.append(Row(model, "untrained"))
    return rows


def _seen_by_all(photo: Photo, rows: Sequence[Row], settings: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take away the octaves that one of the networks could not see, from all."""
    recipe = validated(settings)
    size = fitted_size(photo.size, recipe)
    least = max(rows, key=lambda row: registry.card(row.model).min_side).model
    min_side = registry.card(least).min_side
    octaves = len(octave_sizes(size, recipe.octaves, recipe.octave_scale, min_side))
    notes: tuple[str, ...] = ()
    if octaves < recipe.octaves:
        notes = (
            f"{least} sees nothing below {min_side} px, so all networks dream {octaves} of {recipe.octaves} octaves "
            f"of this {size[1]} x {size[0]} px picture",
        )
    return {**settings, "octaves": octaves}, notes


def _cell(row: Row, mode: str, depth: float, seed: int, shared: Mapping[str, Any], change: float) -> Cell:
    """One dream. The main loop takes as many steps at its one size as octaves take at all of theirs."""
    layer = layer_at(row.model, depth)
    tile = PRESETS["tiles"]["tile"]
    settings = {"tile": tile, **shared, "steps": shared.get("steps", Recipe.model_fields["steps"].default)}
    if mode == "plain":
        settings |= {"octaves": 1, "steps": settings["steps"] * shared["octaves"]}
    if mode != "tiles":
        settings["tile"] = "none"
    settings.setdefault("step_size", first_step_size(change, settings["octaves"] * settings["steps"]))
    settings |= {"model": row.model, "weights": row.weights, "layers": (layer,), "seed": seed}
    name = file_name(row.model, row.weights, mode, layer, f"seed{seed}")
    return Cell(name=name, recipe=validated(settings), change=change)


Cells = Mapping[tuple[Row, str, int], Cell]


def _experiment_grid(cells: Cells) -> Grid:
    return Grid(
        name="experiments",
        title="Experiments",
        caption=(
            f"{'. '.join(MODES_SAID[mode] for mode in dict.fromkeys(mode for _, mode, _ in cells))}. "
            f"Each network raises the layer nearest to {EXPERIMENT_DEPTH:.0%} of its depth."
        ),
        row_title="network",
        column_title="experiment",
        **_placed(cells),
    )


def _depth_grid(cells: Cells) -> Grid:
    return Grid(
        name="depth",
        title="From strokes to objects",
        caption=(
            "Each network through its depth, with octaves; of trained ones where there are any. Relative depth is a "
            "layer’s share of the convolutions and linear layers on the longest way through the network; the nearest "
            "layer stands for each column."
        ),
        row_title="network",
        column_title="relative depth",
        **_placed(cells),
    )


def _placed(cells: Cells) -> dict[str, Any]:
    return {
        "rows": tuple(dict.fromkeys(str(row) for row, _, _ in cells)),
        "columns": tuple(dict.fromkeys(column for _, column, _ in cells)),
        "places": tuple(
            Place(row=str(row), column=column, seed=seed, cell=cell.name, group=f"{column}, {row.weights}")
            for (row, column, seed), cell in cells.items()
        ),
    }
