"""A recipe and a photograph in, a dream out, of any size. The command line, the studio and scripts go through here.

`prepare` decides by one rule whether a dream's pictures are in memory or on disk, and gives a `Job`; `run` runs it.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from phosphene import imagefile
from phosphene.dreaming.pyramid import fit_within, fitted_size, octave_sizes
from phosphene.dreaming.render import Memory, Reached, render
from phosphene.dreaming.resample import resize
from phosphene.errors import UsageError
from phosphene.imagefile import Photo, streaming
from phosphene.imagefile.formats import endings, format_of
from phosphene.networks.network import Network
from phosphene.recipe import provenance
from phosphene.recipe.arguments import checked
from phosphene.recipe.own import OwnNorm, bound_norm
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe
from phosphene.setup.memory import PictureBytes, budget, image_bytes, spell_bytes
from phosphene.setup.preflight import Forecast, Way, complete, describe_stages, patient_gradient_fn
from phosphene.setup.session import (
    choose_device,
    describe_device,
    load_network,
    needs_top,
    only_here,
    seen_guide,
    versions,
)
from phosphene.setup.source import Source, mask_checksum, own_mask_bytes, read, read_mask
from phosphene.types import GradientFn, Image, Limit, Map, Plane, Size, Step, Stop, Trace
from phosphene.verbs import LOOKED_AT, Dream, Job, Side


@dataclass(frozen=True, repr=False)
class MemoryDream(Dream):
    """A dream in memory: its pixels [3, height, width], the photograph's, and the photograph's alpha."""

    pixels: Image
    before: Image
    alpha: Plane | None
    output: Path | None = None
    bits: Literal[8, 16] = 8

    @property
    def image(self) -> Image:
        """The picture."""
        return self.pixels

    @property
    def photograph(self) -> Image:
        """The photograph at the dream's size."""
        return self.before

    @checked
    def look(self, side: Side = LOOKED_AT) -> Image:
        """Return the picture within `side` px."""
        return resize(self.image, fit_within(self.made.size, side))

    @checked
    def save(
        self, path: str | Path | None = None, *, bits: Literal[8, 16] | None = None, overwrite: bool = False
    ) -> Path:
        """Write the picture, in the format of its file's ending, with the recipe inside; whole or not at all.

        Without a path, it is written where it was prepared to be.
        """
        target, bits = imagefile.output_of(path, self.output), bits or self.bits
        imagefile.check_output(target, overwrite or path is None, bits=bits, size=self.made.size)
        text = provenance.to_toml(self.recipe, self.made)
        imagefile.write(target, self.image, alpha=self.alpha, recipe=text, bits=bits)
        return target


@dataclass(frozen=True)
class MemoryJob(Job):
    """A dream in memory, ready to run: of the whole image at once, or in tiles. `own` is the norm, if a custom one."""

    image: Image
    gradient_of: GradientFn
    rng: torch.Generator
    alpha: Plane | None = None
    mask: Plane | None = None
    min_side: int = 1
    output: Path | None = None
    bits: Literal[8, 16] = 8
    own: OwnNorm | None = None

    @property
    def resumable(self) -> None:
        """A dream in memory is lost when it is interrupted."""

    def begun(self) -> Trace:
        """Return an empty trace."""
        return Trace()

    def steps(self, reached: Reached[Image] | None = None) -> Generator[Step]:
        """Dream, step by step, from where it was `reached`."""
        return render(
            self.image,
            self.gradient_of,
            self.recipe,
            self.rng,
            mask=self.mask,
            min_side=self.min_side,
            medium=Memory(self.own),
            reached=reached,
        )

    def dreamed(self, image: Image | None, trace: Trace, unfinished: str | None = None) -> MemoryDream:
        """Return the last image as the dream, at the full size; `unfinished` says where it was stopped."""
        return MemoryDream(
            pixels=resize(self.image if image is None else image, self.made.size).clamp(0, 1).cpu(),
            before=self.image.cpu(),
            alpha=self.alpha,
            recipe=self.recipe,
            made=self.made.model_copy(update={"unfinished": unfinished}),
            trace=trace,
            output=self.output,
            bits=self.bits,
        )


