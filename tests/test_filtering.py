"""Minimal filtering against the filter itself, and the vectors of kernels against numpy."""

import numba
import numpy as np
import pytest
import torch

from phosphene.engine.cpu.gemm import HALF, PANEL, ROWS, multiply, multiply_and_clamp
from phosphene.engine.cpu.toom_cook import MOST_TAPS, adjoint, beyond, can_filter, filtering, places_of
from phosphene.engine.cpu.vectors import LANES, linear_map, load, load_where, store, store_clamped, store_shifted

RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", range(1, MOST_TAPS + 1))
def test_few_multiplications_give_the_filters_outputs(taps, stride):
    matrices, places = filtering(taps, stride), places_of(taps, stride)
    kernel, inputs = RANDOM.standard_normal(taps), RANDOM.standard_normal(matrices.analysis.shape[1])
    found = matrices.synthesis @ ((matrices.kernel @ kernel) * (matrices.analysis @ inputs))
    wanted = [inputs[start : start + taps] @ kernel for start in range(0, places * stride, stride)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)
    assert matrices.step == places * stride


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", range(1, MOST_TAPS + 1))
def test_the_adjoint_hands_each_output_to_what_it_saw(taps, stride):
    matrices, places, before = adjoint(taps, stride), places_of(taps, stride), beyond(taps, stride)
    kernel, slopes = RANDOM.standard_normal(taps), RANDOM.standard_normal(before + 2 * places)
    handed = np.zeros(stride * (before + 2 * places) + taps)
    for place, slope in enumerate(slopes):
        handed[stride * place : stride * place + taps] += slope * kernel
    for window in range(2):
        seen = slopes[window * matrices.step :][: places + before]
        found = matrices.synthesis @ ((matrices.kernel @ kernel) * (matrices.analysis @ seen))
        wanted = handed[stride * (before + window * places) :][: stride * places]
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


def test_multiplications_of_a_window():
    """3 taps: 6 in place of 12, and with stride 2 the even taps' 3 and the odd one's 2, in place of 6."""
    found = {(taps, stride): len(filtering(taps, stride).kernel) for taps in (1, 3, 5, 7) for stride in (1, 2)}
    assert found == {(1, 1): 1, (1, 2): 1, (3, 1): 6, (3, 2): 5, (5, 1): 8, (5, 2): 7, (7, 1): 10, (7, 2): 9}


