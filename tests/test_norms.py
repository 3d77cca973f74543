"""What a gradient is divided by, against NumPy."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.ndimage
import torch

from phosphene.dreaming.norms import NORMS, normalise
from phosphene.recipe.settings import Ascent

SIZES = [(1, 1), (1, 7), (5, 1), (33, 18)]


def gradient(size: tuple[int, int], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    return torch.randn(3, *size, generator=rng, dtype=torch.float64).mul(1e-3).add(2e-4).to(dtype)


def numpy_laplacian(g: np.ndarray) -> np.ndarray:
    """Split in four, divide each band by its root mean square, add up, divide by the mean of the absolute."""

    def reduced(x: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            x = scipy.ndimage.correlate1d(x, np.array([1, 4, 6, 4, 1]) / 16, axis, mode="nearest")
        return x[:, ::2, ::2]

    def expanded(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        at = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]) / 2, np.arange(shape[2]) / 2, indexing="ij")
        return scipy.ndimage.map_coordinates(x, at, order=1, mode="nearest")

    levels = [g]
    while len(levels) < 4 and min(levels[-1].shape[1:]) > 1:
        levels.append(reduced(levels[-1]))
    bands = [fine - expanded(low, fine.shape) for fine, low in itertools.pairwise(levels)]
    bands = [band / np.sqrt(np.mean(band**2)) for band in [*bands, levels[-1]]]
    total = bands[-1]
    for band in reversed(bands[:-1]):
        total = band + expanded(total, band.shape)
    return total / np.mean(np.abs(total))


EXPECTED = {
    "mean_abs": lambda g: g / np.mean(np.abs(g)),
    "std": lambda g: g / np.std(g),
    "laplacian": numpy_laplacian,
}


def test_the_settings_offer_these_norms():
    assert set(NORMS) == set(EXPECTED) == set(Ascent.model_fields["norm"].annotation.__args__)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", EXPECTED)
def test_norm_is_numpys(norm, size):
    g = gradient(size)
    np.testing.assert_allclose(normalise(g, NORMS[norm]), EXPECTED[norm](g.numpy()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", EXPECTED)
def test_zero_stays_zero(norm, size, dtype):
    assert torch.equal(normalise(torch.zeros(3, *size, dtype=dtype), NORMS[norm]), torch.zeros(3, *size, dtype=dtype))


@pytest.mark.parametrize("norm", EXPECTED)
@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(exponent=st.integers(-9, 9))
def test_the_gradients_scale_does_not_matter(norm, exponent):
    g = gradient((17, 12), torch.float32)
    torch.testing.assert_close(
        normalise(g * 10.0**exponent, NORMS[norm]), normalise(g, NORMS[norm]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", ["mean_abs", "laplacian"])
def test_the_mean_absolute_value_is_one(norm, size):
    assert normalise(gradient(size), NORMS[norm]).abs().mean().item() == pytest.approx(1, abs=1e-12)


def test_the_deviation_is_one():
    assert np.std(normalise(gradient((20, 21)), NORMS["std"]).numpy()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("norm", EXPECTED)
def test_the_sign_stays(norm):
    g = gradient((16, 16))
    torch.testing.assert_close(normalise(-g, NORMS[norm]), -normalise(g, NORMS[norm]))
