"""Resizing, rolling, blurring and Laplacian bands, each against NumPy or SciPy."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.ndimage
import torch

from phosphene.dreaming.resample import blur, laplacian_bands, merge_bands, resize

SIZES = [(1, 1), (1, 9), (8, 1), (2, 2), (13, 8), (31, 47)]
side = st.integers(1, 40)


def triangle_weights(length: int, new_length: int) -> np.ndarray:
    """A row for each new pixel: a triangle over the old pixels beneath it, at least one old pixel to each side."""
    scale = length / new_length
    centres = (np.arange(new_length) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True)


def numpy_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (triangle_weights(old, new) for old, new in zip(image.shape[1:], size, strict=True))
    return np.einsum("ih,chw,jw->cij", rows, image, columns)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(size=st.tuples(side, side), new_size=st.tuples(side, side))
@hypothesis.example(size=(9, 1), new_size=(4, 1))
@hypothesis.example(size=(4, 9), new_size=(9, 1))
@hypothesis.example(size=(5, 3), new_size=(1, 1))
def test_resize_is_a_triangle_over_the_footprint(photo, size, new_size):
    image = photo(*size)
    np.testing.assert_allclose(resize(image, new_size), numpy_resize(image.numpy(), new_size), atol=1e-12)


def test_resize_to_the_same_size_changes_no_bit(photo):
    image = photo(7, 5, torch.float32)
    assert torch.equal(resize(image, (7, 5)), image)


def test_resize_does_not_alias():
    """Stripes of one pixel become grey; sampling without a footprint keeps them black or white."""
    stripes = (torch.arange(64) % 2).double().expand(3, 64, 64)
    inner = resize(stripes, (16, 16))[:, 2:-2, 2:-2]
    assert torch.allclose(inner, torch.full_like(inner, 0.5), atol=1e-12)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 2.3, 6.0])
@pytest.mark.parametrize("size", SIZES)
def test_blur_is_scipys(photo, size, sigma):
    image = photo(*size)
    expected = scipy.ndimage.gaussian_filter(
        image.numpy(), sigma, mode="nearest", radius=max(1, round(3 * sigma)), axes=(1, 2)
    )
    np.testing.assert_allclose(blur(image, sigma), expected, atol=1e-12)


def test_blur_of_zero_changes_no_bit(photo):
    image = photo(7, 5, torch.float32)
    assert torch.equal(blur(image, 0.0), image)


def numpy_bands(image: np.ndarray, bands: int) -> list[np.ndarray]:
    """Smooth, take each second pixel, and subtract what linear interpolation between those makes of them."""
    parts = []
    while len(parts) < bands - 1 and min(image.shape[1:]) > 1:
        low = image
        for axis in (1, 2):
            low = scipy.ndimage.correlate1d(low, np.array([1, 4, 6, 4, 1]) / 16, axis, mode="nearest")
        low, expanded = low[:, ::2, ::2], low[:, ::2, ::2]
        for axis in (1, 2):
            at, known = np.arange(image.shape[axis]), np.arange(0, image.shape[axis], 2)
            expanded = np.apply_along_axis(lambda line, at=at, known=known: np.interp(at, known, line), axis, expanded)
        parts.append(image - expanded)
        image = low
    return [*parts, image]


@pytest.mark.parametrize("bands", [1, 2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_bands_are_numpys(photo, size, bands):
    image = photo(*size)
    ours, theirs = laplacian_bands(image, bands), numpy_bands(image.numpy(), bands)
    assert len(ours) == len(theirs)
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-12)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(size=st.tuples(side, side), bands=st.integers(1, 6))
def test_bands_merge_to_the_image(photo, size, bands):
    image = photo(*size)
    before, split = image.clone(), laplacian_bands(image, bands)
    assert torch.equal(image, before)
    copies = [band.clone() for band in split]
    merged = merge_bands(split)
    assert all(map(torch.equal, split, copies))
    assert merged.shape == image.shape
    np.testing.assert_allclose(merged, image, atol=1e-13)


@pytest.mark.parametrize("smooth", [lambda image: blur(image, 1.5), lambda image: laplacian_bands(image, 2)[0]])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_window_has_the_same_bits(photo, smooth, threads):
    """What streams looks at windows, and has to find what the whole picture has (decision 0021)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        image = photo(211, 307, torch.float32)
        whole = smooth(image)
        for top, left, height, width in [(2, 4, 33, 40), (16, 32, 129, 101), (100, 130, 77, 177), (190, 8, 21, 22)]:
            window = smooth(image[:, top : top + height, left : left + width].contiguous())
            inner = whole[:, top : top + height, left : left + width][:, 6:-6, 6:-6]
            assert torch.equal(window[:, 6:-6, 6:-6], inner)
    finally:
        torch.set_num_threads(before)


def test_a_slope_has_no_fine_band():
    """Linear interpolation keeps a slope, if its samples are put back where they were taken."""
    slope = torch.arange(40.0, dtype=torch.float64).expand(3, 40, 40)
    fine = laplacian_bands(slope, 3)[0]
    assert fine[:, :, 4:-4].abs().max() < 1e-12


def test_a_flat_image_has_only_its_last_band():
    *fine, low = laplacian_bands(torch.full((3, 21, 17), 0.3, dtype=torch.float64), 4)
    assert all(band.abs().max() < 1e-15 for band in fine)
    assert torch.allclose(low, torch.full_like(low, 0.3))
