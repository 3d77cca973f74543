"""Vectors of float32 for kernels that Numba compiles: loads, stores, sums and products of as many numbers as the
processor's registers hold.

LLVM finds such vectors in plain loops by itself, but not where many arrays are read and written at once, since it
cannot tell that they do not overlap; and it does not keep a block of a matrix product in the registers. So the few
operations that nearly all of a step consists of are written out here, in LLVM's own language. Products are added with
one rounding (fma), in the same order on every processor.

Numba keeps a kernel until the file that it is written in changes: touch `winograd.py` after a change here.

Arrays are flat. Wherever a place in one is asked for, it is the index of the first number of a vector.
"""

from collections.abc import Callable
from itertools import chain, combinations
from typing import Any, no_type_check

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from llvmlite.ir import Constant, IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model
from torch import Tensor

from phosphene.models.filtering import Matrix

LANES, ROWS = (16, 12) if "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2] else (8, 6)
"""Numbers of a vector, and rows of a block of a product: with two vectors a row they fill the registers, of which
there are 32 of 16 numbers with AVX-512, and 16 of 8 with AVX2."""

PANEL = 2 * LANES
"""Columns of a block of a product, but for the last, which may have half as many."""

UNROLLED = 4
"""Steps of a product's sum that are written out, so that one jump is spent on as many."""

FLOAT, INDEX, BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(8)
VECTOR, BYTES = ir.VectorType(FLOAT, LANES), ir.VectorType(BYTE, LANES)
NOTHING = Constant(VECTOR, [0.0] * LANES)


def pack(factors: Tensor) -> Tensor:
    """Lay out factors [products, depth, columns] for `multiply`: [products, panels, depth, columns of a panel], flat.

    There are zeros where there are no more columns; the last panel has one vector if they end there.
    """
    padded = F.pad(factors, (0, -factors.shape[2] % LANES))
    return torch.cat([panel.flatten(1) for panel in padded.split(PANEL, dim=2)], dim=1).flatten()


