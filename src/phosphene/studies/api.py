"""Studies from Python: plan, dream, measure, report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from phosphene import imagefile
from phosphene.api import spelt
from phosphene.dreaming.pyramid import fitted_size
from phosphene.errors import SettingsError, UsageError
from phosphene.imagefile import Photo, write_atomically
from phosphene.networks import registry
from phosphene.networks import weights as weight_files
from phosphene.networks.registry import introduce
from phosphene.recipe.arguments import checked
from phosphene.recipe.own import is_own
from phosphene.setup import session
from phosphene.setup.session import choose_device
from phosphene.setup.source import Source, read
from phosphene.studies.measure import table
from phosphene.studies.measure.cost import Cost, costs
from phosphene.studies.measure.measures import LEAST_SIDE
from phosphene.studies.page import report, sheet
from phosphene.studies.plans import comparison as comparing
from phosphene.studies.plans import sweep as sweeping
from phosphene.studies.run.cell import Result, check_recipe
from phosphene.studies.run.folder import Folder, Progress, Workers, check_folder, run_cells, writing
from phosphene.studies.run.workers import is_private, on_cluster, one_by_one, side_by_side
from phosphene.studies.study import CHANGE, DEPTHS, MODELS, MODES, SEEDS, SIZE, Absent, Study
from phosphene.types import Device, Image


def _silent(progress: Progress) -> None:
    pass


@dataclass(frozen=True)
class Finished:
    """A study that was run: what was planned, what came of each cell, and the numbers.

    `rows` are the table of measures as dicts, in the order of `table.COLUMNS`; `costs` say by model what a step takes.
    """

    study: Study
    photo: Photo
    folder: Folder
    results: Mapping[str, Result]
    rows: tuple[table.Row, ...]
    costs: Mapping[str, Cost]

    @property
    def measures(self) -> Any:
        """The table of measures: a pandas DataFrame where pandas is installed, else a list of dicts."""
        rows = [dict(row) for row in self.rows]
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows, columns=list(table.COLUMNS))

    @property
    def failures(self) -> Mapping[str, str]:
        """Why cells failed, by their names."""
        return {name: result.failure for name, result in self.results.items() if result.failure is not None}

    @checked
    def report(self, path: str | Path) -> Path:
        """Write the page, with all that it shows inside it, and return its path."""
        path = Path(path)
        page = report.page(self.study, self.photo, self.folder, self.results, self.rows, self.costs)
        write_atomically(path, page.encode())
        return path

    @property
    def absent(self) -> tuple[Absent, ...]:
        """Models whose trained weights could not be had."""
        return self.study.absent

    @property
    def page(self) -> Path:
        """Where `write` puts the page."""
        return self.folder.path / "report.html"

    def picture(self, row: table.Row) -> Image:
        """The dream of a row of measures."""
        return self.folder.dream(row["cell"])

    def write(self) -> None:
        """Write the page, the contact sheet, and the tables into the study's folder."""
        path, shown = self.folder.path, sheet.contact_sheet(self.study, self.photo, self.folder, self.results)
        with writing(path):
            write_atomically(path / "measures.csv", table.to_csv(self.rows, table.COLUMNS))
            write_atomically(path / "times.csv", table.times(self.results))
            write_atomically(path / "contact-sheet.png", shown)
            self.report(self.page)


@checked
def compare(
    image: Source,
    folder: str | Path,
    *,
    models: Sequence[Any] | str = MODELS,
    modes: Sequence[str] | str = MODES,
    depths: int = DEPTHS,
    weights: comparing.Trained = "pretrained",
    seeds: int = SEEDS,
    change: float = CHANGE,
    workers: int = 1,
    cluster: str | None = None,
    device: Device = "auto",
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = _silent,
    **settings: Any,
) -> Finished:
    """Compare architectures on one photograph, and write the report into `folder`.

    `image` is as in `phosphene.dream`, but no noise. `models`, names or modules of your own, are dreamed by `modes`
    (plain, octaves, tiles) with `seeds` seeds, and at `depths` relative depths, those that are trained if any is.
    `weights` are pretrained, untrained or both. `change` is the root-mean-square change, in pixel units 0 to 1, that
    every dream is brought to by its step size. `workers` processes share the cells, or a Ray cluster at the address
    `cluster` ("local" starts one). `settings` are those of `phosphene.Recipe`, the same for all. `on_progress` hears of
    each step and cell.

    A folder's cells that are done are kept. Raises `UsageError` before the first step for what cannot be done as asked;
    a cell that fails later is in `failures`.
    """
    photo = read_photo(image)
    study = comparing.comparison(
        photo,
        models=[introduce(model) for model in _several(models)],
        modes=_several(modes),
        depths=depths,
        trained=weights,
        seeds=seeds,
        change=change,
        settings={"size": SIZE, **settings},
    )
    check(study)
    found = _workers(workers, cluster, study)
    return run(study, photo, Folder(Path(folder)), found, str(device), overwrite, on_progress)


