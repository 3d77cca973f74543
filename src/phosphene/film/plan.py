"""What is to be made, and whether it can be had; and the folder beside the output that says so.

The folder holds the plan, a journal, and each frame or key as it is done.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from phosphene.cluster import check_cluster
from phosphene.disk import journal
from phosphene.disk.plan import check_room, create
from phosphene.dreaming.pyramid import fitted_size
from phosphene.errors import StoreError, UsageError, shown
from phosphene.film import film, sink, zoom
from phosphene.film.asked import AskedFilm, AskedZoom, to_toml
from phosphene.film.film import Film
from phosphene.film.sink import Sink
from phosphene.film.stills import is_pattern
from phosphene.film.zoom import Zoomed
from phosphene.places import check_folder, seen_from
from phosphene.recipe.own import is_own
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import FILES, Recipe, Settings
from phosphene.setup.memory import spell_bytes
from phosphene.setup.session import only_here
from phosphene.types import Limit

PLAN = "film.json"


class Plan(Settings):
    """All that it takes to make a film or a zoom, written once into its folder. Files are named as from `place`."""

    place: str
    asked: AskedFilm | AskedZoom
    recipe: Recipe
    made: Made
    output: str
    device: str = "auto"
    memory: str | None = None
    workers: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Run:
    """A film or a zoom, and the folder in which it is made."""

    film: Film | Zoomed
    folder: Path
    output: Path
    text: str
    """The recipe as the file carries it."""
    notes: tuple[str, ...] = ()
    device: str = "auto"
    workers: int = 1
    cluster: str | None = None

    def sink(self) -> Sink:
        """Open what takes the frames."""
        return sink.sink_for(self.folder, self.output, self.film.size, self.film.footage, self.text)


def begin(
    asked: AskedFilm | AskedZoom,
    output: Path,
    *,
    device: str = "auto",
    memory: Limit | None = None,
    workers: int = 1,
    cluster: str | None = None,
    overwrite: bool = False,
) -> Run:
    """Make the folder of something new beside `output`, and say what there is to know before the first frame."""
    if workers < 1:
        raise UsageError(f"{shown(workers)} workers dream nothing: give 1 or more")
    if workers > 1 and cluster:
        raise UsageError("a cluster has workers of its own: leave out the workers here")
    if cluster:
        check_cluster(cluster)
    check_folder(asked.source)
    sink.check_output(output, overwrite)
    ready = _prepare(asked, output, device, memory)
    if (workers > 1 or cluster) and (ours := _only_here(ready.recipe)):
        raise UsageError(
            f"other processes do not have {ours}: give a network as package.module:callable, a mask as a file"
        )
    folder = output.with_name(f"{output.name}.phosphene")
    check_room(folder, ready.disk_bytes)
    plan = Plan(
        place=str(Path.cwd()),
        asked=asked,
        recipe=ready.recipe,
        made=ready.made,
        output=str(output),
        device=device,
        memory=None if memory is None else str(memory),
        workers=workers,
    )
    text = plan.model_dump_json()
    create(folder, PLAN, "film")
    for picture in folder.glob("*.png"):  # of a folder that was not removed whole
        picture.unlink()
    journal.put(folder / PLAN, text)
    notes = (*ready.notes, *_notes(ready, output, folder))
    return Run(ready, folder, output, _text_of(plan), notes, device, workers, cluster)


def reopen(folder: Path, cluster: str | None = None) -> Run:
    """Find what to go on with. Raises where there is nothing, or where what it is made from has changed."""
    plan = _read(folder / PLAN)
    output = folder.parent / Path(plan.output).name  # beside the folder, wherever that is seen from
    ready = _prepare(_seen_from(plan.place, plan.asked), output, plan.device, plan.memory)
    source = "film" if isinstance(ready, Film) else "photograph"
    made = {source: "source_sha256", "mask": "mask_sha256", "guide": "guide_sha256", "file of weights": "weights"}
    for name, field in made.items():
        if getattr(plan.made, field) != getattr(ready.made, field):
            raise StoreError(f"the {name} has changed since the dream began: put it back, or begin again")
    return Run(ready, folder, output, _text_of(plan), ready.notes, plan.device, plan.workers, cluster)


def _text_of(plan: Plan) -> str:
    return to_toml(plan.asked, plan.recipe, plan.made)


def _seen_from(place: str, asked: AskedFilm | AskedZoom) -> AskedFilm | AskedZoom:
    """Name files so that they are found from anywhere."""
    given = {name: seen_from(place, word) if name in FILES else word for name, word in asked.given.items()}
    source = str(Path(place, asked.source)) if is_pattern(asked.source) else seen_from(place, asked.source)
    return asked.model_copy(update={"source": source, "given": given})


def _only_here(recipe: Recipe) -> str | None:
    """Name what was given in Python and is in this process alone; what can be imported is not."""
    ours = only_here(recipe)
    if ours is not None and ":" not in ours:
        return ours
    return next((word for word in (recipe.norm, recipe.mask) if is_own(word)), None)


def _prepare(asked: AskedFilm | AskedZoom, output: Path, device: str, memory: Limit | None) -> Film | Zoomed:
    if isinstance(asked, AskedZoom):
        return zoom.prepare(asked, output, device, memory)
    return film.prepare(asked, output, device, memory)


def _read(path: Path) -> Plan:
    if (text := journal.get(path)) is None:
        raise UsageError(f"there is no film to go on with in {str(path.parent)!r}")
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(f"the plan in {path.parent} is of another version of Phosphene: begin again") from error


def _notes(ready: Film | Zoomed, output: Path, folder: Path) -> tuple[str, ...]:
    (height, width), wanted = ready.size, fitted_size(ready.made.source_size, ready.recipe)
    even = f"{output.suffix} holds even sides: {width} x {height} px, not {wanted[1]} x {wanted[0]}"
    return (
        *((even,) if ready.size != wanted else ()),
        *sink.sound_notes(output, ready.footage),
        f"{ready.footage.frames} frames of {width} x {height} px; "
        f"up to {spell_bytes(ready.disk_bytes)} on disk, in {folder}",
    )
