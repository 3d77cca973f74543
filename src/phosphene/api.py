"""What scripts and notebooks call."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from phosphene import imagefile, job
from phosphene.errors import SettingsError, UsageError
from phosphene.job import MemoryJob, in_memory, prepare, run
from phosphene.modes import undisturbed
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.networks.inspect import untrained_network
from phosphene.networks.layers import Layer, describe
from phosphene.networks.registry import introduce
from phosphene.places import check_folder, listed
from phosphene.recipe.arguments import checked
from phosphene.recipe.provenance import from_toml
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import choose
from phosphene.recipe.terms import Objective, OwnFunction, term
from phosphene.setup.source import Source
from phosphene.types import Device, Limit, Step, Stop
from phosphene.verbs import Dream

Model = Any
"""A model's name, or a `torch.nn.Module` that takes images [batch, channels, height, width]."""


@undisturbed()
@checked
def dream(
    image: Source,
    *,
    model: Model | None = None,
    mean: Iterable[float] | None = None,
    std: Iterable[float] | None = None,
    look: str | None = None,
    preset: str | None = None,
    layers: Objective | OwnFunction | Sequence[str] | str | None = None,
    on_step: Callable[[Step], None] | None = None,
    stop: Stop | None = None,
    device: Device = "auto",
    memory: Limit | None = None,
    cluster: str | None = None,
    output: str | Path | None = None,
    bits: Literal[8, 16] = 8,
    overwrite: bool = False,
    **settings: Any,
) -> Dream:
    """Dream a photograph of any size.

    `image` is a path, `sample:NAME`, `noise:HEIGHTxWIDTH`, a float tensor [3, height, width] in 0..1, or anything that
    NumPy takes for a picture [height, width, 3]. `layers` is what to raise, as on the command line ("mixed3:0.5") or
    as an `Objective` (`layer("mixed3") - channel("mixed4", 12)`, classes and custom functions included).
    `settings` are those of `phosphene.Recipe`. `on_step` hears of each step, and `stop`, once set, ends it.

    `model` is a name, `package.module:callable`, or a module of your own, which sees `(pixel - mean) / std`, with a
    number for each of its channels: one is the luma, three are RGB, a fourth is opaque. Without them it sees pixels in
    0..1. It is copied as it is now, and never changed. It does not matter in which of torch's modes this is called.

    What does not fit into `memory` (what the process may take, as "2GB"; else a safe share of what is free) goes by way
    of the disk, or on a Ray `cluster` (its address, or "local"); `save` and `look` of the dream do not load it.
    `output` is where `save` writes it without being told, in so many `bits` a channel; the folder of a dream by way of
    the disk is beside it, and `resume` goes on from there.

    Raises `PhospheneError`: `UsageError` for what cannot be done as asked, `ImageError`, `WeightsError`, `StoreError`.
    """
    recipe = chosen(model, mean, std, look, preset, layers, settings)
    return run(
        prepare(image, recipe, str(device), memory, cluster, output=output, bits=bits, overwrite=overwrite),
        on_step,
        stop,
    )


@checked
def dream_each(images: Iterable[Source] | str | Path, *, stop: Stop | None = None, **settings: Any) -> list[Dream]:
    """Dream several photographs, of any sizes, one after the other with one network.

    `images` are what `dream` takes, or a folder, whose pictures are dreamed in the order of their names. Arguments and
    errors are those of `dream`. `stop`, once set, ends the one that it is at and leaves out the others.
    """
    if settings.get("output") is not None:
        raise UsageError("several dreams have no output together: save each under a name of its own")
    several = _pictures_in(Path(images)) if isinstance(images, str | Path) else images
    return [dream(image, stop=stop, **settings) for image in several if stop is None or not stop.is_set()]


def _pictures_in(folder: Path) -> list[Path]:
    check_folder(folder)
    found = [path for path in listed(folder) if imagefile.is_image(path)] if folder.is_dir() else []
    if not found:
        raise UsageError(f"there is no folder of photographs at {str(folder)!r}; dream takes one photograph")
    return found


