"""Vectors of float32: loads, stores, arithmetic and linear maps, for kernels that Numba compiles.

LLVM finds vectors in plain loops by itself, but not where many arrays are read and written at once, since it cannot
tell that they do not overlap; and it does not keep a block of a matrix product in the registers. So here are, first,
functions that write LLVM's instructions for one vector, and then what kernels call.

Arrays are flat. Wherever a place in one is asked for, it is the index of the first number of a vector.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from llvmlite.ir import Constant, IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

from phosphene.engine.cpu.toom_cook import Matrix

HAS_AVX512 = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2]

LANES = 16 if HAS_AVX512 else 8
"""Numbers of a vector."""

FLOAT, INDEX, BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(8)
VECTOR, BYTES = ir.VectorType(FLOAT, LANES), ir.VectorType(BYTE, LANES)
NOTHING = Constant(VECTOR, [0.0] * LANES)


def clamp(builder: IRBuilder, value: Value, low: Value, high: Value) -> tuple[Value, Value]:
    """Return a clamped vector, and a byte for each of its numbers that was let through."""
    raised = builder.select(builder.fcmp_ordered("<", value, low), low, value)
    above, below = builder.fcmp_ordered(">", value, low), builder.fcmp_ordered("<", value, high)
    lowered = builder.select(builder.fcmp_ordered(">", raised, high), high, raised)
    return lowered, builder.zext(builder.and_(above, below), BYTES)


def constant(number: float) -> Value:
    """Return a vector filled with a number that is known when it is compiled."""
    return Constant(VECTOR, [float(np.float32(number))] * LANES)


def fused(builder: IRBuilder, factor: Value, other: Value, total: Value) -> Value:
    """Return `factor` times `other` plus `total`, rounded once."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(fma, [factor, other, total])


