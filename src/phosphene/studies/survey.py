"""A survey: the same comparison of several photographs, and what their numbers say together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from phosphene.errors import UsageError
from phosphene.imagefile import Photo, write_atomically
from phosphene.recipe.arguments import checked
from phosphene.setup.source import Source
from phosphene.studies import api
from phosphene.studies.measure import table
from phosphene.studies.page import survey as page
from phosphene.studies.run.folder import Progress, writing
from phosphene.studies.study import Absent, file_name, folded

TABLE, PAGE = "measures.csv", "report.html"
"""Files of a survey's folder, beside the folders of its photographs."""


@dataclass(frozen=True)
class Survey:
    """Comparisons that were run, by the names of their photographs."""

    folder: Path
    studies: Mapping[str, api.Finished]

    @property
    def rows(self) -> tuple[table.Row, ...]:
        """The tables of measures, one after the other."""
        return tuple(row for study in self.studies.values() for row in study.rows)

    @property
    def failures(self) -> Mapping[str, str]:
        """Why cells failed, by photograph and name."""
        return {f"{name}/{cell}": why for name, study in self.studies.items() for cell, why in study.failures.items()}

    @property
    def absent(self) -> tuple[Absent, ...]:
        """Models whose trained weights could not be had."""
        return tuple(dict.fromkeys(each for study in self.studies.values() for each in study.absent))

    @property
    def page(self) -> Path:
        """Where `write` puts the page."""
        return self.folder / PAGE

    @checked
    def report(self, path: str | Path) -> Path:
        """Write the page, with all that it shows inside it, and return its path."""
        write_atomically(Path(path), page.page(self.studies, self.rows).encode())
        return Path(path)

    def write(self) -> None:
        """Write the page and the table into the survey's folder."""
        with writing(self.folder):
            write_atomically(self.folder / TABLE, table.to_csv(self.rows, table.COLUMNS))
            self.report(self.page)


@checked
def survey(
    images: Sequence[Source],
    folder: str | Path,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> Survey:
    """Compare architectures on several photographs, each in a folder of its own within `folder`, and report on all.

    `options` are those of `phosphene.compare`, the same for all; its errors are raised here too.
    """
    if isinstance(images, str | Path):
        raise UsageError(f"a survey is of several photographs, in a list; compare takes {str(images)!r}")
    names = [file_name(PurePath(_source(image).removeprefix("sample:")).stem) for image in images]
    if not names or len({TABLE, PAGE, *map(folded, names)}) < len(names) + 2:
        raise UsageError(
            f"a survey needs photographs with names of their own, and {', '.join(names) or 'none'} will not do"
        )
    for image in images:
        api.read_photo(image)  # raises for the last one too before the first is dreamed
    studies = {
        name: api.compare(image, Path(folder, name), on_progress=on_progress, **options)
        for name, image in zip(names, images, strict=True)
    }
    found = Survey(Path(folder), studies)
    found.write()
    return found


def _source(image: Source) -> str:
    if isinstance(image, Photo):
        return image.source
    return str(image) if isinstance(image, str | Path) else "array"
