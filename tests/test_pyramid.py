"""Octaves: their sizes, the detail between them, and that a dream of nothing is the photograph."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from phosphene.dreaming.pyramid import octave_sizes, reinject_detail
from phosphene.dreaming.render import render
from phosphene.recipe.settings import Recipe


def nothing(image, shift):
    return 0.0, torch.zeros_like(image)


def dream_of_nothing(photograph: torch.Tensor, **settings: object) -> torch.Tensor:
    recipe = Recipe(steps=1, **settings)
    *_, last = render(photograph, nothing, recipe, torch.Generator().manual_seed(0))
    return last.image


def test_sizes_by_hand():
    assert octave_sizes((100, 60), 4, 2.0) == [(12, 8), (25, 15), (50, 30), (100, 60)]


def test_the_smallest_are_left_out():
    assert octave_sizes((100, 60), 4, 2.0, min_side=15) == [(25, 15), (50, 30), (100, 60)]


def test_the_last_is_never_left_out():
    assert octave_sizes((10, 6), 5, 1.4, min_side=75) == [(10, 6)]


def test_one_pixel():
    assert octave_sizes((1, 1), 30, 4.0)[-1] == (1, 1)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    octaves=st.integers(1, 30),
    scale=st.floats(1, 4, exclude_min=True),
    min_side=st.integers(1, 300),
)
def test_sizes_grow_and_end_at_the_exact_size(size, octaves, scale, min_side):
    sizes = octave_sizes(size, octaves, scale, min_side)
    assert sizes[-1] == size
    assert 1 <= len(sizes) <= octaves
    assert all(a <= b for smaller, larger in itertools.pairwise(sizes) for a, b in zip(smaller, larger, strict=True))
    assert all(min(coarse) >= min_side for coarse in sizes[:-1])
    for k, coarse in enumerate(reversed(sizes)):
        assert np.abs(np.array(coarse) * scale**k - np.array(size)).max() <= scale**k / 2 * (1 + 1e-9)


def numpy_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge bilinearly: a pixel's value holds at its centre, and beyond the outer centres."""
    for axis, new in ((1, size[0]), (2, size[1])):
        old = image.shape[axis]
        at = (np.arange(new) + 0.5) * old / new - 0.5
        image = np.apply_along_axis(lambda line, at=at, old=old: np.interp(at, np.arange(old), line), axis, image)
    return image


def test_detail_is_the_photograph_less_its_smaller_self(photo):
    dream, previous, base = photo(5, 7, seed=1), photo(5, 7, seed=2), photo(9, 12, seed=3)
    expected = numpy_resize(dream.numpy(), (9, 12)) + base.numpy() - numpy_resize(previous.numpy(), (9, 12))
    assert expected.min() < 0
    assert expected.max() > 1
    np.testing.assert_allclose(reinject_detail(dream, base, previous), np.clip(expected, 0, 1), atol=1e-12)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    size=st.tuples(st.integers(1, 513), st.integers(1, 77)),
    octaves=st.integers(1, 8),
    scale=st.floats(1.1, 4),
)
@hypothesis.example(size=(1, 1), octaves=5, scale=1.4)
@hypothesis.example(size=(513, 77), octaves=8, scale=1.3)
@hypothesis.example(size=(77, 1), octaves=4, scale=2.0)
def test_a_dream_of_nothing_is_the_photograph(photo, size, octaves, scale):
    photograph = photo(*size, torch.float32)
    dream = dream_of_nothing(photograph, octaves=octaves, octave_scale=scale)
    torch.testing.assert_close(dream, photograph, rtol=0, atol=3e-6)


def test_without_detail_it_is_not(photo):
    photograph = photo(65, 40, torch.float32)
    dream = dream_of_nothing(photograph, octaves=4, detail=False)
    assert (dream - photograph).abs().mean() > 0.05


@pytest.mark.parametrize("detail", [True, False])
def test_one_octave_has_lost_nothing(photo, detail):
    photograph = photo(33, 20, torch.float32)
    assert torch.equal(dream_of_nothing(photograph, octaves=1, detail=detail), photograph)
