"""What the page asks for, as a recipe; and a recipe, as what the page shows."""

from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from phosphene.errors import UnknownNameError
from phosphene.film.settings import SIDE, Zoom
from phosphene.recipe.looks import DEFAULT_LOOK
from phosphene.recipe.provenance import Made, from_toml
from phosphene.recipe.settings import FILES, Recipe, Settings
from phosphene.recipe.spelling import choose, command, flags, shortest
from phosphene.recipe.terms import KINDS
from phosphene.studies.study import Study
from phosphene.studio.films import is_film
from phosphene.studio.folder import Folder

GIVEN_FIRST: dict[str, Any] = {"size": "full"}
"""What the studio gives before anyone has: no picture is shrunk without being asked."""


class Order(Settings):
    """A photograph, a look, and the settings that a person changed; files by their names in the studio's folder.

    With `zoom` it is a zoom into the photograph, of `SIDE` px where no size is given.
    """

    photograph: str
    look: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    zoom: Zoom | None = None

    def recipe(self, folder: Folder) -> Recipe:
        """Return the whole recipe. Raises `UsageError` for what is outside its range or outside the folder."""
        given = {**(GIVEN_FIRST if self.zoom is None else {"size": SIDE}), **self.settings}
        for name in ("mask", "guide"):
            if given.get(name) is not None:
                given[name] = folder.photograph(str(given[name]))
        if "weights" in given:
            given["weights"] = folder.weights_of(str(given["weights"]))
        return choose(given, self.look)

    @property
    def title(self) -> str:
        """What it is, in two words: the photograph's, and the look's or the first layer's."""
        raised = [term for kind in KINDS for term in self.settings.get(kind, ())]
        words = f"{stem(self.photograph)} {(raised or [self.look or DEFAULT_LOOK])[0]}"
        return words if self.zoom is None else f"{words} zoom"


class Compared(Settings):
    """A comparison of the studio's folder, by its name: to be dreamed as far as it is not."""

    comparison: str

    @property
    def title(self) -> str:
        """What it is, in two words."""
        return f"{self.comparison} compared"


Ordered = Order | Compared


def read_order(data: bytes) -> Ordered:
    """Read what `model_dump_json` of an order wrote."""
    return TypeAdapter[Ordered](Ordered).validate_json(data)


def stem(photograph: str) -> str:
    """Return a sample's name, or a dropped file's without checksum and ending."""
    path = Path(photograph.removeprefix("sample:"))
    return path.stem.rpartition("-")[0] or path.stem


def shown(recipe: Recipe, source: str, zoom: Zoom | None = None) -> dict[str, Any]:
    """Return what the page shows of a recipe: every setting, what differs from the look, and the command line."""
    look, given = shortest(recipe)
    for name, ours in GIVEN_FIRST.items():  # a page that is given nothing starts from these
        wanted = getattr(recipe, name)
        given = {key: value for key, value in given.items() if key != name} | ({} if wanted == ours else {name: wanted})
    verb = "zoom" if zoom else "animate" if is_film(source) else "dream"
    spelt = command(recipe, source, f"{stem(source)}-again.{'png' if verb == 'dream' else 'mp4'}", verb)
    moving = flags(zoom.model_dump(exclude_defaults=True)) if zoom else ""
    return {
        "recipe": recipe.model_dump(mode="json") | {name: _name(getattr(recipe, name)) for name in FILES},
        "drive": recipe.drive,
        "look": look,
        "given": given | {name: _name(given[name]) for name in FILES if name in given},
        "command": f"{spelt} {moving}".rstrip(),
    }


def restored(text: str, folder: Folder) -> dict[str, Any]:
    """Return what the page shows of the recipe in a picture, with its files as far as they are in the folder.

    Raises `ImageError` where the text is no recipe.
    """
    recipe, made = from_toml(text)
    files = {
        "mask": folder.with_checksum(made.mask_sha256),
        "guide": folder.with_checksum(made.guide_sha256),
        "weights": _weights_in(folder, recipe.weights),
    }
    lost = [name for name, found in files.items() if getattr(recipe, name) is not None and found is None]
    photograph = photograph_of(made, folder)
    lost += [] if photograph else ["photograph"]
    known = shown(recipe, made.source)
    given = {name: files.get(name, value) for name, value in known["given"].items() if name not in lost}
    return known | {
        "given": given,
        "recipe": known["recipe"] | files,
        "photograph": photograph,
        "source": Path(made.source).name,
        "size": made.size,
        "unfinished": made.unfinished,
        "notes": [_how_to_have(name) for name in lost],
    }


def photograph_of(made: Made | Study, folder: Folder) -> str | None:
    """Return the name of the photograph that something was made of, or None where it is not in the folder."""
    return made.source if made.source.startswith("sample:") else folder.with_checksum(made.source_sha256)


def _weights_in(folder: Folder, weights: str) -> str | None:
    name = Path(weights).name
    try:
        folder.weights_of(name)
    except UnknownNameError:
        return None
    return name


def _how_to_have(lost: str) -> str:
    if lost == "weights":
        return "its weights are not in the studio's folder: put the file there to use them again"
    return f"its {lost} is not in the studio's folder: drop it here to use it again"


def _name(path: str | None) -> str | None:
    return None if path is None else path if path.startswith("sample:") else Path(path).name
