"""What scripts and notebooks call."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from phosphene.job import Dream, Source, prepare, run
from phosphene.recipe.spelling import choose
from phosphene.recipe.terms import Objective
from phosphene.types import Step


def dream(
    image: Source,
    *,
    look: str | None = None,
    preset: str | None = None,
    layers: Objective | Sequence[str] | str | None = None,
    on_step: Callable[[Step], None] | None = None,
    stop: threading.Event | None = None,
    device: str = "auto",
    **settings: Any,
) -> Dream:
    """Dream a photograph.

    `image` is a path, `sample:NAME`, `noise:HEIGHTxWIDTH`, a float tensor [3, height, width] in 0..1, or anything that
    NumPy takes for a picture [height, width, 3]. `layers` is what to raise, as on the command line ("mixed3:0.5") or
    as an `Objective` (`layer("mixed3") - channel("mixed4", 12)`, class terms included). `settings` are those of
    `phosphene.Recipe`. `on_step` hears of each step, and setting `stop` ends the dream after the present one.

    Raises `PhospheneError`: `UsageError` for what cannot be done as asked, `ImageError`, `WeightsError`.
    """
    if isinstance(layers, Objective):
        settings |= {"layers": layers.layers, "classes": layers.classes}
    elif layers is not None:
        settings["layers"] = (layers,) if isinstance(layers, str) else tuple(layers)
    return run(prepare(image, choose(settings, look, preset), device), on_step, stop)