class VectorType(types.Type):
    """Numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: VectorType) -> None:
        super().__init__(manager, kind, VECTOR)


vector = VectorType()


def linear_map(matrix_of: Callable[[Any], Matrix]) -> Any:
    """Return a function of kernels `(key, vectors) -> vectors` that multiplies by the matrix of a constant key.

    Vectors whose coefficients are alike up to sign in each row are added and subtracted first, and rows that are alike
    up to sign in each column are sums and differences of their halves: the points of a filter lie on both sides of 0.
    """

    @intrinsic(prefer_literal=True)
    @no_type_check
    def multiplied(typing_context, key, vectors):
        matrix = matrix_of(key.literal_value)

        def generate(context, builder, signature, arguments):
            entries = cgutils.unpack_tuple(builder, arguments[1])
            return context.make_tuple(builder, signature.return_type, _multiplied(builder, matrix, entries))

        return types.UniTuple(vector, len(matrix))(key, vectors), generate

    return multiplied


@intrinsic(prefer_literal=True)
@no_type_check
def load(typing_context, array, at, step, count):
    """Return `count` vectors, a constant, that lie `step` numbers apart."""

    def generate(context, builder, signature, arguments):
        places = _places(context, builder, signature, arguments, 0, 1, arguments[2], count.literal_value)
        loaded = [_load(builder, place, VECTOR) for place in places]
        return context.make_tuple(builder, signature.return_type, loaded)

    return types.UniTuple(vector, count.literal_value)(array, types.intp, types.intp, count), generate


@intrinsic(prefer_literal=True)
@no_type_check
def load_where(typing_context, array, mask, at, step, count):
    """As `load`, with zeros where `mask`, which lies alike, is false."""

    def generate(context, builder, signature, arguments):
        _, _, _, step, _ = arguments
        places = _places(context, builder, signature, arguments, 0, 2, step, count.literal_value)
        marks = _places(context, builder, signature, arguments, 1, 2, step, count.literal_value)
        loaded = []
        for place, mark in zip(places, marks, strict=True):
            through = builder.icmp_unsigned("!=", _load(builder, mark, BYTES), Constant(BYTES, [0] * LANES))
            loaded.append(builder.select(through, _load(builder, place, VECTOR), NOTHING))
        return context.make_tuple(builder, signature.return_type, loaded)

    return types.UniTuple(vector, count.literal_value)(array, mask, types.intp, types.intp, count), generate


@intrinsic
@no_type_check
def store(typing_context, array, at, step, vectors):
    """Write vectors `step` numbers apart."""

    def generate(context, builder, signature, arguments):
        stored = cgutils.unpack_tuple(builder, arguments[3])
        places = _places(context, builder, signature, arguments, 0, 1, arguments[2], len(stored))
        for place, value in zip(places, stored, strict=True):
            _store(builder, place, value)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vectors), generate


@intrinsic
@no_type_check
def store_clamped(typing_context, values, value_at, shift, shift_at, low, high, out, mask, at):
    """Write the vector at `values` plus the one at `shift` to `out`, clamped, and to `mask` what was let through."""

    def generate(context, builder, signature, arguments):
        _, _, _, _, low, high, _, _, _ = arguments
        low, high = _spread(builder, low), _spread(builder, high)
        shifted = _sum_of(context, builder, signature, arguments)
        raised = builder.select(builder.fcmp_ordered("<", shifted, low), low, shifted)
        clamped = builder.select(builder.fcmp_ordered(">", raised, high), high, raised)
        _store(builder, _place(context, builder, signature.args[6], arguments[6], arguments[8]), clamped)
        above, below = builder.fcmp_ordered(">", shifted, low), builder.fcmp_ordered("<", shifted, high)
        through = builder.zext(builder.and_(above, below), BYTES)
        _store(builder, _place(context, builder, signature.args[7], arguments[7], arguments[8]), through)
        return context.get_dummy_value()

    index, number = types.intp, types.float32
    return types.void(values, index, shift, index, number, number, out, mask, index), generate


@intrinsic
@no_type_check
def store_shifted(typing_context, values, value_at, shift, shift_at, out, at):
    """Write the vector at `values` plus the one at `shift` to `out`."""

    def generate(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[4], arguments[4], arguments[5])
        _store(builder, place, _sum_of(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(values, types.intp, shift, types.intp, out, types.intp), generate


@intrinsic(prefer_literal=True)
@no_type_check
def multiply(typing_context, a, a_at, a_step, b, b_at, depth, out, out_at, out_step, width):
    """Set a block of `out` to the product of ROWS x `depth` numbers of `a` and `depth` x `width` vectors of `b`.

    `width`, a constant, is 1 or 2. Rows of `a` and `out` lie a step apart, those of `b` next to each other.
    """
    wide = width.literal_value

    def generate(context, builder, signature, arguments):
        a_step, depth, out_step = arguments[2], arguments[5], arguments[8]
        firsts = _places(context, builder, signature, arguments, 0, 1, a_step, ROWS)
        b = _place(context, builder, signature.args[3], arguments[3], arguments[4])
        sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(wide)] for _ in range(ROWS)]
        for total in chain(*sums):
            builder.store(NOTHING, total)
        whole = builder.sdiv(depth, Constant(INDEX, UNROLLED))
        with cgutils.for_range(builder, whole) as loop:
            for step in range(UNROLLED):
                place = builder.add(builder.mul(loop.index, Constant(INDEX, UNROLLED)), Constant(INDEX, step))
                _add_products(builder, firsts, b, place, sums)
        done = builder.mul(whole, Constant(INDEX, UNROLLED))
        with cgutils.for_range_slice(builder, done, depth, Constant(INDEX, 1), INDEX) as (place, _):
            _add_products(builder, firsts, b, place, sums)
        for row, into in zip(sums, _places(context, builder, signature, arguments, 6, 7, out_step, ROWS), strict=True):
            for k, total in enumerate(row):
                _store(builder, _onward(builder, into, k), builder.load(total))
        return context.get_dummy_value()

    index = types.intp
    return types.void(a, index, index, b, index, index, out, index, index, width), generate


def _add_products(builder: IRBuilder, firsts: list[Value], b: Value, place: Value, sums: list[list[Value]]) -> None:
    """Add the outer product of a column of the first factor and a row of the second."""
    width = len(sums[0])
    row = builder.gep(b, [builder.mul(place, Constant(INDEX, width * LANES))])
    others = [_load(builder, _onward(builder, row, k), VECTOR) for k in range(width)]
    for first, totals in zip(firsts, sums, strict=True):
        factor = _spread(builder, builder.load(builder.gep(first, [place])))
        for other, total in zip(others, totals, strict=True):
            builder.store(_fused(builder, factor, other, builder.load(total)), total)


def _multiplied(builder: IRBuilder, matrix: Matrix, vectors: list[Value]) -> list[Value]:
    """Return the product of a matrix and a column of vectors."""
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
        return NOTHING
    coefficient, total = terms[0]
    if coefficient != 1:
        total = builder.fmul(_constant(coefficient), total)
    for coefficient, value in terms[1:]:
        if coefficient == 1:
            total = builder.fadd(total, value)
        elif coefficient == -1:
            total = builder.fsub(total, value)
        else:
            total = _fused(builder, _constant(coefficient), value, total)
    return total


def _constant(number: float) -> Value:
    return Constant(VECTOR, [float(np.float32(number))] * LANES)


def _sum_of(context: Any, builder: IRBuilder, signature: Any, arguments: Any) -> Value:
    """Add the vectors at the first two places of the arguments."""
    places = (_place(context, builder, signature.args[k], arguments[k], arguments[k + 1]) for k in (0, 2))
    return builder.fadd(*(_load(builder, place, VECTOR) for place in places))


def _fused(builder: IRBuilder, factor: Value, other: Value, total: Value) -> Value:
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(fma, [factor, other, total])


def _spread(builder: IRBuilder, number: Value) -> Value:
    """Fill a vector with one number."""
    unknown = Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(unknown, number, Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, unknown, Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _place(context: Any, builder: IRBuilder, kind: Any, array: Value, at: Value) -> Value:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _places(
    context: Any, builder: IRBuilder, signature: Any, arguments: Any, array: int, at: int, step: Value, count: int
) -> list[Value]:
    """Return the addresses of `count` places of an array, a step apart, given which arguments say where."""
    first = _place(context, builder, signature.args[array], arguments[array], arguments[at])
    return [builder.gep(first, [builder.mul(step, Constant(INDEX, k))]) for k in range(count)]


def _onward(builder: IRBuilder, place: Value, vectors: int) -> Value:
    return builder.gep(place, [Constant(INDEX, vectors * LANES)])


def _load(builder: IRBuilder, place: Value, kind: ir.VectorType) -> Value:
    loaded = builder.load(builder.bitcast(place, kind.as_pointer()))
    loaded.align = 1
    return loaded


def _store(builder: IRBuilder, place: Value, value: Value) -> None:
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=1)
