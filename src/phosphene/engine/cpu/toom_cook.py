"""The matrices of Winograd's minimal filtering F(m, r): m outputs of an r-tap filter by m + r - 1 multiplications.

Winograd 1980, "Arithmetic Complexity of Computations", chapter V. The matrices come from the algorithm of Toom and
Cook, as in Lavin and Gray 2016, arXiv:1509.09308.

Filtering is the transpose of a product of polynomials, and that is computed by evaluating both at m + r - 1 points,
multiplying there, and interpolating. A filter with stride s is the sum of s filters, each of every s-th tap: its
phases. Its adjoint consists of s filters too, whose outputs are interleaved.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), -Fraction(1, 2), Fraction(4, 3), -Fraction(4, 3))
"""Where polynomials are evaluated, besides infinity: the first m + r - 2 of these (NOTES.md)."""

MOST_TAPS, MOST_SQUARE = 7, 5
"""Most taps of a phase: of a kernel with a single row or column, and of any other. With more, rounding errors exceed
1e-5."""


def can_filter(taps: tuple[int, int], stride: tuple[int, int]) -> bool:
    """Whether minimal filtering is accurate and worthwhile for a kernel of `taps` (rows, columns)."""
    shorter, longer = sorted(-(-side // step) for side, step in zip(taps, stride, strict=True))
    return max(taps) > 1 and longer <= (MOST_TAPS if shorter == 1 else MOST_SQUARE)


def outputs_per_tile(taps: int, stride: int) -> int:
    """Return m, the outputs of a tile along an axis. A larger m needs fewer multiplications, but larger kernels."""
    if taps == 1:
        return 1
    return 4 if stride == 1 else 2


def adjoint_lookback(taps: int, stride: int) -> int:
    """Return how many earlier inputs an output of the adjoint reads: the taps of a phase, less one."""
    return -(-taps // stride) - 1


@dataclass(frozen=True)
class Filtering:
    """Outputs of a tile are `synthesis @ ((kernel @ taps) * (analysis @ inputs))`.

    With stride 1 these are Lavin and Gray's A transposed, G, and B transposed.
    """

    analysis: Matrix
    """[points, inputs]"""
    kernel: Matrix
    """[points, taps]"""
    synthesis: Matrix
    """[outputs, points]"""
    step: int
    """Inputs from one tile to the next. The outputs of successive tiles are adjacent."""


@cache
def filtering(taps: int, stride: int) -> Filtering:
    """Return the filtering whose output i reads `taps` inputs from input `stride * i` on."""
    outputs = outputs_per_tile(taps, stride)
    phases = _phases(taps, stride)
    inputs = max(phase + stride * (len(part.analysis) - 1) + 1 for phase, part in enumerate(phases))
    points = sum(len(part.analysis) for part in phases)
    analysis, kernel, synthesis = np.zeros((points, inputs)), np.zeros((points, taps)), np.zeros((outputs, points))
    start = 0
    for phase, part in enumerate(phases):
        span = slice(start, start := start + len(part.analysis))
        analysis[span, phase::stride][:, : len(part.analysis)] = part.analysis
        kernel[span, phase::stride], synthesis[:, span] = part.kernel, part.synthesis
    return Filtering(analysis, kernel, synthesis, outputs * stride)


@cache
def adjoint(taps: int, stride: int) -> Filtering:
    """Return the adjoint of `filtering`. Its first tile begins `adjoint_lookback` inputs in front of the input."""
    outputs = outputs_per_tile(taps, stride)
    phases = _phases(taps, stride)
    lookback = adjoint_lookback(taps, stride)
    points = sum(len(part.analysis) for part in phases)
    analysis, kernel = np.zeros((points, outputs + lookback)), np.zeros((points, taps))
    synthesis = np.zeros((outputs * stride, points))
    start = 0
    for phase, part in enumerate(phases):
        span = slice(start, start := start + len(part.analysis))
        analysis[span, outputs + lookback - len(part.analysis) :] = part.analysis
        kernel[span, phase::stride], synthesis[phase::stride, span] = part.kernel[:, ::-1], part.synthesis
    return Filtering(analysis, kernel, synthesis, outputs)


def _phases(taps: int, stride: int) -> list[Filtering]:
    """Return the filterings of the phases: those of every `stride`-th tap."""
    outputs = outputs_per_tile(taps, stride)
    return [_minimal(outputs, len(range(phase, taps, stride))) for phase in range(min(taps, stride))]


def _minimal(outputs: int, taps: int) -> Filtering:
    """Return F(outputs, taps), with stride 1."""
    points = [Fraction(point) for point in POINTS[: outputs + taps - 2]]
    others = [[other for other in points if other != point] for point in points]
    analysis = [[*_with_roots(roots), Fraction(0)] for roots in others] + [_with_roots(points)]
    weights = [_value(roots, point) for point, roots in zip(points, others, strict=True)]
    kernel = [[point**k / weight for k in range(taps)] for point, weight in zip(points, weights, strict=True)]
    synthesis = [[*(point**k for point in points), Fraction(k == outputs - 1)] for k in range(outputs)]
    kernel.append([Fraction(k == taps - 1) for k in range(taps)])
    b, g, a = (np.array(rows, dtype=np.float64) for rows in (analysis, kernel, synthesis))
    return Filtering(b, g, a, outputs)


def _with_roots(roots: list[Fraction]) -> list[Fraction]:
    """Return the coefficients of the product of all (x - root), the constant one first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [high - root * low for high, low in zip(shifted, scaled, strict=True)]
    return coefficients


def _value(roots: list[Fraction], x: Fraction) -> Fraction:
    """Return the product of all (x - root)."""
    product = Fraction(1)
    for root in roots:
        product *= x - root
    return product
