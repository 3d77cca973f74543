"""The plan of a sweep: one photograph, and a grid over any settings."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from phosphene.errors import UnknownNameError, UsageError
from phosphene.imagefile import Photo
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import choose
from phosphene.recipe.terms import SINGULAR
from phosphene.studies.study import Cell, Grid, Place, Study, file_name, told_apart

PLURAL = {one: many for many, one in SINGULAR.items()}
"""A setting that takes several has one of them in each cell of a sweep, and is named as on the command line."""


def sweep(
    photo: Photo,
    *,
    vary: Mapping[str, Sequence[Any]],
    look: str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any],
) -> Study:
    """Plan a grid over settings: the last one varied makes the columns, the others the rows.

    Raises `UsageError` for a name or a value that will not do.
    """
    vary = {setting_of(name): values for name, values in vary.items()}
    if not vary or not all(vary.values()):
        raise UsageError("a sweep varies at least one setting, as in --vary octave_scale=1.2,1.4,1.8")
    cells, places = {}, []
    grid_values = list(product(*vary.values()))
    spoken = [[_words(name, value) for name, value in zip(vary, values, strict=True)] for values in grid_values]
    names = told_apart(file_name(*words) for words in spoken)
    for values, words, file in zip(grid_values, spoken, names, strict=True):
        chosen = {name: _value(name, value) for name, value in zip(vary, values, strict=True)}
        cell = Cell(name=file, recipe=choose({**settings, **chosen}, look, preset))
        cells[cell.name] = cell
        row = ", ".join(words[:-1])
        places.append(Place(row=row, column=words[-1], seed=cell.recipe.seed, cell=cell.name, group="all"))
    *downwards, across = map(_spoken, vary)
    grid = Grid(
        name="sweep",
        title="The sweep",
        caption=f"One photograph, with {' and '.join(map(_spoken, vary))} varied; all other settings are the same.",
        row_title=", ".join(downwards),
        column_title=across,
        rows=tuple(dict.fromkeys(place.row for place in places)),
        columns=tuple(dict.fromkeys(place.column for place in places)),
        places=tuple(places),
    )
    return Study(
        kind="sweep",
        source=photo.source,
        source_sha256=photo.sha256,
        cells=tuple(cells.values()),
        grids=(grid,),
        models=tuple(dict.fromkeys(cell.recipe.model for cell in cells.values())),
    )


def parse_vary(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read `NAME=VALUE,VALUE,...`; commas within brackets belong to a value, as in `layer=mixed4[1,2],mixed5`."""
    vary: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"{text!r} is not a setting to vary; one is spelt NAME=VALUE,VALUE, as in steps=5,10,20")
        vary[name.strip().replace("-", "_")] = re.split(r",(?![^\[]*\])", values)
    return vary


def setting_of(name: str) -> str:
    """Return the setting that a name means. Raises `UnknownNameError` with the nearest."""
    name = PLURAL.get(name, name)
    if name not in Recipe.model_fields:
        raise UnknownNameError("setting", name, [*Recipe.model_fields, *PLURAL])
    return name


def _spoken(setting: str) -> str:
    return SINGULAR.get(setting, setting)


def _words(setting: str, value: Any) -> str:
    """Spell a setting and its value; a function by its name, which is the same in the next run."""
    return f"{_spoken(setting)}={getattr(value, '__name__', value)}"


def _value(setting: str, value: Any) -> Any:
    return (value,) if setting in SINGULAR and isinstance(value, str) else value
