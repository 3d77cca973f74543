"""The plan of a comparison of dreams that a person chose: looks, layers or models side by side, at equal strength."""

from collections.abc import Sequence

from phosphene.dreaming.pyramid import fitted_size, octave_sizes
from phosphene.errors import UsageError
from phosphene.imagefile import Photo
from phosphene.networks import registry
from phosphene.recipe.settings import Recipe
from phosphene.studies.run.calibrate import first_step_size
from phosphene.studies.study import CHANGE, Cell, Grid, Place, Study, file_name


def chosen(photo: Photo, dreams: Sequence[tuple[str, Recipe]], change: float = CHANGE) -> Study:
    """Plan a comparison of recipes, each with a name, such as its look's.

    `change` is the root-mean-square change, in pixel units 0 to 1, that every dream is brought to by its step size.
    Octaves that one of the networks could not see are left out for all. Raises `UsageError` where two dreams of a
    model have the same name.
    """
    models = tuple(dict.fromkeys(recipe.model for _, recipe in dreams))
    octaves = min(_octaves_seen(photo, recipe) for _, recipe in dreams)
    cells: dict[str, Cell] = {}
    for name, recipe in dreams:
        label = name if len(models) == 1 else f"{recipe.model} {name}"
        if label in cells:
            raise UsageError(f"two of these dreams are {label}: compare different ones")
        size = first_step_size(change, octaves * recipe.steps)
        cells[label] = Cell(
            name=file_name(recipe.model, name), recipe=recipe.but(octaves=octaves, step_size=size), change=change
        )
    return Study(
        kind="comparison",
        source=photo.source,
        source_sha256=photo.sha256,
        cells=tuple(cells.values()),
        grids=(_grid(cells),),
        models=models,
        notes=_notes(dreams, octaves),
    )


def _octaves_seen(photo: Photo, recipe: Recipe) -> int:
    size, least = fitted_size(photo.size, recipe), registry.card(recipe.model).min_side
    return len(octave_sizes(size, recipe.octaves, recipe.octave_scale, least))


def _notes(dreams: Sequence[tuple[str, Recipe]], octaves: int) -> tuple[str, ...]:
    wanted = max(recipe.octaves for _, recipe in dreams)
    if octaves == wanted:
        return ()
    return (f"the picture has {octaves} of {wanted} octaves: one of the networks sees nothing in smaller ones",)


def _grid(cells: dict[str, Cell]) -> Grid:
    return Grid(
        name="chosen",
        title="Side by side",
        caption="One photograph, with the same settings but for what is named above each picture.",
        row_title="",
        column_title="dream",
        rows=("",),
        columns=tuple(cells),
        places=tuple(
            Place(row="", column=label, seed=cell.recipe.seed, cell=cell.name, group="all")
            for label, cell in cells.items()
        ),
    )