@checked
def sweep(
    image: Source,
    folder: str | Path,
    *,
    vary: Mapping[str, Sequence[Any] | str],
    look: str | None = None,
    preset: str | None = None,
    workers: int = 1,
    cluster: str | None = None,
    device: Device = "auto",
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = _silent,
    **settings: Any,
) -> Finished:
    """Dream one photograph over a grid of settings, and write the report into `folder`.

    `vary` maps names of `phosphene.Recipe` (and `layer`) to values; the last makes the columns, the others the rows.
    Strength is not calibrated. `layers` are as in `phosphene.dream`, and all else as in `compare`.
    """
    photo = read_photo(image)
    settings |= spelt(settings.pop("layers", None))
    if "model" in settings:
        settings["model"] = introduce(settings["model"])
    vary = {name: _several(values) for name, values in vary.items()}
    study = sweeping.sweep(photo, vary=vary, look=look, preset=preset, settings=settings)
    check(study)
    found = _workers(workers, cluster, study)
    return run(study, photo, Folder(Path(folder)), found, str(device), overwrite, on_progress)


def _several(given: Sequence[Any] | str) -> Sequence[Any]:
    """Words with commas between them are a list, as on the command line."""
    return given.split(",") if isinstance(given, str) else given


def check(study: Study) -> None:
    """Raise the `UsageError` that dreaming one of the cells would; no weights are needed."""
    for recipe in dict.fromkeys(cell.recipe.but(seed=0, step_size=1, weights="untrained") for cell in study.cells):
        check_recipe(recipe)


def run(
    study: Study,
    photo: Photo,
    folder: Folder,
    workers: Workers,
    device: str = "auto",
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = _silent,
) -> Finished:
    """Run a study that was planned and checked, and write the report into its folder.

    What `on_progress` raises ends it after the present step; what is done stays, and another run goes on from there.
    """
    choose_device(device)
    _check_files(study)
    _check_sizes(study, photo)
    check_folder(study, folder, overwrite)
    folder.keep_plan(study)
    results = run_cells(study, photo, folder, workers, device, on_progress)
    rows = table.measure(study, photo, folder, results)
    finished = Finished(study, photo, folder, results, tuple(rows), costs(study, folder, results, device))
    finished.write()
    return finished


def read_photo(image: Source) -> Photo:
    """Read the photograph of a study, which is no noise."""
    if isinstance(image, str) and image.startswith("noise:"):
        raise UsageError("a study dreams one photograph with several seeds, and noise is another picture for each seed")
    return read(image, torch.Generator())


def _check_files(study: Study) -> None:
    """Raise where a mask, a guide or weights cannot be had, which would fail cell by cell."""
    recipes = [cell.recipe for cell in study.cells]
    for picture in dict.fromkeys(file for each in recipes for file in (each.mask, each.guide)):
        if picture is not None and not is_own(picture):
            imagefile.read(picture)
    for eye, needs_top in dict.fromkeys((recipe.eye, session.needs_top(recipe)) for recipe in recipes):
        card = registry.card(eye.model)
        if eye.weights not in ("pretrained", "untrained"):
            session.load_network(eye, top=needs_top)
        elif eye.weights == "pretrained" and card.source != "own":
            weight_files.fetch(card, needs_top)


def _check_sizes(study: Study, photo: Photo) -> None:
    for height, width in {fitted_size(photo.size, cell.recipe) for cell in study.cells}:
        if min(height, width) < LEAST_SIDE:
            raise SettingsError(
                f"a study's pictures have {LEAST_SIDE} px a side or more, the window of its measure of structure; "
                f"these would have {width} x {height} px"
            )


def _workers(workers: int, cluster: str | None, study: Study) -> Workers:
    if workers < 1:
        raise SettingsError(f"workers = {workers} will not do: it should be 1 or more")
    if any(is_private(cell.recipe) for cell in study.cells):
        if cluster is not None:
            raise UsageError(
                "a cluster's processes do not have the network, term, norm or mask that was given in this one: leave "
                "the cluster out, or have an installed package bring it"
            )
        return one_by_one
    if cluster is not None:
        return partial(on_cluster, address=cluster)
    return partial(side_by_side, workers=workers) if workers > 1 else one_by_one