def prepare(
    source: Source,
    recipe: Recipe,
    device: str = "auto",
    memory: Limit | None = None,
    cluster: str | None = None,
    *,
    output: str | Path | None = None,
    bits: Literal[8, 16] = 8,
    overwrite: bool = False,
) -> Job:
    """Read the photograph, load the network and bind the two. All that can be wrong is found here.

    The dream is of the whole image in memory if that fits into `memory` (what the process may take, as in `2GB`; or
    else a safe share of what is free), in tiles if those do, and by way of the disk if not, or on a `cluster` (the
    address of a Ray cluster, or `local`), each of whose workers may take `memory`. What is on disk lies in a folder
    beside `output`, from which `resume` goes on, or without an output in one for temporary files.
    """
    _check_shared(recipe, cluster)
    found = _find(source, recipe, device)
    output = None if output is None else Path(output)
    if output is not None:
        imagefile.check_output(output, overwrite, bits=bits, size=found.size)
    workers, memory = _shared(cluster, found.device, memory)
    network = load_network(recipe.eye, recipe.seed, str(found.device), needs_top(recipe))
    allowed = partial(budget, memory, found.device)
    ways = _ways(found, recipe, network, allowed(), cluster, output)
    forecast = complete(recipe, network, seen_guide(recipe, found.device), found.size, ways, allowed, workers)
    notes = _layer_notes(recipe, forecast.recipe)
    if forecast.way == "disk":
        return _on_disk(found, network, forecast, cluster, output, bits, notes)
    return _in_memory(found, network, forecast, output, bits, notes)


def in_memory(source: Source, recipe: Recipe, device: str = "auto", memory: Limit | None = None) -> MemoryJob:
    """Prepare a dream whose pictures are in memory, for who wants more of it than a `Job` does."""
    found = _find(source, recipe, device)
    network = load_network(recipe.eye, recipe.seed, str(found.device), needs_top(recipe))
    ways: dict[Way, PictureBytes] = {"memory": image_bytes(found.size)}
    allowed = partial(budget, memory, found.device)
    forecast = complete(recipe, network, seen_guide(recipe, found.device), found.size, ways, allowed)
    return _in_memory(found, network, forecast)


def resume(folder: str | Path, cluster: str | None = None) -> Job:
    """Go on with a dream by way of the disk that was interrupted, from its last whole step.

    It ends as if nothing had happened. Raises `UsageError` where there is none in `folder`, and `StoreError` where what
    it was made from has changed.
    """
    from phosphene.disk import journal
    from phosphene.disk.plan import Scratch, is_file, reopen
    from phosphene.disk.run import DiskJob

    folder = Path(folder)
    plan, entry = reopen(folder), journal.last(folder)
    _check_shared(plan.recipe, cluster)
    rng, photo = torch.Generator().manual_seed(plan.recipe.seed), None
    if entry is None and not is_file(plan.made.source):
        if plan.made.source == "array":
            raise UsageError(f"the array that {folder} is of was not kept yet: remove the folder, and begin again")
        photo = read(plan.made.source, rng)
    where = f"octave {entry.octave}, step {entry.step}" if entry else "the beginning"
    notes = (f"going on from {where}",)
    workers, own = _workers(cluster, plan.device), bound_norm(plan.recipe.norm)
    return DiskJob(plan.recipe, plan.made, notes, plan, Scratch(folder), rng, photo, workers, own)


def run(job: Job, on_step: Callable[[Step], None] | None = None, stop: Stop | None = None) -> Dream:
    """Run a job to its end, or until `stop` is set; `on_step` hears of each step."""
    trace, image, unfinished = job.begun(), None, None
    with closing(job.steps()) as steps:
        for step in steps:
            trace.add(step)
            image = step.image
            if on_step is not None:
                on_step(step)
            if stop is not None and stop.is_set() and not step.is_last:
                unfinished = f"stopped after step {step.step} of {step.steps} in octave {step.octave} of {step.octaves}"
                break
    return job.dreamed(image, trace, unfinished)


def _check_shared(recipe: Recipe, cluster: str | None) -> None:
    if cluster is not None and (ours := only_here(recipe)):
        raise UsageError(
            f"a cluster's processes do not have {ours}, which was given in this one: leave the cluster out, or have an "
            f"installed package bring it"
        )


