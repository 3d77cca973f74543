"""What scripts and notebooks call to make pictures move."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phosphene.api import spelt
from phosphene.film import zoom as zooming
from phosphene.film.frames import Frame, dream_frames
from phosphene.film.motion import Flow, dis
from phosphene.film.plan import Asked, begin, prepare
from phosphene.film.run import Reached, run
from phosphene.film.settings import Motion, Part, Zoom
from phosphene.networks.registry import introduce


def animate(
    film: str | Path,
    output: str | Path,
    *,
    on_frame: Callable[[Reached], None] | None = None,
    stop: threading.Event | None = None,
    device: str = "auto",
    memory: str | None = None,
    workers: int = 1,
    overwrite: bool = False,
    **settings: Any,
) -> Path | None:
    """Dream a film, and return where it is: its ending chooses the format, and none means a folder of frames.

    `film` is a file, a folder of frames, or a pattern ("frame*.png"). `settings` are those of `phosphene.dream`, with
    `carry`, `later_steps`, `later_octaves`, `change`, `start`, `seconds`, `fps`, and lists `at`
    ("8:look=creatures") and `follow` ("step_size=bass"). `workers` processes of one thread each share the scenes, or
    the frames where nothing is carried; in a script, call it under `if __name__ == "__main__"`. Setting
    `stop` ends within a step; None is returned then, and the folder `OUTPUT.phosphene` is there to go on from with
    `phosphene resume`.

    Raises `PhospheneError`: `UsageError` for what cannot be done as asked, `ImageError` for what is no film, and
    `BrokenFilmError` for one that breaks off, when what came before has been written.
    """
    order = begin(
        asked(film, settings), Path(output), device=device, memory=memory, workers=workers, overwrite=overwrite
    )
    return run(order, on_frame, stop)


def zoom(
    photo: str | Path,
    output: str | Path,
    *,
    on_frame: Callable[[Reached], None] | None = None,
    stop: threading.Event | None = None,
    device: str = "auto",
    memory: str | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path | None:
    """Zoom into a photograph that is dreamed all the way, and return where the film is.

    `photo` is a path, `sample:NAME` or `noise:HEIGHTxWIDTH`. `settings` are those of `phosphene.dream` and of
    `phosphene.film.settings.Zoom`: `seconds`, `rate` (a second), `towards` (row, column), `turn` (degrees a second),
    `loop`, `fps`, `key_steps`, `key_octaves`; and a list `at`. Stopping and errors are as in `animate`.
    """
    given = _given(settings)
    wanted = Zoom(**{name: given.pop(name) for name in Zoom.model_fields if name in given})
    look, preset, at = given.pop("look", None), given.pop("preset", None), _several(given.pop("at", ()))
    order = zooming.Asked(source=str(photo), given=given, look=look, preset=preset, at=at, zoom=wanted)
    ready = zooming.begin(order, Path(output), device=device, memory=memory, overwrite=overwrite)
    return zooming.run(ready, on_frame, stop)


def frames(
    film: str | Path, *, device: str = "auto", memory: str | None = None, flow: Flow = dis, **settings: Any
) -> Iterator[Frame]:
    """Dream a film frame by frame, and write nothing. `settings` are those of `animate`.

    `flow(frame, other)` returns for each pixel of `frame` how far right and down its thing is in `other`, [2, height,
    width] in px; another one can be put in.
    """
    ready = prepare(asked(film, settings), device=device, memory=memory)
    return dream_frames(ready.shots(), ready.seconds_of, ready.moments, ready.asked.motion, flow=flow)


def asked(film: str | Path, settings: dict[str, Any]) -> Asked:
    """Sort what a person gave by name."""
    given = _given(settings)
    look, preset = given.pop("look", None), given.pop("preset", None)
    at, follow = (_several(given.pop(name, ())) for name in ("at", "follow"))
    motion = Motion(**{name: given.pop(name) for name in Motion.model_fields if name in given})
    part = Part(**{name: given.pop(name) for name in Part.model_fields if name in given})
    return Asked(
        source=str(film), given=given, look=look, preset=preset, at=at, follow=follow, motion=motion, part=part
    )


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Spell what a person raises, and name a network of theirs."""
    given = dict(settings)
    given |= spelt(given.pop("layers", None))
    if "model" in given:
        given["model"] = introduce(given["model"], given.pop("mean", None), given.pop("std", None))
    return given


def _several(words: str | Sequence[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)
