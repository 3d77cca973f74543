"""Products of constant matrices and columns of vectors: the transforms of Winograd's tiles.

Each matrix has a function of its own, which kernels call by its address. So one kernel serves all kernel sizes and
strides of convolutions, and another size takes little compiling. `step` is from one element of a column to the next,
and `next` from one column to the next, in floats:

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
    fma,
    index,
    is_not_null,
    load_scalar,
    load_vector,
    masked_vector,
    offset,
    pointer,
    store_vector,
    strided,
)

OPERANDS = 10
"""A transform's operands: address, step and next of source, mask and target, and the number of columns.

They are passed in memory, by address. As arguments they would not fit in registers, and the entry function that Numba
generates would copy them from the stack by wide loads of what was just stored one by one: the processor stalls there,
since it cannot forward such stores.
"""


class Columns(NamedTuple):
    """Columns of vectors in a flat array: the first begins `at`; `step` and `next` are in elements (see above)."""

    array: Floats | Bools
    at: int
    step: int
    next: int


def filtering_of(key: str) -> Filtering:
    """Return a filtering by its name, such as `3 1 forward`: taps, stride and direction.

    Compiled transforms are cached under this name.
    """
    taps, stride, direction = key.split()
    return (adjoint if direction == "adjoint" else filtering)(int(taps), int(stride))


@cache
def transform_address(key: str, part: str) -> int:
    """Return the address of the function that multiplies by a filtering's `analysis` or `synthesis` matrix."""
    signature = types.void(types.intp, VERSION)
    function = compiled(partial(numba.cfunc, signature), _transform(key, part))
    _alive.append(function)
    return int(function.address)


_alive: list[Any] = []


def _transform(key: str, part: str) -> Callable[..., None]:
    name = f"{key} {part}"

    @no_type_check
    def transform(operands, version):
        multiply_columns(name, operands)

    function: Callable[..., None] = transform
    return function


def matrix_of(name: str) -> Matrix:
    """Return a matrix by its name, such as `3 1 forward analysis`."""
    key, _, part = name.rpartition(" ")
    matrix: Matrix = getattr(filtering_of(key), part)
    return matrix


@intrinsic(prefer_literal=True)
@no_type_check
def multiply_columns(typing_context, name, source_floats):
    """Multiply columns by the matrix named `name`, a constant, given the address of the operands.

    If there is a mask, source elements where it is false count as zero.
    """
    matrix = matrix_of(name.literal_value)

    def generate(context, builder, signature, arguments):
        operands = strided(builder, pointer(builder, arguments[1], INDEX), index(1), OPERANDS, INDEX)
        operands = [load_scalar(builder, place, INDEX) for place in operands]
        source, source_step, source_next, mask, mask_step, mask_next, target, target_step, target_next, count = operands
        source_floats, target_floats = pointer(builder, source, FLOAT), pointer(builder, target, FLOAT)
        mask_bytes, rows = pointer(builder, mask, BYTE), range(matrix.shape[1])

        def write(is_masked):
            with cgutils.for_range(builder, count) as loop:
                first = offset(builder, source_floats, builder.mul(loop.index, source_next))
                column = [load_vector(builder, place) for place in strided(builder, first, source_step, len(rows))]
                if is_masked:
                    first = offset(builder, mask_bytes, builder.mul(loop.index, mask_next), BYTE)
                    mask_column = [offset(builder, first, builder.mul(mask_step, index(k)), BYTE) for k in rows]
                    column = [masked_vector(builder, *pair) for pair in zip(column, mask_column, strict=True)]
                out = offset(builder, target_floats, builder.mul(loop.index, target_next))
                products = multiplied(builder, matrix, column)
                for place, value in zip(strided(builder, out, target_step, len(products)), products, strict=True):
                    store_vector(builder, place, value)

        with builder.if_else(is_not_null(builder, mask_bytes)) as (masked, plain):
            with masked:
                write(is_masked=True)
            with plain:
                write(is_masked=False)
        return context.get_dummy_value()

    return types.void(name, types.intp), generate


@intrinsic
@no_type_check
def transform(typing_context, address, source, mask, target, count):
    """Call the transform at an address on `count` columns. `source`, `mask` and `target` are `Columns`."""

    def generate(context, builder, signature, arguments):
        address, *columns, count = arguments
        numbers = []
        for kind, value in zip(signature.args[1:4], columns, strict=True):
            values, kinds = fields_of(builder, kind, value)
            place = address_of(context, builder, kinds.array, values.array, values.at)
            numbers += [builder.ptrtoint(place, INDEX), values.step, values.next]
        operands = cgutils.alloca_once(builder, INDEX, OPERANDS)
        places = strided(builder, operands, index(1), OPERANDS, INDEX)
        for place, number in zip(places, [*numbers, count], strict=True):
            builder.store(number, place)
        call_address(builder, address, [builder.ptrtoint(operands, INDEX), index(0)])
        return context.get_dummy_value()

    return types.void(types.intp, source, mask, target, types.intp), generate


def multiplied(builder: IRBuilder, matrix: Matrix, vectors: list[Value]) -> list[Value]:
    """Return the product of a matrix and a column of vectors, in few operations.

    The points p and -p come in pairs, so their even and odd powers form butterflies. Where two columns of the matrix
    agree up to sign in each row, a + b and a - b are computed once; likewise for two rows:

        [1  1]   [a]    a + b                    [1  2]   [a]    a + 2b
        [1 -1] x [b] =  a - b      and by rows   [1 -2] x [b] =  a - 2b, of the halves a and 2b
    """
    matrix, vectors = matrix.copy(), list(vectors)
    for i, j in combinations(range(len(vectors)), 2):
        column, other = matrix[:, i], matrix[:, j]
        if column.any() and other.any() and (abs(column) == abs(other)).all():
            is_same = column == other
            a, b = vectors[i], vectors[j]
            vectors[i], vectors[j] = builder.fadd(a, b), builder.fsub(a, b)
            matrix[:, i], matrix[:, j] = np.where(is_same, column, 0), np.where(is_same, 0, column)
    rows: dict[int, Value] = {}
    for i, j in combinations(range(len(matrix)), 2):
        even, odd = (matrix[i] + matrix[j]) / 2, (matrix[i] - matrix[j]) / 2
        if i not in rows and j not in rows and even.any() and odd.any() and not (even * odd).any():
            a, b = _combined(builder, even, vectors), _combined(builder, odd, vectors)
            rows[i], rows[j] = builder.fadd(a, b), builder.fsub(a, b)
    return [rows[i] if i in rows else _combined(builder, row, vectors) for i, row in enumerate(matrix)]


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
            total = fma(builder, constant(coefficient), value, total)
    return total
