"""Films to read: any file that PyAV opens, or a folder or a pattern of frames. Frames come upright, as an `Image`."""

import glob
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phosphene import imagefile
from phosphene.errors import BrokenFilmError, ImageError, UsageError
from phosphene.film.settings import Part
from phosphene.types import Image, Plane, Size

try:
    import av
except ImportError:
    raise UsageError("films need PyAV and OpenCV: pip install 'phosphene[video]'") from None

UNSAID = 2
"""The number by which FFmpeg spells that a colour space, or another of a film's colour facts, is not known."""

FOLDER_RATE = 25
"""Frames a second of a folder of frames, where nothing else is said."""

BT709, BT601 = 1, 6
LINES_OF_709 = 720
"""A film that does not say its matrix has BT.709 from this height on, and BT.601 below, as players take it."""

WHOLE = Part()

MISSING = 1.0
"""Seconds that must be missing at the end of a film that has not counted its frames, for it to count as cut off."""


@dataclass(frozen=True)
class Colour:
    """How a film's samples mean colours, in FFmpeg's numbers: range, matrix, primaries, transfer."""

    range: int = 0
    space: int = UNSAID
    primaries: int = UNSAID
    transfer: int = UNSAID

    def matrix(self, height: int) -> int:
        """The matrix that is meant."""
        return self.space if self.space != UNSAID else BT709 if height >= LINES_OF_709 else BT601


@dataclass(frozen=True)
class Footage:
    """What is known of a film before its frames are read.

    `size` is height and width upright; `frames` is an estimate unless they are `counted`; `aspect` is that of a pixel,
    width over height; `rate` is in frames a second; `seconds` is 0 where it is not known. `own_base` is the time base
    of the film's own times, where frames are asked for at another rate: `rate` and `time_base` are those of that.
    """

    source: str
    sha256: str
    size: Size
    frames: int
    rate: Fraction
    time_base: Fraction
    seconds: float
    aspect: Fraction
    colour: Colour
    sound: tuple[str, ...]
    notes: tuple[str, ...]
    stills: tuple[str, ...] = ()
    counted: bool = True
    part: Part = WHOLE
    own_base: Fraction | None = None

    @property
    def ticks(self) -> Fraction:
        """Seconds of a unit of the film's own times."""
        return self.own_base or self.time_base

    @property
    def first(self) -> int:
        """The time at which the part begins, in the film's own units."""
        return round(self.part.start / self.ticks)

    @property
    def end(self) -> float:
        """The time at which the part ends, in seconds."""
        return math.inf if self.part.seconds is None else self.part.start + self.part.seconds


@dataclass(frozen=True)
class Shot:
    """A frame, and when it is shown: `pts` in the film's own units, or after `at_rate` in those asked for."""

    image: Image
    pts: int


def look_at(source: str, part: Part = WHOLE) -> Footage:
    """Find out what a film is, of which a part is wanted.

    Raises `ImageError` for what cannot be read as a film, and `UsageError` where a still is given, or no such part.
    """
    footage = _look_at(source, part.fps)
    if part.start and part.start >= footage.seconds > 0:
        raise UsageError(f"{source!r} has {footage.seconds:.2f} seconds, and none at {part.start:g}")
    left = footage.seconds - part.start if part.seconds is None else min(part.seconds, footage.seconds - part.start)
    whole = not part.start and (part.seconds is None or part.seconds >= footage.seconds)
    frames = footage.frames if whole else round(left * footage.rate)
    return replace(footage, frames=frames, seconds=left, part=part)


def shots(footage: Footage) -> Iterator[Shot]:
    """Read the frames of the part, one at a time, and count their times from its beginning.

    Raises `BrokenFilmError` where the film breaks off, after the frames before that.
    """
    for shot in _stills_of(footage) if footage.stills else _decoded(footage):
        if shot.pts * footage.ticks >= footage.end:
            return
        if shot.pts >= footage.first:
            yield replace(shot, pts=shot.pts - footage.first)


def at_rate(found: Iterable[tuple[Shot, Plane | None]], footage: Footage) -> Iterator[tuple[Shot, Plane | None]]:
    """Show at each beat of the rate asked for what the film shows then: frames are left out, or shown again.

    A rate that is the film's own changes nothing. The last frame stays as long as the one before it.
    """
    beat, time, last = 0, Fraction(0), None
    for shot, mask in found:
        before, time = time, shot.pts * footage.ticks
        begins = _nearest_beat(time * footage.rate)
        while last is not None and beat < begins:
            yield replace(last[0], pts=beat), last[1]
            beat += 1
        last = shot, mask
    if last is not None:
        end = min(float(2 * time - before), footage.part.seconds or math.inf)
        for later in range(beat, max(_nearest_beat(end * footage.rate), beat + (not beat))):
            yield replace(last[0], pts=later), last[1]


def _nearest_beat(beats: float | Fraction) -> int:
    """The nearest whole number; a half goes up, also where a film's times are whole milliseconds."""
    return math.floor(beats + Fraction(11, 20))


