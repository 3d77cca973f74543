"""Films to read: any file that PyAV opens, or a folder or a pattern of frames; a part of it, and at another rate."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from phosphene.errors import UsageError
from phosphene.film.footage import WHOLE, Footage, Shot
from phosphene.film.settings import Part
from phosphene.film.stills import FOLDER_RATE, look_at_stills, shots_of, stills_of
from phosphene.film.video import decoded, look_at_video
from phosphene.types import Plane


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
    for shot in shots_of(footage) if footage.stills else decoded(footage):
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
    if stills := stills_of(source):
        return look_at_stills(source, stills, FOLDER_RATE if fps is None else fps)
    footage = look_at_video(source)
    if fps is None:
        return footage
    rate, seconds = Fraction(fps).limit_denominator(1001), footage.seconds or footage.frames / footage.rate
    frames = max(1, round(seconds * rate))
    return replace(footage, frames=frames, rate=rate, time_base=1 / rate, own_base=footage.time_base, counted=False)
