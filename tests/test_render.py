"""The story of a dream: its events, its sizes, its colours, and that no setting is ignored."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phosphene.dreaming.objective import Energy, Scoring
from phosphene.dreaming.pyramid import octave_sizes
from phosphene.dreaming.render import render, with_chroma_of
from phosphene.dreaming.resample import resize
from phosphene.dreaming.stages import whole_image_gradient
from phosphene.recipe.settings import Ascent, Octaves, Recipe


@pytest.fixture(scope="session")
def gradient_of(hand):
    return whole_image_gradient(hand, Scoring((Energy("deep"),)))


def steps_of(photograph, gradient_of, recipe, **more):
    return list(render(photograph, gradient_of, recipe, torch.Generator().manual_seed(recipe.seed), **more))


def test_the_events(photo, gradient_of):
    steps = steps_of(photo(40, 30), gradient_of, Recipe(octaves=3, octave_scale=2.0, steps=4))
    assert [(s.octave, s.step) for s in steps] == [(o, s) for o in (1, 2, 3) for s in (1, 2, 3, 4)]
    assert {(s.octaves, s.steps) for s in steps} == {(3, 4)}
    assert [tuple(s.image.shape) for s in steps[::4]] == [(3, 10, 8), (3, 20, 15), (3, 40, 30)]
    pixels = np.cumsum(np.repeat([10 * 8, 20 * 15, 40 * 30], 4))
    assert [s.progress for s in steps] == pytest.approx(pixels / pixels[-1])
    assert steps[-1].progress == 1
    assert steps[-1].seconds_left == 0
    assert [s.is_last for s in steps] == [False] * 11 + [True]
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(steps))
    assert steps[0].seconds_left == pytest.approx(steps[0].seconds * (1 / steps[0].progress - 1))


def test_octaves_below_the_networks_sight_are_left_out(photo, gradient_of):
    steps = steps_of(photo(40, 30), gradient_of, Recipe(octaves=5, octave_scale=2.0, steps=1), min_side=15)
    assert [tuple(s.image.shape[1:]) for s in steps] == [(20, 15), (40, 30)]
    assert [s.octaves for s in steps] == [2, 2]
    assert steps[-1].progress == 1


def test_the_score_is_that_before_the_step(photo, gradient_of):
    photograph = photo(20, 16)
    steps = steps_of(photograph, gradient_of, Recipe(octaves=1, steps=3, jitter=0))
    seen = [photograph, *(s.image for s in steps[:-1])]
    assert [s.score for s in steps] == pytest.approx([gradient_of(image, (0, 0))[0] for image in seen])


def by_hand(photograph, gradient_of, recipe, mask=None):
    """The whole loop once more, for a plain norm and no jitter, in NumPy but for the resizing and the gradient."""
    sizes = octave_sizes(tuple(photograph.shape[1:]), recipe.octaves, recipe.octave_scale)
    base = resize(photograph, sizes[0]).numpy()
    dream = base
    for size in sizes:
        previous, base = base, resize(photograph, size).numpy()
        dream = resize(torch.from_numpy(dream), size).numpy()
        dream = np.clip(dream + base - resize(torch.from_numpy(previous), size).numpy(), 0, 1)
        where = 1 if mask is None else resize(mask[None], size)[0].numpy()
        for _ in range(recipe.steps):
            gradient = gradient_of(torch.from_numpy(dream), (0, 0))[1].numpy()
            dream = np.clip(dream + recipe.step_size * where * gradient / np.abs(gradient).mean(), 0, 1)
    return dream


@pytest.mark.parametrize("masked", [False, True])
def test_the_whole_loop_by_hand(photo, gradient_of, masked):
    """All octaves count, the last one's steps too; a mask is resized with them."""
    photograph, recipe = photo(37, 26), Recipe(octaves=3, steps=3, norm="mean_abs", jitter=0, step_size=0.03)
    mask = photo(37, 26, seed=9)[0] if masked else None
    steps = steps_of(photograph, gradient_of, recipe, mask=mask)
    np.testing.assert_allclose(steps[-1].image, by_hand(photograph, gradient_of, recipe, mask), atol=1e-12)
    assert (steps[-1].image - steps[-2].image).abs().mean() > 0.01


def test_where_the_mask_is_black_the_photograph_stays(photo, gradient_of):
    photograph, mask = photo(60, 40), torch.ones(60, 40, dtype=torch.float64)
    mask[30:] = 0
    last = steps_of(photograph, gradient_of, Recipe(octaves=3, steps=2), mask=mask)[-1].image
    torch.testing.assert_close(last[:, 36:], photograph[:, 36:], rtol=0, atol=1e-12)
    assert (last - photograph)[:, :24].abs().mean() > 0.01


