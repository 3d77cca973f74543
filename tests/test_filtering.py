"""Minimal filtering against the filter itself, and the vectors of kernels against numpy."""

import numba
import numpy as np
import pytest
import torch

from phosphene.engine.cpu import transform as transforms
from phosphene.engine.cpu.gemm import HALF_ROWS, PANEL, ROWS, Rows, gemm, gemm_with_epilogue
from phosphene.engine.cpu.toom_cook import MOST_TAPS, adjoint, adjoint_lookback, can_filter, filtering, outputs_per_tile
from phosphene.engine.cpu.transform import Columns, multiply_columns
from phosphene.engine.cpu.vectors import LANES, Epilogue, load, load_masked, store, store_result

RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", range(1, MOST_TAPS + 1))
def test_few_multiplications_give_the_filters_outputs(taps, stride):
    matrices, places = filtering(taps, stride), outputs_per_tile(taps, stride)
    kernel, inputs = RANDOM.standard_normal(taps), RANDOM.standard_normal(matrices.analysis.shape[1])
    found = matrices.synthesis @ ((matrices.kernel @ kernel) * (matrices.analysis @ inputs))
    wanted = [inputs[start : start + taps] @ kernel for start in range(0, places * stride, stride)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)
    assert matrices.step == places * stride


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", range(1, MOST_TAPS + 1))
def test_the_adjoint_hands_each_output_to_what_it_saw(taps, stride):
    matrices, places, before = adjoint(taps, stride), outputs_per_tile(taps, stride), adjoint_lookback(taps, stride)
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
    "1": np.array([[1.0]]),
    "2": np.array([[0.5, -1.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, -3.0]]),
    "3": np.array([[2.0, 1.0, 1.0, 0.0], [-1.0, 2.0, -2.0, 0.25]]),
    "4": RANDOM.standard_normal((5, 7)),
    "5": filtering(7, 1).analysis,
    "6": filtering(7, 1).synthesis,
    "7": adjoint(1, 2).synthesis,
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", MATRICES)
def test_columns_are_multiplied_by_a_matrix(name, masked, monkeypatch):
    monkeypatch.setattr(transforms, "matrix_of", MATRICES.__getitem__)
    matrix, count = MATRICES[name], 3

    @numba.njit
    def kernel(told):
        multiply_columns(name, told)

    source, mask = numbers(matrix.shape[1], count, LANES), RANDOM.random((matrix.shape[1], count, LANES)) < 0.5
    found = np.empty((len(matrix), count, LANES), np.float32)
    arrays = source.ctypes.data, mask.ctypes.data if masked else 0, found.ctypes.data
    told = np.array([*(number for array in arrays for number in (array, count * LANES, LANES)), count])
    kernel(told.ctypes.data)
    seen = np.where(mask, source, 0) if masked else source
    np.testing.assert_allclose(found, np.tensordot(matrix, seen.astype(np.float64), 1), rtol=1e-5, atol=1e-4)


def test_a_transform_is_called_by_its_address():
    address, matrix = transforms.transform_address("3 1 forward", "analysis"), filtering(3, 1).analysis

    @numba.njit
    def kernel(source, mask, found):
        transforms.transform(
            address, Columns(source, 0, LANES, 0), Columns(mask, 0, LANES, 0), Columns(found, LANES, LANES, 0), 1
        )

    source, mask, found = numbers(6, LANES), RANDOM.random((6, LANES)) < 0.5, np.zeros((7, LANES), np.float32)
    for some in (mask, mask[:0]):
        kernel(source.ravel(), some.ravel(), found.ravel())
        wanted = matrix @ (np.where(mask, source, 0) if len(some) else source)
        np.testing.assert_allclose(found[1:], wanted, rtol=1e-5, atol=1e-4)
        assert not found[0].any()


@pytest.mark.parametrize("halves", [0, 1, 2, 5])
@pytest.mark.parametrize("depth", [1, 3, 4, 5, 18])
@pytest.mark.parametrize("width", [1, 2])
def test_blocks_of_a_product(width, depth, halves):
    @numba.njit
    def kernel(a, b, out):
        gemm(halves, Rows(a, 2, depth + 1), Rows(b, 1, 0), depth, Rows(out, 3, PANEL + 5), width)

    a, b = numbers(3 * ROWS, depth + 1), numbers(depth, width * LANES)
    out = np.zeros((3 * ROWS, PANEL + 5), np.float32)
    wanted = out.copy()
    wanted[: halves * HALF_ROWS, : width * LANES] = a[: halves * HALF_ROWS, :depth] @ b
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
        epilogue = Epilogue(shift, other, np.float32(0), np.float32(2), out, mask)
        gemm_with_epilogue(2, Rows(a, 0, 5), Rows(b, 0, 0), 5, epilogue, 1, LANES, 3 * LANES, width)

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
        store(found, 1, load_masked(source, 2, mask, 1))

    source, mask, found = numbers(2 + LANES), RANDOM.random(1 + LANES) < 0.5, np.zeros(2 + LANES, np.float32)
    source[2:][~mask[1:]] = np.nan
    kernel(source, mask, found)
    np.testing.assert_array_equal(found, [0, *np.where(mask[1:], source[2:], 0), 0])
    kernel(source, mask[:0], found)
    np.testing.assert_array_equal(found, [0, *source[2:], 0])


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("clamps", [False, True])
def test_an_epilogue_adds_and_clamps_and_notes_what_passed(clamps, adds):
    @numba.njit
    def kernel(values, bias, addend, out, mask):
        epilogue = Epilogue(bias, addend, np.float32(0), np.float32(2), out, mask)
        store_result(load(values, 0), epilogue, 1, 1)

    values, bias, addend = numbers(LANES), numbers(LANES + 1), numbers(LANES + 1)
    bias[1:5] = [-values[0], 2 - values[1], 9, -9]
    values[4] = np.nan
    out, mask = np.full(LANES + 1, 7, np.float32), np.ones(LANES + 1, bool)
    kernel(values, bias, addend[: adds * addend.size], out, mask[: clamps * mask.size])
    total = values + bias[1:] + (addend[1:] if adds else np.float32(0))
    np.testing.assert_array_equal(out, [7, *(np.clip(total, 0, 2) if clamps else total)])
    np.testing.assert_array_equal(mask[1:], (total > 0) & (total < 2) if clamps else np.ones(LANES, bool))
    assert np.isnan(out[5])
