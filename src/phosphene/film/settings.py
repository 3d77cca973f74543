"""What a person asks of a film, beside the recipe of its dreams."""

from typing import Annotated

from pydantic import Field

from phosphene.recipe.settings import Settings


class Motion(Settings):
    """How one frame's dream goes over into the next."""

    carry: Annotated[
        bool, Field(description="Carry the last dream along the motion; without, each frame is alone.")
    ] = True
    later_steps: Annotated[
        int, Field(ge=1, le=1000, description="Steps in each octave after the first frame of a scene.")
    ] = 3
    later_octaves: Annotated[int, Field(ge=1, le=30, description="Octaves after the first frame of a scene.")] = 3
    change: Annotated[
        float | None,
        Field(gt=0, le=0.5, description="Root-mean-square change of each frame, 0 to 1; else its scene's first."),
    ] = None


class Part(Settings):
    """What part of a film is dreamed, and how fast frames of a folder follow each other."""

    start: Annotated[float, Field(ge=0, description="Where to begin, in seconds.")] = 0.0
    seconds: Annotated[float | None, Field(gt=0, description="How much of it to dream; without, all.")] = None
    fps: Annotated[float | None, Field(gt=0, le=1000, description="Frames a second, of a folder of frames.")] = None
