"""Films in the studio: what is one, its first frame, and an order dreamed into another."""

from pathlib import Path

from phosphene import imagefile
from phosphene.dreaming.pyramid import fitted_size
from phosphene.errors import UsageError
from phosphene.film.settings import VIDEOS, Zoom
from phosphene.imagefile import Photo
from phosphene.recipe.settings import Recipe
from phosphene.types import Size

FILMS = {*VIDEOS, ".m4v", ".avi"}
"""Endings of files that the studio takes for films."""


def is_film(name: str | Path) -> bool:
    """Whether a file is a film, by its ending."""
    return Path(name).suffix.lower() in FILMS


def still_of(source: str | Path) -> Photo:
    """Read a photograph, or the first frame of a film. Raises `ImageError`, and `UsageError` without PyAV."""
    if not is_film(source):
        return imagefile.read(source)
    from phosphene.film.source import look_at, shots

    footage = look_at(str(source))
    return Photo(next(shots(footage)).image, None, str(source), footage.sha256, footage.notes)


def extent_of(source: str | Path, recipe: Recipe, zoom: Zoom | None = None) -> tuple[Size, int]:
    """Return the size and the number of the pictures to be dreamed: a photograph is one, and a film, foretold, many.

    A zoom is its keys, larger than its frames. Raises as `still_of`, and `UsageError` for a zoom into a film.
    """
    if zoom is not None:
        from phosphene.film.geometry import Course

        if is_film(source):
            raise UsageError("a zoom goes into a photograph, and this is a film: dream it, or choose a photograph")
        course = Course(zoom, fitted_size(imagefile.look(source).size, recipe))
        return course.key_size, course.keys + 1
    if not is_film(source):
        return imagefile.look(source).size, 1
    from phosphene.film.source import look_at

    footage = look_at(str(source))
    return footage.size, footage.frames
