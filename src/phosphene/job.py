"""A recipe and a photograph in, a dream out. The command line, the studio and scripts all go through here."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from phosphene import imagefile
from phosphene.dreaming.pyramid import octave_sizes
from phosphene.dreaming.render import render
from phosphene.dreaming.resample import resize
from phosphene.errors import UsageError
from phosphene.imagefile import Photo
from phosphene.recipe import provenance as record
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe
from phosphene.setup.builders import bind, with_default_layer
from phosphene.setup.memory import budget
from phosphene.setup.preflight import Plan, patient_gradient_fn, plan_step
from phosphene.setup.session import (
    choose_device,
    describe_device,
    fitted_size,
    load_network,
    needs_top,
    seen_guide,
    versions,
)
from phosphene.types import GradientFn, Image, Plane, Step

Source = Any
"""A path, `sample:NAME`, `noise:HEIGHTxWIDTH`, a `Photo`, an `Image`, or anything that NumPy takes for a picture."""


@dataclass(frozen=True)
class Trace:
    """Step events without their pictures, one row a step: octave, step, score, seconds."""

    rows: list[tuple[int, int, float, float]] = field(default_factory=list)
    columns = ("octave", "step", "score", "seconds")

    def add(self, step: Step) -> None:
        """Note a step."""
        self.rows.append((step.octave, step.step, step.score, step.seconds))

    @property
    def scores(self) -> list[float]:
        """The score before each step."""
        return [row[2] for row in self.rows]


@dataclass(frozen=True)
class Dream:
    """A dreamed photograph: pixels, the recipe that makes it again, and how the score rose."""

    image: Image
    photograph: Image
    alpha: Plane | None
    recipe: Recipe
    made: Made
    trace: Trace

    def save(self, path: str | Path, *, bits: Literal[8, 16] = 8, overwrite: bool = False) -> Path:
        """Write the picture, in the format of its file's ending, with the recipe inside."""
        path = Path(path)
        imagefile.check_output(path, overwrite, bits=bits, size=self.made.size)
        text = record.to_toml(self.recipe, self.made)
        imagefile.write(path, self.image, alpha=self.alpha, recipe=text, bits=bits)
        return path

    def _repr_png_(self) -> bytes:
        return imagefile.encode(self.image)


@dataclass(frozen=True)
class Job:
    """All that a dream needs, ready to run."""

    recipe: Recipe
    made: Made
    photo: Photo
    image: Image
    alpha: Plane | None
    mask: Plane | None
    gradient_of: GradientFn
    rng: torch.Generator
    min_side: int
    plan: Plan

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to know before it runs, a sentence each."""
        size, wanted = self.made.size, self.recipe.octaves
        left = len(octave_sizes(size, wanted, self.recipe.octave_scale, self.min_side))
        if left == wanted:
            return self.plan.notes
        return (
            *self.plan.notes,
            f"{self.recipe.model} sees nothing below {self.min_side} px, "
            f"so {left} of {wanted} octaves of this {size[0]} x {size[1]} picture are dreamed",
        )

    def steps(self) -> Iterator[Step]:
        """Dream, step by step."""
        return render(self.image, self.gradient_of, self.recipe, self.rng, mask=self.mask, min_side=self.min_side)


def prepare(source: Source, recipe: Recipe, device: str = "auto", memory: str | None = None) -> Job:
    """Read the photograph, load the network and bind the two. All that can be wrong is found here.

    `memory` is what the process may take, as in `2GB`; without it, a safe share of what is free.
    """
    where = choose_device(device)
    rng = torch.Generator().manual_seed(recipe.seed)
    photo = read(source, rng)
    network = load_network(recipe.eye, recipe.seed, str(where), needs_top(recipe))
    recipe = with_default_layer(recipe, network)
    size = fitted_size(photo.image, recipe)
    mask = imagefile.read(recipe.mask) if recipe.mask is not None else None
    scoring = bind(recipe, network, seen_guide(recipe, where))
    plan = plan_step(network, scoring, recipe, size, budget(memory, where))
    recipe = recipe.but(tile=plan.tile)
    return Job(
        recipe=recipe,
        made=Made(
            source=photo.source,
            source_sha256=photo.sha256,
            source_size=(photo.image.shape[1], photo.image.shape[2]),
            size=size,
            weights=network.weights,
            guide_sha256=imagefile.checksum(recipe.guide) if recipe.guide else None,
            mask_sha256=mask.sha256 if mask else None,
            device=describe_device(where),
            versions=versions(),
        ),
        photo=photo,
        image=resize(photo.image, size).to(where),
        alpha=None if photo.alpha is None else resize(photo.alpha[None], size)[0],
        mask=imagefile.as_mask(mask, size).to(where) if mask else None,
        gradient_of=patient_gradient_fn(network, scoring, recipe, size),
        rng=rng,
        plan=plan,
        min_side=network.card.min_side,
    )


def run(job: Job, on_step: Callable[[Step], None] | None = None, stop: threading.Event | None = None) -> Dream:
    """Run a job to its end, or until `stop` is set; `on_step` hears of each step."""
    trace, image, unfinished = Trace(), job.image, None
    for step in job.steps():
        trace.add(step)
        image = step.image
        if on_step is not None:
            on_step(step)
        if stop is not None and stop.is_set() and not step.is_last:
            unfinished = f"stopped after step {step.step} of {step.steps} in octave {step.octave} of {step.octaves}"
            break
    return dreamed(job, image, trace, unfinished)


def dreamed(job: Job, image: Image, trace: Trace, unfinished: str | None = None) -> Dream:
    """Return a job's last image as its dream, at the full size; `unfinished` says where it was stopped."""
    return Dream(
        image=resize(image, job.made.size).clamp(0, 1).cpu(),
        photograph=job.image.cpu(),
        alpha=job.alpha,
        recipe=job.recipe,
        made=job.made.model_copy(update={"unfinished": unfinished}),
        trace=trace,
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
        f"{sentence} ({getattr(then, name)}; here {getattr(now, name)})"
        for name, sentence in kept.items()
        if getattr(then, name) != getattr(now, name)
    ]


def read(source: Source, rng: torch.Generator) -> Photo:
    """Read a photograph from a file, a sample, an array, or seeded noise; one that was read already stays as it is."""
    if isinstance(source, Photo):
        return source
    if isinstance(source, str) and source.startswith("noise:"):
        return Photo(_noise(source, rng), None, source, "", ())
    if isinstance(source, str | Path):
        return imagefile.read(source)
    pixels = source if isinstance(source, torch.Tensor) else _from_array(np.asarray(source))
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.is_floating_point():
        raise UsageError(
            f"a tensor of shape {tuple(pixels.shape)} and type {pixels.dtype} is not an image; "
            f"one is float, [3, height, width], 0 to 1"
        )
    pixels = pixels.detach().cpu().float().clamp(0, 1)
    return Photo(pixels, None, "array", hashlib.sha256(pixels.numpy().tobytes()).hexdigest(), ())


def _noise(source: str, rng: torch.Generator) -> Image:
    parts = source.removeprefix("noise:").split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"{source!r} is not a noise; one is spelt noise:HEIGHTxWIDTH, as in noise:480x640")
    height, width = map(int, parts)
    return (0.5 + 0.1 * torch.randn(3, height, width, generator=rng)).clamp(0, 1)


def _from_array(pixels: np.ndarray) -> torch.Tensor:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise UsageError(f"an array of shape {pixels.shape} is not an image; one is [height, width, 3]")
    limit = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    return torch.from_numpy(np.ascontiguousarray(pixels[:, :, :3]) / np.float32(limit)).permute(2, 0, 1)
