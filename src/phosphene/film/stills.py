"""A folder or a pattern of frames, read as a film."""

import glob
import hashlib
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from phosphene import imagefile
from phosphene.errors import ImageError
from phosphene.film.footage import Colour, Footage, Shot
from phosphene.places import listed

FOLDER_RATE = 25
"""Frames a second of a folder of frames, where nothing else is said."""


def is_pattern(source: str) -> bool:
    """Whether names of frames are meant by it."""
    return re.search(r"[*?%]", source) is not None


def stills_of(source: str) -> tuple[str, ...]:
    """Find the frames of a folder or a pattern, in the order that a person would count them; none for a file."""
    path = Path(source)
    if path.is_dir():
        found = [str(each) for each in listed(path) if imagefile.is_image(each)]
        if not found:
            raise ImageError(f"there is no picture in the folder {source!r}")
    elif path.exists() or not is_pattern(source):
        return ()
    else:
        found = glob.glob(re.sub(r"%0?\d*d", "*", source))
        if not found:
            raise ImageError(f"no file is called like {source!r}")
    return tuple(sorted(found, key=_counted))


def look_at_stills(source: str, stills: tuple[str, ...], fps: float) -> Footage:
    """Take stills as the frames of a film."""
    first, rate = imagefile.read(stills[0]), Fraction(fps).limit_denominator(1001)
    return Footage(
        source=source,
        sha256=_checksum(stills),
        size=(first.image.shape[1], first.image.shape[2]),
        frames=len(stills),
        rate=rate,
        time_base=1 / rate,
        seconds=float(len(stills) / rate),
        aspect=Fraction(1),
        colour=Colour(),
        sound=(),
        notes=first.notes,
        stills=stills,
    )


def shots_of(footage: Footage) -> Iterator[Shot]:
    """Read the frames. Raises `ImageError` for one of another size."""
    for index, name in enumerate(footage.stills):
        image = imagefile.read(name).image
        if tuple(image.shape[1:]) != footage.size:
            height, width = image.shape[1:]
            raise ImageError(
                f"{name!r} is {width} x {height}, and the frames before it {footage.size[1]} x {footage.size[0]}"
            )
        yield Shot(image, index)


def _counted(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _checksum(paths: Sequence[str]) -> str:
    """The SHA-256 of the checksums of files; of one file, its own."""
    sums = [imagefile.checksum(path) for path in paths]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
