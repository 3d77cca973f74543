"""What a person asks for, as it was said: of a film, or of a zoom. Each carries it, and is made again from it."""

import tomllib
from os import PathLike, fspath
from typing import Any

import tomli_w
from pydantic import Field, ValidationError, field_validator

from phosphene.errors import ImageError
from phosphene.film.settings import SIDE, Motion, Part, Zoom
from phosphene.film.timeline import Timeline, follow_of, tracks_of
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe, Settings, describe_problems


class Asked(Settings):
    """What is asked of both."""

    source: str
    given: dict[str, Any] = Field(default_factory=dict)
    look: str | None = None
    preset: str | None = None
    at: tuple[str, ...] = ()

    @field_validator("given")
    @classmethod
    def _leave_out_nothings(cls, given: dict[str, Any]) -> dict[str, Any]:
        """None is what nobody has given, and TOML cannot spell it, nor a path."""
        return {n: fspath(v) if isinstance(v, PathLike) else v for n, v in given.items() if v is not None}


class AskedFilm(Asked):
    """What is asked of a film; it keeps its size unless another is asked for."""

    follow: tuple[str, ...] = ()
    motion: Motion = Motion()
    part: Part = Part()

    @property
    def timeline(self) -> Timeline:
        """The settings over time."""
        given, tracks = {"size": "full", **self.given}, tracks_of(self.at)
        still = Timeline(given, self.look, self.preset, tracks).at(0)[0]
        return Timeline(given, self.look, self.preset, tracks, tuple(follow_of(text, still) for text in self.follow))


class AskedZoom(Asked):
    """What is asked of a zoom; its frames have a long side of `SIDE` px unless another size is asked for."""

    zoom: Zoom = Zoom()

    @property
    def timeline(self) -> Timeline:
        """The settings over time."""
        return Timeline({"size": SIDE, **self.given}, self.look, self.preset, tracks_of(self.at))


def to_toml(asked: Asked, recipe: Recipe, made: Made) -> str:
    """Spell the recipe of a film's beginning, what was asked for, and how it was made, as TOML."""
    settings, film, facts = (each.model_dump(mode="json", exclude_none=True) for each in (recipe, asked, made))
    del film["source"]  # which `made` has
    return tomli_w.dumps({**settings, "film": film, "made": facts})


def from_toml(text: str) -> tuple[AskedFilm | AskedZoom, Made]:
    """Read what `to_toml` wrote. Raises `ImageError` where it is no film's recipe."""
    try:
        table = tomllib.loads(text)
        made, words = Made(**table["made"]), table["film"]
        kind = AskedZoom if "zoom" in words else AskedFilm
        return kind(source=made.source, **words), made
    except ValidationError as error:
        raise ImageError(f"the recipe in this film cannot be read: {describe_problems(error.errors())}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"the recipe in this film cannot be read: {error}") from error