TO_YCBCR = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ]
)
"""ITU-R BT.601 for full-range R'G'B', written from its definition: Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402."""


def test_the_photographs_chroma_and_the_dreams_luma(photo):
    photograph, dream = photo(30, 20, seed=1), photo(30, 20, seed=2)
    both = with_chroma_of(photograph, dream).numpy()
    ycbcr = np.einsum("yc,chw->yhw", TO_YCBCR, dream.numpy())
    ycbcr[1:] = np.einsum("yc,chw->yhw", TO_YCBCR, photograph.numpy())[1:]
    expected = np.einsum("cy,yhw->chw", np.linalg.inv(TO_YCBCR), ycbcr)
    assert expected.min() < 0
    assert expected.max() > 1
    np.testing.assert_allclose(both, np.clip(expected, 0, 1), atol=1e-12)


def test_colour_original_keeps_the_photographs(photo, gradient_of):
    photograph = photo(24, 18) * 0.2 + 0.4
    recipe = Recipe(octaves=2, steps=3, step_size=0.005)
    original = steps_of(photograph, gradient_of, recipe.but(colour="original"))
    dreamed = steps_of(photograph, gradient_of, recipe)
    for kept, free in zip(original, dreamed, strict=True):
        base = resize(photograph, tuple(kept.image.shape[1:])).numpy()
        # The steps themselves are the same: only what is shown differs.
        np.testing.assert_allclose(
            TO_YCBCR[0] @ kept.image.flatten(1).numpy(), TO_YCBCR[0] @ free.image.flatten(1).numpy()
        )
        chroma = np.einsum("yc,chw->yhw", TO_YCBCR[1:], kept.image.numpy() - base)
        assert np.abs(chroma).max() < 1e-12
    assert np.abs(np.einsum("yc,chw->yhw", TO_YCBCR[1:], (dreamed[-1].image - photograph).numpy())).max() > 0.01


CHANGES = {
    "octaves": 2,
    "octave_scale": 1.7,
    "detail": False,
    "steps": 3,
    "step_size": 0.01,
    "schedules": ("step_size=0.01",),
    "norm": "mean_abs",
    "jitter": 3,
    "blur": 0.7,
    "colour": "original",
    "seed": 1,
}


def test_no_setting_is_forgotten_here():
    assert set(CHANGES) == {*Octaves.model_fields, *Ascent.model_fields, "colour", "seed"}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_dream(photo, gradient_of, name):
    recipe = Recipe(octaves=3, steps=2)
    assert getattr(recipe, name) != CHANGES[name]
    before = steps_of(photo(33, 27), gradient_of, recipe)[-1].image
    after = steps_of(photo(33, 27), gradient_of, recipe.but(**{name: CHANGES[name]}))[-1].image
    assert (after - before).abs().max() > 1e-4


def test_the_same_recipe_gives_the_same_bits(photo, gradient_of):
    first, second = (steps_of(photo(33, 27), gradient_of, Recipe(octaves=3, steps=2)) for _ in range(2))
    assert all(torch.equal(a.image, b.image) and a.score == b.score for a, b in zip(first, second, strict=True))


@given(
    height=st.integers(1, 513),
    width=st.integers(1, 77),
    octaves=st.integers(1, 4),
    octave_scale=st.floats(1.05, 3),
    norm=st.sampled_from(["mean_abs", "std", "laplacian"]),
    jitter=st.integers(0, 40),
    blur=st.sampled_from([0.0, 0.7]),
    detail=st.booleans(),
    colour=st.sampled_from(["dream", "original"]),
)
@example(
    height=1,
    width=1,
    octaves=3,
    octave_scale=1.4,
    norm="laplacian",
    jitter=32,
    blur=0.7,
    detail=True,
    colour="original",
)
@example(
    height=513,
    width=77,
    octaves=4,
    octave_scale=1.4,
    norm="laplacian",
    jitter=32,
    blur=0.0,
    detail=True,
    colour="dream",
)
@settings(max_examples=40, deadline=None)
def test_any_size_and_settings_give_a_picture_of_that_size(photo, gradient_of, height, width, **given_settings):
    recipe = Recipe(steps=1, **given_settings)
    *_, last = steps_of(photo(height, width), gradient_of, recipe)
    assert last.is_last
    assert last.image.shape == (3, height, width)
    assert torch.isfinite(last.image).all()
    assert 0 <= last.image.min() <= last.image.max() <= 1
