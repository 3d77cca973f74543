"""What scripts and notebooks call to make pictures move."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from phosphene.api import Model, named, spelt
from phosphene.errors import SettingsError
from phosphene.film import film as whole
from phosphene.film.asked import AskedFilm, AskedZoom, from_toml
from phosphene.film.frames import Frame, dream_frames
from phosphene.film.motion import Flow, dis
from phosphene.film.plan import begin, reopen
from phosphene.film.run import FilmProgress, run
from phosphene.film.settings import Motion, Part, Zoom
from phosphene.film.sink import read_recipe
from phosphene.networks.registry import introduce
from phosphene.recipe.arguments import checked
from phosphene.recipe.settings import Recipe, Settings, describe_problems
from phosphene.recipe.spelling import plain
from phosphene.types import Device, Limit, Stop

S = TypeVar("S", bound=Settings)


@checked
def animate(
    film: str | Path,
    output: str | Path,
    *,
    on_frame: Callable[[FilmProgress], None] | None = None,
    stop: Stop | None = None,
    device: Device = "auto",
    memory: Limit | None = None,
    workers: int = 1,
    cluster: str | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path | None:
    """Dream a film, and return where it is: its ending chooses the format, and none means a folder of frames.

    `film` is a file, a folder of frames, or a pattern ("frame*.png"). `settings` are those of `phosphene.dream`, with
    `carry`, `later_steps`, `later_octaves`, `change`, `start`, `seconds`, `fps`, and lists `at`
    ("8:look=creatures") and `follow` ("step_size=bass"). `workers` processes of one thread each, or those of a Ray
    `cluster` (its address, or "local") whose machines share the film's folder, share the scenes, or the frames where
    nothing is carried; in a script, call it under `if __name__ == "__main__"`. Setting `stop` ends within a step; None
    is returned then, and the folder `OUTPUT.phosphene` is there to go on from with `resume_film`.

    Raises `PhospheneError`: `UsageError` for what cannot be done as asked, `ImageError` for what is no film, and
    `BrokenFilmError` for one that breaks off, when what came before has been written.
    """
    ready = begin(
        _asked_film(film, settings),
        Path(output),
        device=str(device),
        memory=memory,
        workers=workers,
        cluster=cluster,
        overwrite=overwrite,
    )
    return run(ready, on_frame, stop)


@checked
def zoom(
    photo: str | Path,
    output: str | Path,
    *,
    on_frame: Callable[[FilmProgress], None] | None = None,
    stop: Stop | None = None,
    device: Device = "auto",
    memory: Limit | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path | None:
    """Zoom into a photograph that is dreamed all the way, and return where the film is.

    `photo` is a path, `sample:NAME` or `noise:HEIGHTxWIDTH`. `settings` are those of `phosphene.dream` and of
    `phosphene.film.settings.Zoom`: `seconds`, `rate` (a second), `towards` (row, column), `turn` (degrees a second),
    `loop`, `fps`, `key_steps`, `key_octaves`; and a list `at`. Stopping and errors are as in `animate`.
    """
    given = _given(settings)
    asked = _taken({"source": str(photo), "zoom": _taken(given, Zoom), **_words(given, "at")}, AskedZoom)
    return run(begin(asked, Path(output), device=str(device), memory=memory, overwrite=overwrite), on_frame, stop)


@checked
def frames(
    film: str | Path, *, device: Device = "auto", memory: Limit | None = None, flow: Flow = dis, **settings: Any
) -> Iterator[Frame]:
    """Dream a film frame by frame, and write nothing. `settings` are those of `animate`.

    `flow(frame, other)` returns for each pixel of `frame` how far right and down its thing is in `other`, [2, height,
    width] in px; another one can be put in.
    """
    ready = whole.prepare(_asked_film(film, settings), device=str(device), memory=memory)
    return dream_frames(ready.shots(), ready.seconds_of, ready.moments, ready.asked.motion, flow=flow)


@checked
def replay_film(
    film: str | Path,
    output: str | Path,
    source: str | Path | None = None,
    *,
    model: Model | None = None,
    on_frame: Callable[[FilmProgress], None] | None = None,
    stop: Stop | None = None,
    device: Device = "auto",
    memory: Limit | None = None,
    overwrite: bool = False,
) -> Path | None:
    """Make a film or a zoom again from the recipe that it carries; of another film or photograph, if `source` is given.

    A custom network is given again as `model`. The rest, and what it raises, is as in `animate`.
    """
    asked, _ = from_toml(read_recipe(film))
    given = asked.given if model is None else {**asked.given, "model": introduce(model)}
    asked = asked.model_copy(update={"given": given, "source": asked.source if source is None else str(source)})
    return run(begin(asked, Path(output), device=str(device), memory=memory, overwrite=overwrite), on_frame, stop)


@checked
def resume_film(
    folder: str | Path,
    *,
    model: Model | None = None,
    cluster: str | None = None,
    on_frame: Callable[[FilmProgress], None] | None = None,
    stop: Stop | None = None,
) -> Path | None:
    """Go on with a film or a zoom that was stopped; `folder` is OUTPUT.phosphene, beside its output.

    It ends in the same frames as if nothing had happened. A custom network is given again as `model`.
    """
    if model is not None:
        introduce(model)
    return run(reopen(Path(folder), cluster), on_frame, stop)


def _asked_film(film: str | Path, settings: dict[str, Any]) -> AskedFilm:
    """Sort what a person gave by name."""
    given = _given(settings)
    motion, part = _taken(given, Motion), _taken(given, Part)
    return _taken({"source": str(film), "motion": motion, "part": part, **_words(given, "at", "follow")}, AskedFilm)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Spell what a person raises, and name a network of theirs."""
    given = dict(settings)
    given |= spelt(given.pop("layers", None)) | named(*(given.pop(name, None) for name in ("model", "mean", "std")))
    recipe = {name: value for name, value in given.items() if name in Recipe.model_fields and value is not None}
    return given | plain(recipe, given.get("look"), given.get("preset"))


def _taken(given: dict[str, Any], kind: type[S]) -> S:
    """Take what belongs to one kind of settings out of those given. Raises a `SettingsError` of one sentence."""
    try:
        return kind(**{name: given.pop(name) for name in kind.model_fields if name in given})
    except ValidationError as error:
        raise SettingsError(describe_problems(error.errors())) from None


def _words(given: dict[str, Any], *lists: str) -> dict[str, Any]:
    """Take a look, a preset, and lists of words out of what is given, which is left; one word is a list too."""
    words = {name: given.pop(name, ()) for name in lists}
    return {
        "look": given.pop("look", None),
        "preset": given.pop("preset", None),
        **{name: (each,) if isinstance(each, str) else each for name, each in words.items()},
        "given": given,
    }
