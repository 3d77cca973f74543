"""What a study is: cells to dream, and the grids that they stand in. Pure data, that reads and writes as JSON."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.recipe.settings import Recipe, Settings

MODELS = ("inception_v3", "vgg19", "resnet50", DEFAULT_MODEL)
"""The report's three networks, and the one whose trained weights are always here."""

MODES = ("plain", "octaves", "tiles")
"""The experiments of a comparison, each a preset."""

DEPTHS, SEEDS = 5, 3
"""Relative depths that each network is shown at, and dreams of each experiment and depth."""

CHANGE = 0.08
"""The root-mean-square change that dreams are brought to, in pixel units; plain to see, and the photograph is too."""

SIZE = 384
"""Long side of a comparison's pictures, in px, where none is asked for: dozens of dreams are much work for a CPU."""

LONGEST = 200
"""Bytes of a cell's name at most, before its checksum and its ending."""


class Cell(Settings):
    """One dream of a study."""

    name: Annotated[str, Field(description="Of its files, without the ending.")]
    recipe: Recipe
    change: Annotated[
        float | None, Field(gt=0, lt=1, description="Wanted root-mean-square change; the step size is found for it.")
    ] = None


class Place(Settings):
    """Where a cell stands: a place of a grid holds one cell for each seed.

    Dreams of one `group` and seed are compared with each other, and measured by how far they lie apart.
    """

    row: str
    column: str
    seed: int
    cell: str
    group: str


class Grid(Settings):
    """A table of pictures."""

    name: str
    title: str
    caption: str
    row_title: str
    column_title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    places: tuple[Place, ...]

    def at(self, row: str, column: str) -> tuple[Place, ...]:
        """The places of a row and a column, one for each seed."""
        return tuple(place for place in self.places if (place.row, place.column) == (row, column))


class Absent(Settings):
    """A model whose trained weights a study goes without: the file that is not here, and where it is to be had."""

    model: str
    file: str
    url: str


class Study(Settings):
    """Cells, each named once, and the grids that show them."""

    kind: Literal["comparison", "sweep"]
    source: Annotated[str, Field(description="The photograph: a path, or a sample's name.")]
    source_sha256: Annotated[str, Field(description="Checksum of the photograph's file.")]
    cells: tuple[Cell, ...]
    grids: tuple[Grid, ...]
    models: Annotated[tuple[str, ...], Field(description="The networks that dream.")]
    absent: tuple[Absent, ...] = ()
    notes: Annotated[tuple[str, ...], Field(description="What there is to know, a sentence each.")] = ()


def file_name(*parts: str) -> str:
    """Join parts to a name that every file system takes; where a character had to go, a checksum tells twins apart."""
    name = "-".join(parts)
    clean = re.sub(r"[^\w.=+-]|\.+$", "_", name).encode()[:LONGEST].decode(errors="ignore")
    return clean if clean == name else _with_checksum(clean, name)


def folded(name: str) -> str:
    """A name as a file system has it that tells no capitals from small letters."""
    return unicodedata.normalize("NFC", name.casefold())


def told_apart(names: Iterable[str]) -> list[str]:
    """Give names of files that differ in capitals only a checksum each."""
    names = list(names)
    alike = Counter(map(folded, set(names)))
    return [_with_checksum(name, name) if alike[folded(name)] > 1 else name for name in names]


def _with_checksum(clean: str, name: str) -> str:
    return f"{clean}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:6]}"