def spread(builder: IRBuilder, number: Value) -> Value:
    """Fill a vector with one number."""
    unknown = Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(unknown, number, Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, unknown, Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def address_of(context: Any, builder: IRBuilder, kind: Any, array: Value, at: Value) -> Value:
    """Return the address of a place of an array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def address_if_any(context: Any, builder: IRBuilder, signature: Any, arguments: Any, array: int, at: int) -> Value:
    """Return the address of a place of an array, or none if the array is empty."""
    made = context.make_array(signature.args[array])(context, builder, arguments[array])
    place = builder.gep(made.data, [arguments[at]])
    none = builder.inttoptr(Constant(INDEX, 0), place.type)
    return builder.select(builder.icmp_signed("==", made.nitems, Constant(INDEX, 0)), none, place)


def addresses_of(
    context: Any, builder: IRBuilder, signature: Any, arguments: Any, array: int, at: int, step: Value, count: int
) -> list[Value]:
    """Return the addresses of `count` places of an array, a step apart, given which arguments say where."""
    first = address_of(context, builder, signature.args[array], arguments[array], arguments[at])
    return steps(builder, first, step, count)


def steps(builder: IRBuilder, first: Value, step: Value, count: int) -> list[Value]:
    """Return `count` addresses, `step` numbers apart."""
    return [builder.gep(first, [builder.mul(step, Constant(INDEX, k))]) for k in range(count)]


def onward(builder: IRBuilder, place: Value, vectors: int) -> Value:
    """Return the address some vectors behind another."""
    return builder.gep(place, [Constant(INDEX, vectors * LANES)])


def load_from(builder: IRBuilder, place: Value, kind: ir.VectorType) -> Value:
    """Read a vector, which need not be aligned."""
    loaded = builder.load(builder.bitcast(place, kind.as_pointer()))
    loaded.align = 1
    return loaded


def store_at(builder: IRBuilder, place: Value, value: Value) -> None:
    """Write a vector, which need not be aligned."""
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=1)


def store_past_caches(builder: IRBuilder, place: Value, value: Value) -> None:
    """Write a vector that is not read again soon, and leave the caches to others. It has to be aligned.

    A thread that did calls `wait_for_stores` at its end.
    """
    stored = builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=4 * LANES)
    stored.set_metadata("nontemporal", builder.module.add_metadata([Constant(ir.IntType(32), 1)]))


def store_past_caches_if_aligned(builder: IRBuilder, place: Value, value: Value) -> None:
    """As `store_past_caches`, or `store_at` where it is not aligned."""
    last = builder.and_(builder.ptrtoint(place, INDEX), Constant(INDEX, 4 * LANES - 1))
    with builder.if_else(builder.icmp_unsigned("==", last, Constant(INDEX, 0))) as (aligned, other):
        with aligned:
            store_past_caches(builder, place, value)
        with other:
            store_at(builder, place, value)


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
        places = addresses_of(context, builder, signature, arguments, 0, 1, arguments[2], count.literal_value)
        loaded = [load_from(builder, place, VECTOR) for place in places]
        return context.make_tuple(builder, signature.return_type, loaded)

    return types.UniTuple(vector, count.literal_value)(array, types.intp, types.intp, count), generate


@intrinsic(prefer_literal=True)
@no_type_check
def load_where(typing_context, array, at, step, mask, mask_at, mask_step, count):
    """As `load`, with zeros where `mask` is false."""

    def generate(context, builder, signature, arguments):
        places = addresses_of(context, builder, signature, arguments, 0, 1, arguments[2], count.literal_value)
        marks = addresses_of(context, builder, signature, arguments, 3, 4, arguments[5], count.literal_value)
        loaded = []
        for place, mark in zip(places, marks, strict=True):
            through = builder.icmp_unsigned("!=", load_from(builder, mark, BYTES), Constant(BYTES, [0] * LANES))
            loaded.append(builder.select(through, load_from(builder, place, VECTOR), NOTHING))
        return context.make_tuple(builder, signature.return_type, loaded)

    index = types.intp
    return types.UniTuple(vector, count.literal_value)(array, index, index, mask, index, index, count), generate


@intrinsic
@no_type_check
def store(typing_context, array, at, step, vectors):
    """Write vectors `step` numbers apart."""

    def generate(context, builder, signature, arguments):
        stored = cgutils.unpack_tuple(builder, arguments[3])
        places = addresses_of(context, builder, signature, arguments, 0, 1, arguments[2], len(stored))
        for place, value in zip(places, stored, strict=True):
            store_at(builder, place, value)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vectors), generate


@intrinsic
@no_type_check
def store_clamped(typing_context, values, value_at, shift, shift_at, low, high, out, mask, at):
    """Write the vector at `values` plus the one at `shift` to `out`, clamped, and to `mask` what was let through."""

    def generate(context, builder, signature, arguments):
        _, _, _, _, low, high, _, _, _ = arguments
        low, high = spread(builder, low), spread(builder, high)
        clamped, through = clamp(builder, _sum_of(context, builder, signature, arguments), low, high)
        place, mark = (address_of(context, builder, signature.args[k], arguments[k], arguments[8]) for k in (6, 7))
        store_past_caches_if_aligned(builder, place, clamped)
        store_at(builder, mark, through)
        return context.get_dummy_value()

    index, number = types.intp, types.float32
    return types.void(values, index, shift, index, number, number, out, mask, index), generate


@intrinsic
@no_type_check
def store_shifted(typing_context, values, value_at, shift, shift_at, out, at):
    """Write the vector at `values` plus the one at `shift` to `out`."""

    def generate(context, builder, signature, arguments):
        place = address_of(context, builder, signature.args[4], arguments[4], arguments[5])
        store_past_caches_if_aligned(builder, place, _sum_of(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(values, types.intp, shift, types.intp, out, types.intp), generate


@intrinsic
@no_type_check
def wait_for_stores(typing_context):
    """Let all that was written past the caches be there for other threads, before they are told that it is."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
@no_type_check
def nonzero(typing_context, vectors):
    """Return which numbers of the only vector of a tuple are not zero, a bit each."""

    def generate(context, builder, signature, arguments):
        (values,) = cgutils.unpack_tuple(builder, arguments[0])
        found = builder.fcmp_unordered("!=", values, NOTHING)
        return builder.zext(builder.bitcast(found, ir.IntType(LANES)), INDEX)

    return types.uint64(vectors), generate


@intrinsic
@no_type_check
def ones(typing_context, bits):
    """Return how many bits are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.intp(types.uint64), generate


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
        total = builder.fmul(constant(coefficient), total)
    for coefficient, value in terms[1:]:
        if coefficient == 1:
            total = builder.fadd(total, value)
        elif coefficient == -1:
            total = builder.fsub(total, value)
        else:
            total = fused(builder, constant(coefficient), value, total)
    return total


def _sum_of(context: Any, builder: IRBuilder, signature: Any, arguments: Any) -> Value:
    """Add the vectors at the first two places of the arguments."""
    places = (address_of(context, builder, signature.args[k], arguments[k], arguments[k + 1]) for k in (0, 2))
    return builder.fadd(*(load_from(builder, place, VECTOR) for place in places))
