"""Linear maps of vectors by a constant matrix, which is how Winograd's tiles are transformed.

Each is a function of its own that kernels call by its address, so that one kernel serves all sizes and strides of
convolutions, and compiling another takes little. It maps columns, of which each lies `next` numbers behind the last:

    for k in range(count):
        target[at + k * next + i * step] = sum over j of matrix[i, j] * source[at + k * next + j * step]
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import combinations
from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from phosphene.engine.cpu.kernel import VERSION, Bools, Floats, call_address, compiled
from phosphene.engine.cpu.toom_cook import Filtering, Matrix, adjoint, filtering
from phosphene.engine.cpu.vectors import (
    BYTE,
    FLOAT,
    INDEX,
    ZERO,
    address_of,
    constant,
    fields_of,
    fused,
    index,
    is_any,
    load_from,
    load_number,
    masked_vector,
    offset,
    pointer,
    steps,
    store_at,
)

NUMBERS = 10
"""What a transform is told: address, step and next of source, mask and target, and how many columns.

They lie in memory, and it gets their address. As arguments they would be too many for the registers; Numba's entry then
copies them by a wide read of what was just written one by one, for which the processor has to wait.
"""


class Columns(NamedTuple):
    """Columns of vectors in a flat array."""

    array: Floats | Bools
    at: int
    step: int
    next: int


def filtering_of(key: str) -> Filtering:
    """Return a filtering by its name, as `3 1 forth`: taps, stride and direction. Kernels are kept by it."""
    taps, stride, direction = key.split()
    return (adjoint if direction == "back" else filtering)(int(taps), int(stride))


@cache
def transform_address(key: str, part: str) -> int:
    """Return the address of the function that multiplies by a matrix, `analysis` or `synthesis`, of a filtering."""
    signature = types.void(types.intp, VERSION)
    made = compiled(partial(numba.cfunc, signature), _transform(key, part))
    _kept_alive.append(made)
    return int(made.address)


_kept_alive: list[Any] = []


def _transform(key: str, part: str) -> Callable[..., None]:
    name = f"{key} {part}"

    @no_type_check
    def transform(numbers, version):
        multiply_columns(name, numbers)

    made: Callable[..., None] = transform
    return made


def matrix_of(name: str) -> Matrix:
    """Return a matrix by its name, as `3 1 forth analysis`."""
    key, _, part = name.rpartition(" ")
    matrix: Matrix = getattr(filtering_of(key), part)
    return matrix


@intrinsic(prefer_literal=True)
@no_type_check
def multiply_columns(typing_context, name, numbers):
    """Multiply columns by the matrix of a constant name. There may be a mask, outside of which numbers are zero."""
    matrix = matrix_of(name.literal_value)

    def generate(context, builder, signature, arguments):
        told = steps(builder, pointer(builder, arguments[1], INDEX), index(1), NUMBERS, INDEX)
        told = [load_number(builder, place, INDEX) for place in told]
        source, source_step, source_next, mask, mask_step, mask_next, target, target_step, target_next, count = told
        numbers, into = pointer(builder, source, FLOAT), pointer(builder, target, FLOAT)
        marks, rows = pointer(builder, mask, BYTE), range(matrix.shape[1])

        def write(is_masked):
            with cgutils.for_range(builder, count) as loop:
                first = offset(builder, numbers, builder.mul(loop.index, source_next))
                column = [load_from(builder, place) for place in steps(builder, first, source_step, len(rows))]
                if is_masked:
                    first = offset(builder, marks, builder.mul(loop.index, mask_next), BYTE)
                    through = [offset(builder, first, builder.mul(mask_step, index(k)), BYTE) for k in rows]
                    column = [masked_vector(builder, *pair) for pair in zip(column, through, strict=True)]
                out = offset(builder, into, builder.mul(loop.index, target_next))
                found = multiplied(builder, matrix, column)
                for place, value in zip(steps(builder, out, target_step, len(found)), found, strict=True):
                    store_at(builder, place, value)

        with builder.if_else(is_any(builder, marks)) as (masked, plain):
            with masked:
                write(is_masked=True)
            with plain:
                write(is_masked=False)
        return context.get_dummy_value()

    return types.void(name, types.intp), generate


@intrinsic
@no_type_check
def transform(typing_context, address, source, mask, target, count):
    """Call the transform at an address, on `count` columns."""

    def generate(context, builder, signature, arguments):
        address, *columns, count = arguments
        numbers = []
        for kind, value in zip(signature.args[1:4], columns, strict=True):
            values, kinds = fields_of(builder, kind, value)
            place = address_of(context, builder, kinds.array, values.array, values.at)
            numbers += [builder.ptrtoint(place, INDEX), values.step, values.next]
        told = cgutils.alloca_once(builder, INDEX, NUMBERS)
        places = steps(builder, told, index(1), NUMBERS, INDEX)
        for place, number in zip(places, [*numbers, count], strict=True):
            builder.store(number, place)
        call_address(builder, address, [builder.ptrtoint(told, INDEX), index(0)])
        return context.get_dummy_value()

    return types.void(types.intp, source, mask, target, types.intp), generate


def multiplied(builder: IRBuilder, matrix: Matrix, vectors: list[Value]) -> list[Value]:
    """Return the product of a matrix and a column of vectors.

    The points of a filter lie on both sides of 0, so even and odd powers are butterflies. Where two columns agree up to
    sign in each row, a + b and a - b are computed once and reused:

        [1  1]   [a]    a + b                    [1  2]   [a]    a + 2b
        [1 -1] x [b] =  a - b      and by rows   [1 -2] x [b] =  a - 2b, of the halves a and 2b
    """
    matrix, vectors = matrix.copy(), list(vectors)
    for i, j in combinations(range(len(vectors)), 2):
        left, right = matrix[:, i], matrix[:, j]
        if left.any() and right.any() and (abs(left) == abs(right)).all():
            same = left == right
            one, other = vectors[i], vectors[j]
            vectors[i], vectors[j] = builder.fadd(one, other), builder.fsub(one, other)
            matrix[:, i], matrix[:, j] = np.where(same, left, 0), np.where(same, 0, left)
    found: dict[int, Value] = {}
    for i, j in combinations(range(len(matrix)), 2):
        even, odd = (matrix[i] + matrix[j]) / 2, (matrix[i] - matrix[j]) / 2
        if i not in found and j not in found and even.any() and odd.any() and not (even * odd).any():
            one, other = _combined(builder, even, vectors), _combined(builder, odd, vectors)
            found[i], found[j] = builder.fadd(one, other), builder.fsub(one, other)
    return [found[i] if i in found else _combined(builder, row, vectors) for i, row in enumerate(matrix)]


def _combined(builder: IRBuilder, coefficients: Matrix, vectors: list[Value]) -> Value:
    """Return a sum of vectors, each times its coefficient; those with coefficient 1 come first."""
    terms = [(float(c), v) for c, v in zip(coefficients, vectors, strict=True) if c]
    terms.sort(key=lambda term: term[0] != 1)
    if not terms:
        return ZERO
    coefficient, total = terms[0]
    if coefficient != 1:
        total = builder.fmul(constant(coefficient), total)
    for coefficient, value in terms[1:]:
        if coefficient == 1:
            total = builder.fadd(total, value)
        elif coefficient == -1:
            total = builder.fsub(total, value)
        else:
            total = fused(builder, constant(coefficient), value, total)
    return total
