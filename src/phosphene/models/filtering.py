"""Minimal filtering: how few multiplications give several outputs of a filter (Winograd 1980, "Arithmetic Complexity of
Computations", chapter V; the algorithm of Toom and Cook, as Lavin and Gray 2016, arXiv:1509.09308, use it).

A filter of r taps and m places is a polynomial product: both are evaluated at m + r - 1 points, multiplied there, and
the product's coefficients found again.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

PLACES = {1: 1, 3: 4, 5: 4, 7: 4}
"""How many places are computed together, by the taps of a filter."""

MOST_TAPS = 5
"""Of a kernel with more than one row and column; longer ones would round to worse than 1e-5."""

POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), -Fraction(1, 2), Fraction(4, 3), -Fraction(4, 3))
"""Where polynomials are evaluated, besides infinity: the first of these that are needed
(docs/decisions/0010-frozen-convolutions.md)."""


def can_filter(down: int, across: int) -> bool:
    """Whether a kernel of so many rows and columns of taps is worth filtering."""
    shorter, longer = sorted((down, across))
    return shorter in PLACES and longer in PLACES and longer > 1 and (shorter == 1 or longer <= MOST_TAPS)


@dataclass(frozen=True)
class Filtering:
    """The matrices of Lavin and Gray: the outputs are `synthesis @ ((kernel @ taps) * (analysis @ inputs))`."""

    analysis: Matrix
    """B transposed [points, inputs], square."""
    kernel: Matrix
    """G [points, taps]."""
    synthesis: Matrix
    """A transposed [places, points]."""


@cache
def filtering(taps: int) -> Filtering:
    """Return the filtering of so many taps, one of those in `PLACES`."""
    places = PLACES[taps]
    points = [Fraction(point) for point in POINTS[: places + taps - 2]]
    others = [[other for other in points if other != point] for point in points]
    analysis = [[*_with_roots(roots), Fraction(0)] for roots in others] + [_with_roots(points)]
    weights = [_value(roots, point) for point, roots in zip(points, others, strict=True)]
    kernel = [[point**k / weight for k in range(taps)] for point, weight in zip(points, weights, strict=True)]
    synthesis = [[*(point**k for point in points), Fraction(k == places - 1)] for k in range(places)]
    kernel.append([Fraction(k == taps - 1) for k in range(taps)])
    return Filtering(*(np.array(rows, dtype=np.float64) for rows in (analysis, kernel, synthesis)))


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
