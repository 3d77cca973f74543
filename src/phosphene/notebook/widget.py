"""The widget: settings and pictures that Python and the page share. `widget.js` draws them."""

import threading
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from phosphene import imagefile
from phosphene.api import ready
from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.resample import resize
from phosphene.errors import PhospheneError
from phosphene.live import Steps
from phosphene.recipe.looks import DEFAULT_LOOK, LOOKS
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import choose
from phosphene.setup.source import Source
from phosphene.types import Image, Step
from phosphene.verbs import Dream

SIDE = 640
"""Long side of the picture on the page, in px."""

SET = ("step_size", "steps", "octaves")
"""The numbers that can be set on the page."""


class Live(anywidget.AnyWidget):
    """A dream that is dreamed in a thread while a page shows it."""

    _esm = Path(__file__).with_name("widget.js")
    _css = Path(__file__).with_name("widget.css")

    photograph = traitlets.Bytes().tag(sync=True)
    picture = traitlets.Bytes().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)
    looks = traitlets.List(traitlets.Unicode()).tag(sync=True)
    look = traitlets.Unicode().tag(sync=True)
    step_size = traitlets.Float().tag(sync=True)
    steps = traitlets.Int().tag(sync=True)
    octaves = traitlets.Int().tag(sync=True)

    def __init__(self, image: Source, settings: dict[str, Any]) -> None:
        super().__init__()
        self._image, self._given = image, settings
        self._halt, self._thread = threading.Event(), threading.Thread()
        self._prepare()
        recipe = self._steps.recipe
        self._show_settings(recipe)
        self.looks = [] if settings.get("layers") else list(LOOKS.get(recipe.model, {}))
        self.look = settings.get("look") or (DEFAULT_LOOK if self.looks else "")
        self.observe(lambda change: self._take_look(), "look")
        self.on_msg(lambda widget, said, buffers: self.start() if said == "start" else self.stop())
        self._begin()

    @property
    def dream(self) -> Dream:
        """The dream as far as it has come."""
        return self._steps.dream

    def start(self) -> None:
        """Dream again from the photograph, with the settings as they are now."""
        self.stop()
        self.wait()
        numbers = {name: getattr(self, name) for name in SET}
        try:
            self._prepare(**numbers, **({"look": self.look} if self.look else {}))
        except PhospheneError as error:
            self.said = str(error)
        else:
            self._begin()

    def stop(self) -> None:
        """End after the present step."""
        self._halt.set()

    def wait(self) -> None:
        """Wait until it is done, or stopped."""
        if self._thread.is_alive():
            self._thread.join()

    def _prepare(self, **settings: Any) -> None:
        job = ready(self._image, **{**self._given, **settings})
        self._steps = Steps(job)
        self.photograph = self.picture = _encoded(job.image)

    def _begin(self) -> None:
        self._halt, self.running = threading.Event(), True
        self._thread = threading.Thread(target=self._run, args=(self._steps, self._halt), daemon=True)
        self._thread.start()

    def _run(self, steps: Steps, halt: threading.Event) -> None:
        try:
            for step in steps:
                self.picture, self.said = _encoded(step.image), _spelt(step)
                if halt.is_set() and not step.is_last:
                    self.said += ", stopped"
                    break
                if steps.recipe.step_size != self.step_size:
                    steps.change(step_size=self.step_size)
        except PhospheneError as error:
            self.said = str(error)
        finally:
            self.running = False

    def _take_look(self) -> None:
        """Show the numbers of a look that was chosen, for the next dream."""
        given = {name: value for name, value in self._given.items() if name in Recipe.model_fields}
        self._show_settings(choose({**given, "model": self._steps.recipe.model}, self.look))

    def _show_settings(self, recipe: Recipe) -> None:
        for name in SET:
            setattr(self, name, getattr(recipe, name))


def _encoded(image: Image) -> bytes:
    return imagefile.encode(resize(image.cpu(), fit_within((image.shape[1], image.shape[2]), SIDE)), "JPEG")


def _spelt(step: Step) -> str:
    return f"octave {step.octave} of {step.octaves}, step {step.step} of {step.steps}"
