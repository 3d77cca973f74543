"""What one frame's dream passes on to the next: carried along the motion, at constant strength."""

from dataclasses import dataclass, replace

import torch

from phosphene.dreaming.strength import POWER, held, rms_change
from phosphene.film.motion import Flow, consistency_mask, is_cut, softened, warp
from phosphene.job import MemoryJob
from phosphene.recipe.settings import Ascent
from phosphene.types import Image, Plane

HOLD = 0.1
"""The weight of steps where a dream was carried over; it is 1 where pixels were just uncovered."""

SETTLING = 4
"""Frames after which what was uncovered counts as dreamed."""


@dataclass(frozen=True)
class Carried:
    """A frame and its dream, of 8 bits, as the frame after it needs them.

    `settled` says, 0..1, where the dream is as old as the scene or `SETTLING` frames. `strength` is the scene's:
    its first change for the drive (`Ascent.drive`) that made it, to the power by which the one follows the other.
    """

    frame: Image
    dream: Image
    settled: Plane
    strength: float

    def change(self, settings: Ascent) -> float:
        """The change, as `rms_change`, that the scene's next dream is held at."""
        return float(self.strength * settings.drive**POWER)


@dataclass(frozen=True)
class Start:
    """Where a frame's dream starts: the frame with what was carried to it, and how much of a step each place takes."""

    image: Image
    weight: Plane
    settled: Plane


def carry(last: Carried, frame: Image, flow: Flow) -> Start | None:
    """Bring what the last dream added to where it is now; None if `frame` begins a new scene."""
    backward, forward = flow(frame, last.frame), flow(last.frame, frame)
    seen = consistency_mask(backward, forward)
    if is_cut(seen):
        return None
    seen = softened(seen)
    added = seen * warp(last.dream - last.frame, backward)
    settled = (seen * warp(last.settled[None], backward)[0]).clamp(0, 1)
    return Start((frame + added).clamp(0, 1), 1 - (1 - HOLD) * settled, settled)


def first_of_scene(job: MemoryJob, dream: Image, change: float | None) -> Carried:
    """Take a whole dream as the first of a scene: its change, or the one given, is the scene's."""
    frame, mask = job.image.cpu(), _on_cpu(job.mask)
    dream = levelled(held(dream, frame, change, mask))
    strength = rms_change(dream, frame) / job.recipe.drive**POWER
    return Carried(frame, dream, torch.ones(frame.shape[1:]), strength)


def after(last: Carried, start: Start, job: MemoryJob, dream: Image, change: float | None) -> Carried:
    """Hold a dream that began at `start` at its scene's strength, or at the change given."""
    frame, mask = job.image.cpu(), _on_cpu(job.mask)
    dream = levelled(held(dream, frame, last.change(job.recipe) if change is None else change, mask))
    return Carried(frame, dream, levelled((start.settled + 1 / SETTLING).clamp(max=1)), last.strength)


def few_steps(job: MemoryJob, start: Start, steps: int, octaves: int) -> MemoryJob:
    """Return the job that dreams on from `start`, in the last octaves only."""
    recipe = job.recipe.but(steps=min(steps, job.recipe.steps), octaves=min(octaves, job.recipe.octaves))
    weight = start.weight.to(job.image.device)
    return replace(
        job,
        recipe=recipe,
        image=start.image.to(job.image.device),
        mask=weight if job.mask is None else weight * job.mask,
    )


def levelled(picture: torch.Tensor) -> torch.Tensor:
    """Round to 8 bits: what is carried is what is written, so that a film goes on from its files."""
    return (picture.clamp(0, 1) * 255).round() / 255


def _on_cpu(mask: Plane | None) -> Plane | None:
    return None if mask is None else mask.cpu()