def _look_at(source: str, fps: float | None) -> Footage:
    stills = _stills(source)
    if stills:
        return _look_at_stills(source, stills, FOLDER_RATE if fps is None else fps)
    if not Path(source).is_file():
        raise ImageError(f"there is no film {source!r}: give a file, a folder of frames, or a pattern as 'frame*.png'")
    with opened(source) as container:
        footage = _look_at_film(source, container)
    if fps is None:
        return footage
    rate, seconds = Fraction(fps).limit_denominator(1001), footage.seconds or footage.frames / footage.rate
    frames = max(1, round(seconds * rate))
    return replace(footage, frames=frames, rate=rate, time_base=1 / rate, own_base=footage.time_base, counted=False)


@contextmanager
def opened(source: str) -> Iterator[Any]:
    """Open a film; what FFmpeg says of a file that is none becomes an `ImageError`."""
    try:
        container = av.open(source, format="apng" if source.lower().endswith(".apng") else None)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{source!r} is not a film that can be read: {reason}") from error
    with container:
        yield container


def _look_at_film(source: str, container: Any) -> Footage:
    stream = video_stream(source, container)
    context = stream.codec_context
    first = next(_frames(container, stream), None)
    if first is None:
        raise ImageError(f"{source!r} has no frame that can be read")
    turned = first.rotation % 180 != 0
    aspect = stream.sample_aspect_ratio or Fraction(1)
    size = (first.width, first.height) if turned else (first.height, first.width)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
    return Footage(
        source=source,
        sha256=_checksum([source]),
        size=size,
        frames=stream.frames or round(seconds * rate),
        rate=rate,
        time_base=stream.time_base,
        seconds=seconds,
        aspect=1 / aspect if turned else aspect,
        colour=Colour(first.color_range, first.colorspace, context.color_primaries, context.color_trc),
        sound=tuple(sound.codec_context.name for sound in container.streams.audio),
        notes=_notes(first),
        counted=stream.frames > 0,
    )


def video_stream(source: str, container: Any) -> Any:
    """Return the first stream of pictures that move."""
    streams = [stream for stream in container.streams.video if "attached_pic" not in str(stream.disposition)]
    if not streams:
        raise ImageError(f"{source!r} has no video: only {_kinds(container)}")
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise UsageError(f"{source!r} is a still picture: `phosphene dream` and `phosphene zoom` take those")
    return streams[0]


def _kinds(container: Any) -> str:
    kinds = {stream.type for stream in container.streams} - {"video"}
    return " and ".join(sorted("sound" if kind == "audio" else kind for kind in kinds)) or "a cover"


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    stream.thread_type = "AUTO"
    yield from container.decode(stream)


def _notes(frame: Any) -> tuple[str, ...]:
    components = frame.format.components
    notes = []
    if max(component.bits for component in components) > 8:
        notes.append(f"{components[0].bits} bits a channel come in, and 8 go out")
    if any(component.is_alpha for component in components):
        notes.append("what is transparent in it is dreamed as if it were not")
    return tuple(notes)


def _decoded(footage: Footage) -> Iterator[Shot]:
    count, reached = 0, 0.0
    with opened(footage.source) as container:
        try:
            for frame in _frames(container, video_stream(footage.source, container)):
                shot = Shot(_upright(frame, footage.colour), _pts(frame, count, footage))
                count, reached = count + 1, float(shot.pts * footage.ticks)
                yield shot
        except av.FFmpegError as error:
            raise BrokenFilmError(f"{footage.source!r} is broken after frame {count}: {error.strerror}") from error
    missing = count < footage.frames - 2 if footage.counted else reached < footage.seconds - MISSING
    if missing and not footage.part.start:
        raise BrokenFilmError(
            f"{footage.source!r} ends after frame {count}, at {reached:.2f} of {footage.seconds:.2f} s: "
            f"the rest is missing"
        )


def _pts(frame: Any, count: int, footage: Footage) -> int:
    return frame.pts if frame.pts is not None else round(count / footage.rate / footage.ticks)


def _upright(frame: Any, colour: Colour) -> Image:
    pixels = frame.to_ndarray(format="rgb24", src_colorspace=colour.matrix(frame.height))
    pixels = np.rot90(pixels, round(frame.rotation / 90))
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255


def _stills(source: str) -> tuple[str, ...]:
    """Find the frames of a folder or a pattern, in the order that a person would count them."""
    path = Path(source)
    if path.is_dir():
        found = [str(each) for each in path.iterdir() if imagefile.is_image(each)]
        if not found:
            raise ImageError(f"there is no picture in the folder {source!r}")
    elif path.exists() or not re.search(r"[*?%]", source):
        return ()
    else:
        found = glob.glob(re.sub(r"%0?\d*d", "*", source))
        if not found:
            raise ImageError(f"no file is called like {source!r}")
    return tuple(sorted(found, key=_counted))


def _counted(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _look_at_stills(source: str, stills: tuple[str, ...], fps: float) -> Footage:
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


def _stills_of(footage: Footage) -> Iterator[Shot]:
    for index, name in enumerate(footage.stills):
        image = imagefile.read(name).image
        if tuple(image.shape[1:]) != footage.size:
            height, width = image.shape[1:]
            raise ImageError(
                f"{name!r} is {width} x {height}, and the frames before it {footage.size[1]} x {footage.size[0]}"
            )
        yield Shot(image, index)


def _checksum(paths: Sequence[str]) -> str:
    """The SHA-256 of a file, or of the checksums of several."""
    sums = []
    for path in paths:
        with open(path, "rb") as file:
            sums.append(hashlib.file_digest(file, "sha256").hexdigest())
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
