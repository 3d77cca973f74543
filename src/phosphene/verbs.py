"""What can be done with a dream, wherever its pictures are: with a `Job` before it, and with a `Dream` after it."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from phosphene import imagefile
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe
from phosphene.types import Image, Step, Trace

LOOKED_AT = 1024
"""Long side, in px, at which a dream is looked at where nobody says."""


Side = Annotated[int, Field(ge=1, lt=2**31)]
"""A side in px."""


@dataclass(frozen=True)
class Dream(ABC):
    """A dreamed photograph: the recipe that makes it again, what it was made from and with, and how the score rose."""

    recipe: Recipe
    made: Made
    trace: Trace

    @property
    @abstractmethod
    def image(self) -> Image:
        """The whole picture; one on disk is read into memory."""

    @property
    @abstractmethod
    def photograph(self) -> Image:
        """The photograph at the dream's size; one on disk is read into memory."""

    @abstractmethod
    def look(self, side: Side = LOOKED_AT) -> Image:
        """Return the picture within `side` px, whatever its size."""

    @abstractmethod
    def save(
        self, path: str | Path | None = None, *, bits: Literal[8, 16] | None = None, overwrite: bool = False
    ) -> Path:
        """Write the picture, in the format of its file's ending, with the recipe inside; whole or not at all.

        Without a path, it is written where it was prepared to be.
        """

    def __repr__(self) -> str:
        height, width = self.made.size
        score = f", score {self.trace.rows[-1][2]:.3g}" if self.trace.rows else ""
        return f"<dream of {self.made.source}, {width} x {height} px, {self.recipe.objective}{score}>"

    def _repr_png_(self) -> bytes:
        return imagefile.encode(self.look())


@dataclass(frozen=True)
class Job(ABC):
    """All that a dream needs, ready to run: in memory or by way of the disk, which `job.run` cannot tell.

    `notes` is what there is to know before it runs, a sentence each.
    """

    recipe: Recipe
    made: Made
    notes: tuple[str, ...]

    @property
    @abstractmethod
    def resumable(self) -> Path | None:
        """The folder that `job.resume` goes on with where the dream is interrupted, if there is one."""

    @abstractmethod
    def begun(self) -> Trace:
        """Return the steps that were taken before."""

    @abstractmethod
    def steps(self) -> Generator[Step]:
        """Dream, step by step."""

    @abstractmethod
    def dreamed(self, image: Image | None, trace: Trace, unfinished: str | None = None) -> Dream:
        """Return the dream as far as it came: the last step's image, if there was one, and where it was stopped."""
