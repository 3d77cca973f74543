"""Equal strength: found in few tries, on a gradient whose answer is known."""

from dataclasses import replace

import pytest
import torch

from phosphene.job import MemoryJob
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe
from phosphene.studies.run.calibrate import TOLERANCE, calibrated, next_step_size

RECIPE = Recipe(octaves=1, steps=4, step_size=0.01, norm="mean_abs", jitter=0, layers=("any",))


def job(gradient_of):
    image = torch.full((3, 8, 8), 0.5)
    made = Made(source="array", source_sha256="", source_size=(8, 8), size=(8, 8), weights="", device="", versions={})
    rng = torch.Generator().manual_seed(0)
    return MemoryJob(RECIPE, made, (), image, gradient_of, rng)


def consume(search):
    steps = 0
    while True:
        try:
            next(search)
        except StopIteration as end:
            return *end.value, steps
        steps += 1


def upwards(image, shift):
    return 1.0, torch.ones_like(image)


def restless(image, shift):
    """Up in one step and down in the next, more weakly: the change is less than step size times steps."""
    sign = -0.5 if float(image.mean()) > 0.5 else 1.0
    return 1.0, sign * torch.rand(image.shape, generator=torch.Generator().manual_seed(1))


def test_steps_that_agree_need_one_correction_and_the_power_law():
    dream, tries, steps = consume(calibrated(job(upwards), 0.1))
    assert float((dream.image - 0.5).mean()) == pytest.approx(0.1, rel=TOLERANCE)
    assert dream.recipe.step_size == pytest.approx(0.025, rel=TOLERANCE)
    assert tries[0] == (0.01, pytest.approx(0.04, rel=1e-4))
    assert steps == 4 * len(tries)
    assert len(tries) <= 3


def test_the_recipe_of_the_dream_is_what_was_dreamed():
    dream, tries, _ = consume(calibrated(job(restless), 0.05))
    best = min(tries, key=lambda each: abs(each[1] - 0.05))
    assert dream.recipe.step_size == best[0]
    assert float((dream.image - 0.5).square().mean().sqrt()) == pytest.approx(best[1], rel=1e-6)


def test_every_try_draws_the_same_random_numbers():
    shifts = []

    def noting(image, shift):
        shifts.append(shift)
        return upwards(image, shift)

    shaken = job(noting)
    _, tries, _ = consume(calibrated(replace(shaken, recipe=RECIPE.but(jitter=32)), 0.1))
    assert len(tries) > 1
    assert shifts == shifts[:4] * len(tries)


def test_without_a_wanted_change_the_recipe_is_dreamed_once():
    dream, tries, steps = consume(calibrated(job(upwards), None))
    assert (dream.recipe.step_size, len(tries), steps) == (0.01, 1, 4)


def test_a_change_out_of_reach_ends_with_the_nearest():
    dream, tries, _ = consume(calibrated(job(upwards), 0.9))
    assert float(dream.image.max()) == 1.0
    assert max(made for _, made in tries) == pytest.approx(0.5)


def test_the_secant_is_exact_on_a_power_law():
    def made(size):
        return 3 * size**0.7

    tries = [(size, made(size)) for size in (0.01, 0.02)]
    assert made(next_step_size(tries, 0.3)) == pytest.approx(0.3, rel=1e-3)


def test_no_change_at_all_does_not_divide_by_zero():
    assert 0 < next_step_size([(0.01, 0.0)], 0.1) <= 1