def _shared(cluster: str | None, device: torch.device, memory: Limit | None) -> tuple[int, Limit | None]:
    """Return how many workers share a dream, and the memory that each may take."""
    if cluster is None:
        return 1, memory
    from phosphene.cluster import crew

    workers, share = crew(cluster, str(device))
    return workers, memory or (None if device.type == "cuda" else str(share))


@dataclass(frozen=True)
class _Found:
    """A source, of which a file is not decoded yet, the bytes that it takes to read it, and the size of its dream."""

    source: str
    photo: Photo | None
    source_size: Size
    reading: int
    size: Size
    device: torch.device
    rng: torch.Generator


def _find(source: Source, recipe: Recipe, device: str) -> _Found:
    bound_norm(recipe.norm)  # raises where a custom one was not given
    where, rng = choose_device(device), torch.Generator().manual_seed(recipe.seed)
    if isinstance(source, str | Path) and not str(source).startswith("noise:"):
        shape, photo = imagefile.look(source), None
        name, size, reading = str(source), shape.size, imagefile.reading_bytes(shape)
    else:
        photo = read(source, rng)
        name, size, reading = photo.source, photo.size, 0
    return _Found(name, photo, size, reading, fitted_size(size, recipe), where, rng)


def _ways(
    found: _Found, recipe: Recipe, network: Network, allowed: int, cluster: str | None, output: Path | None
) -> Mapping[Way, PictureBytes]:
    """Return the ways that are open to a dream, and the bytes that its pictures take in each."""
    from phosphene.disk.plan import strip_bytes

    barred = {"memory": _bars_memory(found, allowed, cluster, output), "disk": _bars_disk(recipe, network, output)}
    if all(barred.values()):
        raise UsageError(f"{barred['memory']}, and {barred['disk']}")
    strips = strip_bytes(found.size[1]) + own_mask_bytes(recipe.mask, found.size)
    pictures: dict[Way, PictureBytes] = {
        "memory": image_bytes(found.size),
        "disk": PictureBytes(held=strips, step=strips),
    }
    return {way: needed for way, needed in pictures.items() if not barred[way]}


def _bars_memory(found: _Found, allowed: int, cluster: str | None, output: Path | None) -> str | None:
    """Say why a dream has to go by way of the disk, if it has."""
    if cluster is not None:
        return "a cluster dreams by way of the disk"
    if output is not None and format_of(output).whole is None:
        return f"{output.name!r} is written by way of the disk"
    given = f"{found.source_size[1]} x {found.source_size[0]} px"
    if found.photo is None and found.source_size[0] * found.source_size[1] > imagefile.MAX_PIXELS:
        return f"a photograph of {given} is too large to be read into memory"
    if found.device.type == "cpu" and found.reading > max(allowed, 0):
        free = spell_bytes(allowed)
        return f"a photograph of {given} takes about {spell_bytes(found.reading)} to read, and {free} are allowed"
    return None


def _bars_disk(recipe: Recipe, network: Network, output: Path | None) -> str | None:
    """Say why a dream cannot go by way of the disk, if it cannot."""
    if recipe.tile == "none":
        return "by way of the disk it is dreamed in tiles: leave --tile none out"
    if network.is_hooked:
        return f"{network.card.name} cannot be traced, so it has no tiles and no way by the disk"
    if (norm := bound_norm(recipe.norm)) is not None and norm.margin is None:
        return f"{recipe.norm} looks at whole gradients, and none is whole by way of the disk: give it a margin"
    if output is not None and format_of(output).strips is None:
        return f"{output.name!r} cannot be written in strips: its ending must be one of {endings(strips=True)}"
    if find_spec("pyvips") is None:
        return "for the way of the disk a library is missing: pip install 'phosphene[disk]'"
    return None


def _in_memory(
    found: _Found,
    network: Network,
    forecast: Forecast,
    output: Path | None = None,
    bits: Literal[8, 16] = 8,
    notes: tuple[str, ...] = (),
) -> MemoryJob:
    recipe, size = forecast.recipe, found.size
    photo = found.photo or imagefile.read(found.source)
    made = _made(found, photo.sha256, recipe, network)
    _check_recipe(output, recipe, made)
    return MemoryJob(
        recipe=recipe,
        made=made,
        image=resize(photo.image, size).to(found.device),
        gradient_of=patient_gradient_fn(network, forecast.scoring, recipe, size),
        rng=found.rng,
        alpha=None if photo.alpha is None else resize(photo.alpha[None], size)[0],
        mask=None if recipe.mask is None else read_mask(recipe.mask, size).to(found.device),
        min_side=network.card.min_side,
        notes=(*photo.notes, *forecast.notes, *notes, *_octave_notes(recipe, size, network.card.min_side)),
        output=output,
        bits=bits,
        own=bound_norm(recipe.norm),
    )


