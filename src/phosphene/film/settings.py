"""Settings of films and zooms, besides the recipe of their dreams."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from phosphene.errors import SettingsError
from phosphene.recipe.settings import Settings

VIDEOS = (".mp4", ".mov", ".mkv", ".webm")
"""Endings of video files that are written; the recipe is in their container's metadata."""

SIDE = 640
"""Long side of a zoom's frames, in px, where none is asked for: its keys have about five times the pixels."""

MOST_CHANGE = 0.5
"""Root-mean-square change of a frame, of 1, at most."""


class Motion(Settings):
    """How one frame's dream goes over into the next."""

    carry: Annotated[
        bool, Field(description="Carry the previous dream along the motion; without, each frame is dreamed alone.")
    ] = True
    later_steps: Annotated[
        int, Field(ge=1, le=1000, description="Steps in each octave after the first frame of a scene.")
    ] = 3
    later_octaves: Annotated[int, Field(ge=1, le=30, description="Octaves after the first frame of a scene.")] = 3
    change: Annotated[
        float | None,
        Field(
            gt=0,
            le=MOST_CHANGE,
            description="Root-mean-square change of each frame, 0 to 1; by default that of its scene's first frame.",
        ),
    ] = None


class Part(Settings):
    """What part of a film is dreamed, and how many frames a second."""

    start: Annotated[float, Field(ge=0, description="Where to begin, in seconds.")] = 0.0
    seconds: Annotated[float | None, Field(gt=0, description="How much to dream, in seconds; by default all.")] = None
    fps: Annotated[
        float | None,
        Field(ge=0.01, le=1000, description="Frames per second; by default the film's own, or 25 for a folder."),
    ] = None


class Zoom(Settings):
    """How a zoom moves. Its speed is that of a second, whatever the frames."""

    seconds: Annotated[float, Field(gt=0, le=3600, description="Length of the film, in seconds.")] = 10.0
    rate: Annotated[float, Field(gt=1, le=16, description="Magnification per second.")] = 2.0
    towards: Annotated[
        str, Field(description="The point to zoom towards: ROW,COLUMN as fractions of height and width.")
    ] = "0.5,0.5"
    turn: Annotated[float, Field(ge=-90, le=90, description="Rotation, in degrees clockwise per second.")] = 0.0
    loop: Annotated[bool, Field(description="End where it began: the photograph reappears inside its own dream.")] = (
        False
    )
    fps: Annotated[float, Field(ge=0.01, le=240, description="Frames per second.")] = 24.0
    key_steps: Annotated[
        int,
        Field(ge=1, le=1000, description="Steps in each octave of the keys, the pictures that frames are cut out of."),
    ] = 6
    key_octaves: Annotated[int, Field(ge=1, le=30, description="Octaves of the keys after the first.")] = 3

    @field_validator("towards", mode="before")
    @classmethod
    def _spell_towards(cls, towards: Any) -> str:
        text = ",".join(map(str, towards)) if isinstance(towards, list | tuple) else str(towards)
        parts = text.split(",")
        if len(parts) != 2 or not all(_is_fraction(part) for part in parts):
            raise SettingsError(f"{text!r} is no place; one is spelt ROW,COLUMN, each 0 to 1, as in 0.5,0.4")
        return text

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of what stays in its place, in fractions."""
        row, column = map(float, self.towards.split(","))
        return row, column


def _is_fraction(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False
