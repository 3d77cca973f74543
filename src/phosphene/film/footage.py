"""What is known of a film, and its frames one by one."""

import math
from dataclasses import dataclass
from fractions import Fraction

from phosphene.film.settings import Part
from phosphene.types import Image, Size

UNSAID = 2
"""The number by which FFmpeg spells that a colour space, or another of a film's colour facts, is not known."""

BT709, BT601 = 1, 6
LINES_OF_709 = 720
"""A film that does not say its matrix has BT.709 from this height on, and BT.601 below, as players take it."""

WHOLE = Part()


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
