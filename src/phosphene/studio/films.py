"""Films in the studio: what is one, its first frame, and what an order costs."""

from pathlib import Path

from phosphene import imagefile
from phosphene.dreaming.pyramid import fitted_size
from phosphene.errors import UsageError
from phosphene.film.settings import VIDEOS, Zoom
from phosphene.imagefile import Photo
from phosphene.recipe.settings import Recipe
from phosphene.studio.cost import megapixel_steps
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


def cost_of(source: str | Path, recipe: Recipe, zoom: Zoom | None = None) -> float:
    """Estimate the megapixel-steps of a photograph, of a film's frames, or of a zoom.

    A zoom's keys are larger than its frames, and cutting a frame out of them counts as a step. Raises as `still_of`,
    and `UsageError` for a zoom into a film.
    """
    if zoom is None:
        size, frames = _extent_of(source)
        return max(1, frames) * megapixel_steps(recipe, size)
    from phosphene.film.geometry import Course

    if is_film(source):
        raise UsageError("a zoom goes into a photograph, and this is a film: dream it, or choose a photograph")
    course = Course(zoom, fitted_size(imagefile.look(source).size, recipe))
    first = recipe.but(size="full")
    later = first.but(steps=zoom.key_steps, octaves=zoom.key_octaves)
    keys = megapixel_steps(first, course.key_size) + course.keys * megapixel_steps(later, course.key_size)
    return keys + course.frames * course.size[0] * course.size[1] / 1e6


def preview_cost_of(source: str | Path, recipe: Recipe) -> float:
    """As `cost_of`, for the first picture alone."""
    return megapixel_steps(recipe, _extent_of(source)[0])


def _extent_of(source: str | Path) -> tuple[Size, int]:
    """The size and the number of the pictures in a file: a photograph is one, and a film, estimated, many."""
    if not is_film(source):
        return imagefile.look(source).size, 1
    from phosphene.film.source import look_at

    footage = look_at(str(source))
    return footage.size, footage.frames