def test_three_taps_have_the_matrices_of_lavin_and_gray():
    """Section 4.2."""
    kernel = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6]]
    kernel += [[1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
    analysis = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
    analysis += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
    synthesis = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    np.testing.assert_allclose(filtering(3, 1).kernel, kernel)
    np.testing.assert_array_equal(filtering(3, 1).analysis, analysis)
    np.testing.assert_array_equal(filtering(3, 1).synthesis, synthesis)


@pytest.mark.parametrize(
    ("taps", "stride"), [((3, 3), (1, 1)), ((2, 5), (1, 1)), ((1, 7), (1, 1)), ((7, 7), (2, 2)), ((2, 1), (2, 2))]
)
def test_kernels_that_are_filtered(taps, stride):
    assert can_filter(taps, stride)


@pytest.mark.parametrize(
    ("taps", "stride"), [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((3, 7), (1, 1)), ((7, 7), (1, 2)), ((1, 8), (1, 1))]
)
def test_kernels_that_are_not_filtered(taps, stride):
    assert not can_filter(taps, stride)


MATRICES = {
    1: np.array([[1.0]]),
    2: np.array([[0.5, -1.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, -3.0]]),
    3: np.array([[2.0, 1.0, 1.0, 0.0], [-1.0, 2.0, -2.0, 0.25]]),
    4: RANDOM.standard_normal((5, 7)),
    5: filtering(7, 1).analysis,
    6: filtering(7, 1).synthesis,
    7: adjoint(1, 2).synthesis,
}


@pytest.mark.parametrize("key", MATRICES)
def test_vectors_are_multiplied_by_a_matrix(key):
    mapped, count = linear_map(MATRICES.__getitem__), MATRICES[key].shape[1]

    @numba.njit
    def kernel(source, found):
        store(found, 0, LANES, mapped(key, load(source, 0, LANES, count)))

    source, found = numbers(count, LANES), np.empty((len(MATRICES[key]), LANES), np.float32)
    kernel(source.ravel(), found.ravel())
    np.testing.assert_allclose(found, MATRICES[key] @ source.astype(np.float64), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("halves", [0, 1, 2, 5])
@pytest.mark.parametrize("depth", [1, 3, 4, 5, 18])
@pytest.mark.parametrize("width", [1, 2])
def test_blocks_of_a_product(width, depth, halves):
    @numba.njit
    def kernel(a, b, out):
        multiply(halves, a, 2, depth + 1, b, 1, depth, out, 3, PANEL + 5, width)

    a, b = numbers(3 * ROWS, depth + 1), numbers(depth, width * LANES)
    out = np.zeros((3 * ROWS, PANEL + 5), np.float32)
    wanted = out.copy()
    wanted[: halves * HALF, : width * LANES] = a[: halves * HALF, :depth] @ b
    outer = np.zeros(3 + out.size, np.float32)
    kernel(np.concatenate([numbers(2), a.ravel()]), np.concatenate([numbers(1), b.ravel()]), outer)
    np.testing.assert_allclose(outer[3:].reshape(out.shape), wanted, rtol=1e-4, atol=1e-5)
    assert not outer[:3].any()


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("clamps", [False, True])
@pytest.mark.parametrize("width", [1, 2])
def test_a_product_is_added_to_and_clamped(width, clamps, adds):
    @numba.njit
    def kernel(a, b, shift, other, out, mask):
        low, high = np.float32(0), np.float32(2)
        multiply_and_clamp(2, a, 5, b, 0, 5, shift, 1, other, low, high, out, mask, LANES, 3 * LANES, width)

    shape, block = (2 * ROWS, 3 * LANES), (slice(None), slice(LANES, LANES + width * LANES))
    a, b, shift, other = numbers(2 * ROWS, 5), numbers(5, width * LANES), numbers(1 + width * LANES), numbers(*shape)
    out, mask = torch.full(shape, 7.0).numpy(), np.ones(shape, bool)
    a[3, 2] = np.nan
    wanted, through = out.copy(), mask.copy()
    total = a.astype(np.float64) @ b + shift[1:] + (other[block] if adds else 0)
    wanted[block] = np.clip(total, 0, 2) if clamps else total
    through[block] = (total > 0) & (total < 2)
    kernel(
        a.ravel(), b.ravel(), shift, other.ravel()[: adds * other.size], out.ravel(), mask.ravel()[: clamps * mask.size]
    )
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mask, through if clamps else np.ones(shape, bool))


def test_numbers_outside_a_mask_are_zero():
    @numba.njit
    def kernel(source, mask, found):
        store(found, 1, LANES + 1, load_where(source, 2, LANES, mask, 1, 2 * LANES, 2))

    source, mask = numbers(2 + 2 * LANES), RANDOM.random(1 + 3 * LANES) < 0.5
    passed = np.concatenate([mask[1 : 1 + LANES], mask[1 + 2 * LANES :]])
    source[2:][~passed] = np.nan
    found = np.zeros(2 + 2 * LANES, np.float32)
    kernel(source, mask, found)
    kept = np.where(passed, source[2:], 0)
    np.testing.assert_array_equal(found, np.concatenate([[0], kept[:LANES], [0], kept[LANES:]]))


def test_a_sum_is_clamped_and_what_passed_is_noted():
    @numba.njit
    def kernel(values, shift, out, mask, plain):
        store_clamped(values, 0, shift, 1, np.float32(0), np.float32(2), out, mask, 1)
        store_shifted(values, 0, shift, 1, plain, 0)

    values, shift = numbers(LANES), numbers(LANES + 1)
    shift[1:5] = [-values[0], 2 - values[1], 9, -9]
    values[4] = np.nan
    out, mask = np.full(LANES + 1, 7, np.float32), np.ones(LANES + 1, bool)
    plain = np.empty(LANES, np.float32)
    kernel(values, shift, out, mask, plain)
    total = values + shift[1:]
    np.testing.assert_array_equal(plain, total)
    np.testing.assert_array_equal(out, [7, *np.clip(total, 0, 2)])
    np.testing.assert_array_equal(mask, [True, *((total > 0) & (total < 2))])
    assert np.isnan(out[5])