@undisturbed()
@checked
def ready(
    image: Source,
    *,
    model: Model | None = None,
    mean: Iterable[float] | None = None,
    std: Iterable[float] | None = None,
    look: str | None = None,
    preset: str | None = None,
    layers: Objective | OwnFunction | Sequence[str] | str | None = None,
    device: Device = "auto",
    memory: Limit | None = None,
    **settings: Any,
) -> MemoryJob:
    """Prepare a dream in memory, whose arguments and errors are those of `dream`, and do not run it."""
    return in_memory(image, chosen(model, mean, std, look, preset, layers, settings), str(device), memory)


def chosen(
    model: Model | None,
    mean: Iterable[float] | None,
    std: Iterable[float] | None,
    look: str | None,
    preset: str | None,
    layers: Objective | OwnFunction | Sequence[str] | str | None,
    settings: dict[str, Any],
) -> Recipe:
    """Return the recipe of what a person says in Python."""
    return choose(settings | named(model, mean, std) | spelt(layers), look, preset)


def named(model: Model | None, mean: Iterable[float] | None, std: Iterable[float] | None) -> dict[str, str]:
    """Return a network, if one is given, as a setting of a recipe."""
    if model is not None:
        return {"model": introduce(model, mean, std)}
    if mean is not None or std is not None:
        raise SettingsError("mean and std are for a module of your own: give it as model")
    return {}


@undisturbed()
@checked
def replay(
    picture: str | Path,
    image: Source | None = None,
    *,
    model: Model | None = None,
    mean: Iterable[float] | None = None,
    std: Iterable[float] | None = None,
    on_step: Callable[[Step], None] | None = None,
    stop: Stop | None = None,
    device: Device = "auto",
    memory: Limit | None = None,
    cluster: str | None = None,
    output: str | Path | None = None,
    bits: Literal[8, 16] = 8,
    overwrite: bool = False,
) -> Dream:
    """Make a picture again from the recipe that it carries; of another photograph, if `image` is given.

    A custom network is given again as `model`, with the `mean` and `std` that the recipe names. The rest, and
    what it raises, is as in `dream`.
    """
    recipe, made = from_toml(imagefile.read_recipe(picture))
    if model is None and (mean is not None or std is not None):
        raise UsageError("mean and std are of a network of your own: give it as model")
    if model is not None:
        recipe = recipe.but(model=introduce(model, mean, std))
    return run(
        prepare(made.again(image), recipe, str(device), memory, cluster, output=output, bits=bits, overwrite=overwrite),
        on_step,
        stop,
    )


@undisturbed()
@checked
def layers(
    model: Model = DEFAULT_MODEL,
    *,
    mean: Iterable[float] | None = None,
    std: Iterable[float] | None = None,
    size: tuple[int, int] = (256, 256),
) -> Mapping[str, Layer]:
    """Return what there is to raise in a model: its layers by name, for an image of `size` (height, width) in px."""
    if not (isinstance(size, Sequence) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size)):
        raise SettingsError(f"size = {size!r} will not do: it is a height and a width, in px")
    return describe(untrained_network(introduce(model, mean, std)), size)


@checked
def spelt(layers: Objective | OwnFunction | Sequence[str] | str | None) -> dict[str, tuple[str, ...]]:
    """Return what to raise as settings of a recipe."""
    if layers is None:
        return {}
    if isinstance(layers, Objective):
        return layers.settings
    if callable(layers):
        return term(layers).settings
    return {"layers": (layers,) if isinstance(layers, str) else tuple(layers)}


@undisturbed()
@checked
def resume(
    folder: str | Path,
    *,
    cluster: str | None = None,
    on_step: Callable[[Step], None] | None = None,
    stop: Stop | None = None,
) -> Dream:
    """Go on with a dream by way of the disk that was interrupted; `folder` is OUTPUT.phosphene, beside its output.

    It ends as if nothing had happened; `save` writes it to that output.
    """
    return run(job.resume(folder, cluster), on_step, stop)
