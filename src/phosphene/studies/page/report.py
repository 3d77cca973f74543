"""The page: one HTML file with all that it shows inside, which opens from disk and asks no network for anything."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.resample import Resized, resize
from phosphene.imagefile import Photo
from phosphene.imagefile.encode import encode_as, quantise
from phosphene.imagefile.formats import WEBP, Format
from phosphene.networks.facts import facts_of
from phosphene.recipe.spelling import command
from phosphene.setup.session import versions
from phosphene.studies.measure.claims import findings
from phosphene.studies.measure.cost import Cost
from phosphene.studies.measure.measures import MEASURES
from phosphene.studies.measure.table import Row
from phosphene.studies.page.charts import charts, summaries
from phosphene.studies.run.cell import Result
from phosphene.studies.run.folder import Folder
from phosphene.studies.study import Place, Study
from phosphene.types import Image, Size

EMBEDDED_SIDE = 640
"""Long side, in px, of the pictures inside the page; the files have all their pixels."""


@dataclass(frozen=True)
class Picture:
    """A dream as the page shows it: where it stands, its data, its numbers, and the command that makes it again."""

    key: str
    place: Place
    label: str
    layers: str
    source: str
    command: str
    result: Result
    row: Row


def page(
    study: Study,
    photo: Photo,
    folder: Folder,
    results: Mapping[str, Result],
    rows: Sequence[Row],
    costs: Mapping[str, Cost],
) -> str:
    """Return the page of a study that was run and measured."""
    pictures = _pictures(study, folder, results, rows)
    sizes = sorted({result.made.size for result in results.values() if result.made})
    return (
        environment()
        .get_template("report.html")
        .render(
            study=study,
            photograph=data_of(resize(photo.image, fit_within(sizes[-1] if sizes else photo.size, EMBEDDED_SIDE))),
            source_name=Path(study.source).name,
            sizes=sizes,
            pictures=pictures,
            captions={p.key: {"label": p.label, "command": p.command} for ps in pictures.values() for p in ps},
            failures=[result for result in results.values() if result.failure],
            results=results,
            charts=charts(study, rows, results),
            summaries={grid.name: summaries(grid, rows) for grid in study.grids},
            findings=findings(rows) if _is_report(study) else [],
            facts=[facts_of(model) for model in study.models],
            costs=costs,
            measures=MEASURES,
            farthest=_farthest(rows),
            hero=_hero(pictures),
            seeds=sorted({place.seed for grid in study.grids for place in grid.places}),
            change=next((cell.change for cell in study.cells), None),
            made=next((result.made for result in results.values() if result.made), None),
            versions=versions(),
        )
    )


def environment() -> Environment:
    """The templates of this folder, with our ways of spelling numbers."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"number": number, "large": large, "svg": Markup, "counted": counted}
    return made


def number(value: float | None, digits: int = 3) -> str:
    """Spell a number with so many significant digits; nothing known is a dash."""
    return "–" if value is None else f"{value:.{digits}g}".replace("-", "−")


def counted(count: int) -> str:
    """Spell a small count as a word."""
    words = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    return words[count] if count < len(words) else str(count)


def large(value: float) -> str:
    """Spell a large number with a thousand's prefix: 143.7 M."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def _pictures(
    study: Study, folder: Folder, results: Mapping[str, Result], rows: Sequence[Row]
) -> dict[tuple[str, str, str], list[Picture]]:
    """Each grid's pictures, by grid, row and column: a list over the seeds."""
    numbers = {(row["grid"], row["row"], row["column"], row["seed"]): row for row in rows}
    found: dict[tuple[str, str, str], list[Picture]] = {}
    for grid in study.grids:
        for place in grid.places:
            result = results[place.cell]
            recipe = result.recipe or result.cell.recipe
            found.setdefault((grid.name, place.row, place.column), []).append(
                Picture(
                    key=f"{grid.name}/{place.cell}",
                    place=place,
                    label=" · ".join(part for part in (place.row, place.column, f"seed {place.seed}") if part),
                    layers=str(recipe.objective),
                    source="" if result.failure else data_of(small(folder.dream(place.cell))),
                    command=command(
                        recipe, "PHOTO" if study.source == "array" else study.source, folder.picture(place.cell).name
                    ),
                    result=result,
                    row=numbers[grid.name, place.row, place.column, place.seed],
                )
            )
    return found


def _farthest(rows: Sequence[Row]) -> float:
    """How far a dream's change lies from the wanted one at most, relative to it."""
    return max(
        (abs(row["change"] / row["wanted_change"] - 1) for row in rows if row["wanted_change"] and row["change"]),
        default=0.0,
    )


def _hero(pictures: Mapping[tuple[str, str, str], list[Picture]]) -> str:
    """The picture that the page begins with: trained and with octaves, if there is one."""
    shown = [picture for seeds in pictures.values() for picture in seeds if picture.source]
    best = [p for p in shown if p.row["weights"] == "pretrained" and p.place.column == "octaves"]
    return (best or shown)[0].key if shown else ""


def _is_report(study: Study) -> bool:
    return study.grids[0].name == "experiments"


def small(image: Image, size: Size | None = None) -> Resized:
    """Return a picture as large as pages show it: of `size`, or of its own, and never larger than `EMBEDDED_SIDE`."""
    return resize(image, fit_within(size or (image.shape[1], image.shape[2]), EMBEDDED_SIDE))


def data_of(image: Image, kind: Format = WEBP) -> str:
    """Return a picture as the address of its own data; `kind` is WebP, compressed as one likes."""
    data = encode_as(quantise(image, None, kind, 8), kind, "")
    return f"data:image/webp;base64,{b64encode(data).decode()}"
