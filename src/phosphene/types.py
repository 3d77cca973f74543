"""The types that every part shares. No logic.

Pixels are float32 in 0..1, sRGB, `[3, height, width]`; height comes before width everywhere.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Image = Float[Tensor, "3 height width"]
Plane = Float[Tensor, "height width"]
Mask = Float[Tensor, "1 height width"] | Plane
Activation = Float[Tensor, "batch channels rows columns"]

FeaturesFn = Callable[[Tensor], Mapping[str, Activation]]
"""Images [batch, 3, height, width] to activations by layer; `networks.network.Features` is one."""

Device = str | torch.device
"""A device by name, or as PyTorch has it."""

Limit = str | int
"""An amount of memory as people spell it (2GB), or in bytes."""

Size = tuple[int, int]
"""Height, width, in pixels."""

Shift = tuple[int, int]
"""Rows down, columns right, in pixels; the image is rolled by it, so it wraps around."""


Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""As Python's own `map`, with one iterable: results come in order."""


@runtime_checkable
class Stop(Protocol):
    """What ends a dream once it is set: an event of `threading`, `multiprocessing` or `asyncio`."""

    def is_set(self) -> bool:
        """Whether it is."""
        ...


@runtime_checkable
class Picture(Protocol):
    """An `Image`, or one on disk: all that the loop asks of it is its size."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        ...


@runtime_checkable
class GradientFn(Protocol):
    """Score of an image and the score's gradient, seen through a roll of the image.

    The whole-image, tiled, out-of-core and distributed versions are four builders of this one callable; the
    ascent cannot tell which it has. `shift` is the jitter: the network looks at the image rolled by `shift`, and
    the gradient comes back unrolled, in the frame of `image`.
    """

    def __call__(self, image: Image, shift: Shift) -> tuple[float, Image]:
        """Return (score, gradient); the gradient has the image's shape. Higher scores are better."""
        ...


@dataclass(frozen=True)
class Step:
    """One progress event: what the picture is after this step.

    `octave` and `step` count from 1; `score` is the objective's value before the step was taken; `seconds` is the
    time since the dream began; `progress` is the share of all the pixels to be looked at that has been, 0 to 1.
    """

    octave: int
    octaves: int
    step: int
    steps: int
    score: float
    seconds: float
    progress: float
    image: Image

    @property
    def seconds_left(self) -> float:
        """An estimate, from the time that the pixels so far have taken."""
        return self.seconds * (1 - self.progress) / self.progress

    @property
    def is_last(self) -> bool:
        """Whether the dream ends with this step."""
        return self.octave == self.octaves and self.step == self.steps


@dataclass(frozen=True)
class Trace:
    """Step events without their pictures, one row a step: octave, step, score, seconds."""

    columns: ClassVar = ("octave", "step", "score", "seconds")
    rows: list[tuple[int, int, float, float]] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Note a step."""
        self.rows.append((step.octave, step.step, step.score, step.seconds))

    @property
    def scores(self) -> list[float]:
        """The score before each step."""
        return [row[2] for row in self.rows]