def _on_disk(
    found: _Found,
    network: Network,
    forecast: Forecast,
    cluster: str | None,
    output: Path | None,
    bits: Literal[8, 16],
    notes: tuple[str, ...],
) -> Job:
    from phosphene.disk.plan import Plan, disk_bytes, place
    from phosphene.disk.run import DiskJob

    recipe, device = forecast.recipe, str(found.device)
    photo = found.photo or streaming.look(found.source, max(forecast.allowed, 0))
    plan = Plan(
        recipe=recipe,
        made=_made(found, photo.sha256, recipe, network),
        place=str(Path.cwd()),
        output=None if output is None else str(output),
        bits=bits,
        device=device,
        has_alpha=photo.alpha is not None if isinstance(photo, Photo) else photo.has_alpha,
    )
    _check_recipe(output, recipe, plan.made)
    needed = disk_bytes(recipe, found.source_size, found.size, forecast.scoring.gradients) + forecast.at_cuts
    scratch = place(plan, needed)
    way = (
        f"streamed by way of {scratch.path}: up to {spell_bytes(needed)} on disk and "
        f"{spell_bytes(forecast.peak)} of memory, {describe_stages(recipe)}"
    )
    notes = (way, *notes, *_octave_notes(recipe, found.size, network.card.min_side))
    workers, own = _workers(cluster, device), bound_norm(recipe.norm)
    return DiskJob(recipe, plan.made, notes, plan, scratch, found.rng, found.photo, workers, own, new=True)


def _workers(cluster: str | None, device: str) -> Callable[[], AbstractContextManager[Map]]:
    if cluster is None:
        return lambda: nullcontext(map)
    from phosphene.cluster import cluster_map

    return partial(cluster_map, cluster, device)


def _made(found: _Found, sha256: str, recipe: Recipe, network: Network) -> Made:
    return Made(
        source=found.source,
        source_sha256=sha256,
        source_size=found.source_size,
        size=found.size,
        weights=network.weights,
        guide_sha256=imagefile.checksum(recipe.guide) if recipe.guide else None,
        mask_sha256=mask_checksum(recipe.mask, found.size),
        device=describe_device(found.device),
        versions=versions(),
    )


def _check_recipe(output: Path | None, recipe: Recipe, made: Made) -> None:
    if output is not None:
        imagefile.check_recipe(output, provenance.to_toml(recipe, made))


def _layer_notes(asked: Recipe, chosen: Recipe) -> tuple[str, ...]:
    if asked.objective.terms:
        return ()
    return (f"no layer was asked for, so {chosen.layers[0]} is maximised; `phosphene layers` lists all",)


def _octave_notes(recipe: Recipe, size: Size, min_side: int) -> tuple[str, ...]:
    left = len(octave_sizes(size, recipe.octaves, recipe.octave_scale, min_side))
    if left == recipe.octaves:
        return ()
    return (
        f"{recipe.model} sees nothing below {min_side} px, so this {size[1]} x {size[0]} px picture has {left} of "
        f"{recipe.octaves} octaves",
    )


def differences(then: Made, now: Made) -> list[str]:
    """Return why a replay may not give the same pixels, a sentence each."""
    kept = {
        "source_sha256": "the photograph is not the one that the recipe was made with",
        "guide_sha256": "the guide is not the one that the recipe was made with",
        "mask_sha256": "the mask is not the one that the recipe was made with",
        "weights": "the weights are not those that the recipe was made with",
        "device": "it was computed on another device",
        "versions": "it was computed with other versions",
    }
    return [
        f"{sentence} ({_told(then, name)}; here {_told(now, name)})"
        for name, sentence in kept.items()
        if getattr(then, name) != getattr(now, name)
    ]


def _told(made: Made, name: str) -> str:
    """A fact as people read it; of a checksum, the first letters."""
    value = str(getattr(made, name))
    return value[:12] if name.endswith("sha256") else value
