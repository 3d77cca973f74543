"""Equal strength: the step size at which a dream changes the picture as much as is wanted.

Strength is what changed in the picture, its root-mean-square change, since the same step size and number of steps
move the pictures of two networks by different amounts: their gradients agree more or less from step to step.
"""

from collections.abc import Generator
from dataclasses import replace
from math import exp, log

from phosphene.dreaming.strength import POWER, rms_change
from phosphene.job import MemoryDream, MemoryJob
from phosphene.types import Step, Trace

TOLERANCE = 0.03
"""Largest relative distance from the wanted change that is good enough."""

TRIES = 6

Tries = tuple[tuple[float, float], ...]
"""Step sizes, and the changes that they made, in the order in which they were tried."""


def first_step_size(change: float, steps: int) -> float:
    """Guess the step size for a wanted change after so many steps in all; only the time to find it depends on it."""
    return float(f"{min(1.5 * change ** (1 / POWER) / steps**0.56, 1.0):.4g}")


def calibrated(job: MemoryJob, change: float | None) -> Generator[Step, None, tuple[MemoryDream, Tries]]:
    """Dream with the step size that makes the wanted change, or as the recipe says where `change` is None.

    Each try is a whole dream with the same random numbers; the one that came nearest is returned, with all tries.
    """
    best, tries = (yield from _dream(job)), list[tuple[float, float]]()
    tries.append((job.recipe.step_size, rms_change(best.image, best.photograph)))
    while change is not None and len(tries) < TRIES and not _near(tries, change):
        size = next_step_size(tries, change)
        if size in (tried for tried, _ in tries):
            break
        tried = yield from _dream(replace(job, recipe=job.recipe.but(step_size=size)))
        tries.append((size, rms_change(tried.image, tried.photograph)))
        if _distance(tries[-1], change) == min(_distance(each, change) for each in tries):
            best = tried
    return best, tuple(tries)


def next_step_size(tries: list[tuple[float, float]], change: float) -> float:
    """Return the step size to try next, rounded to four digits so that a person can type it; at most 1.

    The change grows about as a power of the step size, so the two nearest tries give the next by a secant on
    logarithms; the first, or two that contradict each other, by the power that is usual.
    """
    near = sorted(tries, key=lambda each: _distance(each, change))[:2]
    (size, made), slope = near[0], POWER
    if len(near) == 2 and near[0][0] != near[1][0] and near[0][1] != near[1][1]:
        slope = log(near[1][1] / made) / log(near[1][0] / size)
    power = 1 / slope if 0.2 < slope < 5 else 1 / POWER
    wanted = size * exp(max(-3.0, min(3.0, power * log(change / max(made, 1e-12)))))
    return float(f"{min(wanted, 1.0):.4g}")


def _dream(job: MemoryJob) -> Generator[Step, None, MemoryDream]:
    trace = Trace()
    for step in replace(job, rng=job.rng.clone_state()).steps():
        trace.add(step)
        yield step
    return job.dreamed(step.image, trace)


def _near(tries: list[tuple[float, float]], change: float) -> bool:
    return min(_distance(each, change) for each in tries) <= log(1 + TOLERANCE)


def _distance(tried: tuple[float, float], change: float) -> float:
    return abs(log(max(tried[1], 1e-12) / change))
