"""A dream in a notebook, live: the picture as it grows, a seam to the photograph, stop, and settings."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from phosphene.api import dream
from phosphene.setup.source import Source
from phosphene.verbs import Dream


@dataclass(frozen=True)
class Still:
    """What is shown where there is no anywidget: the dream when it is done, as a picture."""

    dream: Dream

    def stop(self) -> None:
        """It is done already."""

    def wait(self) -> None:
        """It is done already."""

    def _repr_png_(self) -> bytes:
        return self.dream._repr_png_()


def watch(image: Source, **settings: Any) -> Any:
    """Dream in a notebook, and watch: `phosphene.watch("photo.jpg")` as the last line of a cell.

    Arguments and errors are those of `phosphene.steps`. The widget dreams in a thread, and other cells can be run
    meanwhile. Its step size counts at once, its other settings for the next dream. `dream` is the dream as far as
    it has come; `start`, `stop` and `wait` do what they say. Without anywidget
    (`pip install 'phosphene[notebook]'`) the dream is a still picture, when it is done.
    """
    if find_spec("anywidget") is None:
        return Still(dream(image, **settings))
    from phosphene.notebook.widget import Live

    return Live(image, settings)
