"""A film that is ready to be dreamed: what it is, its settings over time, its frames and their masks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from phosphene import imagefile
from phosphene.dreaming.pyramid import fitted_size
from phosphene.errors import ImageError, UsageError
from phosphene.film import sink
from phosphene.film.asked import AskedFilm
from phosphene.film.footage import Footage, Shot
from phosphene.film.journal import last
from phosphene.film.moments import Moments
from phosphene.film.sound import levels_of
from phosphene.film.source import at_rate, look_at, shots
from phosphene.imagefile import Photo
from phosphene.places import check_folder
from phosphene.recipe.own import is_own
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe
from phosphene.setup.source import mask_checksum, read_mask
from phosphene.types import Limit, Plane, Size

FRAME_BYTES = 3.2
"""Bytes of a pixel on disk at most: dreams are hard to compress without loss."""


@dataclass(frozen=True)
class Film:
    """A film, ready to be dreamed or to go on."""

    asked: AskedFilm
    footage: Footage
    moments: Moments
    recipe: Recipe
    made: Made
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """Height and width of a frame."""
        return self.moments.size

    @property
    def disk_bytes(self) -> int:
        """What it takes on disk at most: its frames and itself."""
        height, width = self.size
        return int(self.footage.frames * height * width * (FRAME_BYTES + 1))

    @property
    def pace(self) -> int:
        """How many frames show what a frame takes: the first one, and one after it."""
        return 2

    def shots(self) -> Iterator[tuple[Shot, Plane | None]]:
        """Read the frames, each with its mask."""
        found = masked(shots(self.footage), self.footage, self.recipe.mask, self.size)
        return found if self.footage.own_base is None else at_rate(found, self.footage)

    def seconds_of(self, pts: int) -> float:
        """Return a frame's time in seconds."""
        return float(pts * self.footage.time_base)

    def there(self, folder: Path) -> int:
        """Return how many frames are in a folder already."""
        return last(folder).frames


def prepare(asked: AskedFilm, output: Path | None = None, device: str = "auto", memory: Limit | None = None) -> Film:
    """Look at a film, load the network, and bind the two. All that can be wrong is found here."""
    timeline = asked.timeline
    footage = look_at(asked.source, asked.part)
    levels = levels_of(footage, {follow.band for follow in timeline.follows}) if timeline.follows else None
    recipe = timeline.at(0.0)[0]
    size = fitted_size(footage.size, recipe)
    size = size if output is None else sink.fitting(output, size)
    moments = Moments(timeline, size, device, memory, levels)
    timeline.check()
    job = moments.job(0.0, torch.full((3, *size), 0.5), None, torch.Generator())
    facts = {
        "source": asked.source,
        "source_sha256": footage.sha256,
        "source_size": footage.size,
        "mask_sha256": look_at_mask(recipe.mask, size, footage),
    }
    recipe = job.recipe.but(mask=recipe.mask, size=recipe.size)
    return Film(asked, footage, moments, recipe, job.made.model_copy(update=facts), (*footage.notes, *job.notes))


def masked(
    found: Iterator[Shot], footage: Footage, mask: str | None, size: Size
) -> Iterator[tuple[Shot, Plane | None]]:
    """Give each frame its mask: a picture, or what a film shows at that time.

    Its last frame stays. Times may be rounded to the units of either film.
    """
    if mask is None or is_own(mask) or imagefile.is_image(Path(mask)):
        still = None if mask is None else read_mask(mask, size)
        yield from ((shot, still) for shot in found)
        return
    film = _look_at_mask_film(mask, footage)
    coming, rounding = shots(film), max(film.ticks, footage.ticks) / 2
    shown = ahead = next(coming, None)
    if shown is None:
        raise UsageError(f"the mask {mask!r} has no frame from {footage.part.start:g} s on")
    for shot in found:
        while ahead is not None and ahead.pts * film.ticks <= shot.pts * footage.ticks + rounding:
            shown, ahead = ahead, next(coming, None)
        yield shot, imagefile.as_mask(Photo(shown.image, None, mask, "", ()), size)


def look_at_mask(mask: str | None, size: Size, footage: Footage) -> str | None:
    """Return the checksum of a mask, which may be a film; raises where it is neither film nor picture."""
    if mask is not None and not is_own(mask):
        check_folder(mask)
    if mask is None or is_own(mask) or imagefile.is_image(Path(mask)):
        return mask_checksum(mask, size)
    if not Path(mask).exists():
        raise ImageError(f"there is no mask {mask!r}: give a picture or a film")
    return _look_at_mask_film(mask, footage).sha256


def _look_at_mask_film(mask: str, footage: Footage) -> Footage:
    """Find out what a mask's film is, from where the film's part begins. A folder of frames has the film's rate."""
    return look_at(mask, footage.part.model_copy(update={"seconds": None, "fps": float(footage.rate)}))
