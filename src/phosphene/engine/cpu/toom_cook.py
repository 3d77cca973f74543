"""The matrices of Winograd's minimal filtering: how few multiplications give several outputs of a filter.

Winograd 1980, "Arithmetic Complexity of Computations", chapter V; made by the algorithm of Toom and Cook, as Lavin and
Gray 2016, arXiv:1509.09308, use it.

A filter of r taps and m places is a polynomial product: both are evaluated at m + r - 1 points, multiplied there, and
the product's coefficients found again. A filter with a stride s is s filters, of every s-th tap, and their sum; its
adjoint is s filters too, and their results take turns.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), -Fraction(1, 2), Fraction(4, 3), -Fraction(4, 3))
"""Where polynomials are evaluated, besides infinity: the first of these that are needed
(NOTES.md)."""

MOST_TAPS, MOST_SQUARE = 7, 5
"""Taps, of every `stride`-th, of a kernel with one row or column, and of others: more round to worse than 1e-5."""


def can_filter(taps: tuple[int, int], stride: tuple[int, int]) -> bool:
    """Whether a kernel of so many rows and columns of taps is worth filtering."""
    shorter, longer = sorted(-(-side // step) for side, step in zip(taps, stride, strict=True))
    return max(taps) > 1 and longer <= (MOST_TAPS if shorter == 1 else MOST_SQUARE)


def outputs_per_tile(taps: int, stride: int) -> int:
    """How many outputs of a filter are computed together; more would be fewer multiplications, but larger kernels."""
    if taps == 1:
        return 1
    return 4 if stride == 1 else 2


def adjoint_lookback(taps: int, stride: int) -> int:
    """How many inputs in front of its own an output of the adjoint sees: in units of the stride, all taps but one."""
    return -(-taps // stride) - 1


@dataclass(frozen=True)
class Filtering:
    """Outputs of a tile are `synthesis @ ((kernel @ taps) * (analysis @ inputs))`: B transposed, G and A transposed
    of Lavin and Gray, where the stride is 1.
    """

    analysis: Matrix
    """[points, inputs]"""
    kernel: Matrix
    """[points, taps]"""
    synthesis: Matrix
    """[outputs, points]"""
    step: int
    """Inputs from one tile to the next; the outputs follow each other."""


@cache
def filtering(taps: int, stride: int) -> Filtering:
    """Return how to filter: an output sees `taps` inputs from `stride` times its place."""
    places = outputs_per_tile(taps, stride)
    phases = _phases(taps, stride)
    inputs = max(phase + stride * (len(part.analysis) - 1) + 1 for phase, part in enumerate(phases))
    points = sum(len(part.analysis) for part in phases)
    analysis, kernel, synthesis = np.zeros((points, inputs)), np.zeros((points, taps)), np.zeros((places, points))
    start = 0
    for phase, part in enumerate(phases):
        own = slice(start, start := start + len(part.analysis))
        analysis[own, phase::stride][:, : len(part.analysis)] = part.analysis
        kernel[own, phase::stride], synthesis[:, own] = part.kernel, part.synthesis
    return Filtering(analysis, kernel, synthesis, places * stride)


@cache
def adjoint(taps: int, stride: int) -> Filtering:
    """Return how to apply the adjoint of `filtering`. The first tile begins `adjoint_lookback` before its input."""
    places = outputs_per_tile(taps, stride)
    phases = _phases(taps, stride)
    before = adjoint_lookback(taps, stride)
    points = sum(len(part.analysis) for part in phases)
    analysis, kernel = np.zeros((points, places + before)), np.zeros((points, taps))
    synthesis = np.zeros((places * stride, points))
    start = 0
    for phase, part in enumerate(phases):
        own = slice(start, start := start + len(part.analysis))
        analysis[own, places + before - len(part.analysis) :] = part.analysis
        kernel[own, phase::stride], synthesis[phase::stride, own] = part.kernel[:, ::-1], part.synthesis
    return Filtering(analysis, kernel, synthesis, places)


def _phases(taps: int, stride: int) -> list[Filtering]:
    """Return the filters of every `stride`-th tap."""
    places = outputs_per_tile(taps, stride)
    return [_minimal(places, len(range(phase, taps, stride))) for phase in range(min(taps, stride))]


def _minimal(places: int, taps: int) -> Filtering:
    """Return the filtering with stride 1."""
    points = [Fraction(point) for point in POINTS[: places + taps - 2]]
    others = [[other for other in points if other != point] for point in points]
    analysis = [[*_with_roots(roots), Fraction(0)] for roots in others] + [_with_roots(points)]
    weights = [_value(roots, point) for point, roots in zip(points, others, strict=True)]
    kernel = [[point**k / weight for k in range(taps)] for point, weight in zip(points, weights, strict=True)]
    synthesis = [[*(point**k for point in points), Fraction(k == places - 1)] for k in range(places)]
    kernel.append([Fraction(k == taps - 1) for k in range(taps)])
    b, g, a = (np.array(rows, dtype=np.float64) for rows in (analysis, kernel, synthesis))
    return Filtering(b, g, a, places)


def _with_roots(roots: list[Fraction]) -> list[Fraction]:
    """Return the coefficients of the product of (x - root), from that of 1 up."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [high - root * low for high, low in zip(shifted, scaled, strict=True)]
    return coefficients


def _value(roots: list[Fraction], x: Fraction) -> Fraction:
    """Return the product of (x - root)."""
    product = Fraction(1)
    for root in roots:
        product *= x - root
    return product
