"""Vectors of float32 for kernels that Numba compiles: loads, stores, sums and products of as many numbers as the
processor's registers hold.

LLVM finds such vectors in plain loops by itself, but not where many arrays are read and written at once, since it
cannot tell that they do not overlap; and it does not keep a block of a matrix product in the registers. So the few
operations that nearly all of a step consists of are written out here, in LLVM's own language. Products are added with
one rounding (fma), in the same order on every processor.

Numba keeps a kernel until the file that it is written in changes: touch `winograd.py` and `pointwise.py` after a change
here.

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

READ, WRITE, SOON, DATA = 0, 1, 3, 1
"""What LLVM's prefetch is told."""


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
def load_where(typing_context, array, at, step, mask, mask_at, mask_step, count):
    """As `load`, with zeros where `mask` is false."""

    def generate(context, builder, signature, arguments):
        places = _places(context, builder, signature, arguments, 0, 1, arguments[2], count.literal_value)
        marks = _places(context, builder, signature, arguments, 3, 4, arguments[5], count.literal_value)
        loaded = []
        for place, mark in zip(places, marks, strict=True):
            through = builder.icmp_unsigned("!=", _load(builder, mark, BYTES), Constant(BYTES, [0] * LANES))
            loaded.append(builder.select(through, _load(builder, place, VECTOR), NOTHING))
        return context.make_tuple(builder, signature.return_type, loaded)

    index = types.intp
    return types.UniTuple(vector, count.literal_value)(array, index, index, mask, index, index, count), generate


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
        clamped, through = _clamped(builder, _sum_of(context, builder, signature, arguments), low, high)
        place, mark = (_place(context, builder, signature.args[k], arguments[k], arguments[8]) for k in (6, 7))
        _store_past_caches_if_aligned(builder, place, clamped)
        _store(builder, mark, through)
        return context.get_dummy_value()

    index, number = types.intp, types.float32
    return types.void(values, index, shift, index, number, number, out, mask, index), generate


@intrinsic
@no_type_check
def store_shifted(typing_context, values, value_at, shift, shift_at, out, at):
    """Write the vector at `values` plus the one at `shift` to `out`."""

    def generate(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[4], arguments[4], arguments[5])
        _store_past_caches_if_aligned(builder, place, _sum_of(context, builder, signature, arguments))
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


@intrinsic(prefer_literal=True)
@no_type_check
def multiply(typing_context, blocks, a, a_at, a_step, b, b_at, depth, out, out_at, out_step, width):
    """Set a part of `out` to the product of `blocks` x ROWS rows of `depth` numbers of `a`, and `depth` x `width`
    vectors of `b`.

    `width`, a constant, is 1 or 2. Rows of `a` and `out` lie a step apart, those of `b` next to each other.
    """

    def generate(context, builder, signature, arguments):
        a, b, out = (_place(context, builder, signature.args[k], arguments[k], arguments[k + 1]) for k in (1, 4, 7))
        function = _product(builder.module, width.literal_value)
        builder.call(function, [arguments[0], a, arguments[3], b, arguments[6], out, arguments[9]])
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, a, index, index, b, index, index, out, index, index, width), generate


@intrinsic(prefer_literal=True)
@no_type_check
def multiply_and_clamp(
    typing_context, blocks, a, a_at, a_step, b, b_at, depth, shift, shift_at, other, low, high, out, mask, at, step,
    width,
):  # fmt: skip
    """As `multiply`, with `shift`, of `width` vectors, added to each row, and a part of `other`, if that is not empty.

    If `mask` is not empty, the sum is clamped, and what was let through is noted there. `other`, `out` and `mask` lie
    alike, from `at` on, and their rows begin where vectors are aligned.
    """

    def generate(context, builder, signature, arguments):
        a, b, shift = (_place(context, builder, signature.args[k], arguments[k], arguments[k + 1]) for k in (1, 4, 7))
        other, mask = (_place_if_any(context, builder, signature, arguments, k, 14) for k in (9, 13))
        out = _place(context, builder, signature.args[12], arguments[12], arguments[14])
        function = _product(builder.module, width.literal_value, finishes=True)
        blocks, _, _, a_step, _, _, depth, _, _, _, low, high, _, _, _, step, _ = arguments
        builder.call(function, [blocks, a, a_step, b, depth, out, step, shift, other, mask, low, high])
        return context.get_dummy_value()

    index, number = types.intp, types.float32
    return types.void(
        index, a, index, index, b, index, index, shift, index, other, number, number, out, mask, index, index, width
    ), generate  # fmt: skip


def _product(module: ir.Module, width: int, finishes: bool = False) -> ir.Function:
    """Return the function behind `multiply` or `multiply_and_clamp`.

    Inlined, the addresses that the caller's loops go through would take the registers that it needs; and were it called
    for each block, the caller's own stores would wait for the block's to reach the cache.
    """
    name = f"product_{ROWS}_{width}_{finishes}"
    if name in module.globals:
        return module.globals[name]
    floats, bytes_ = FLOAT.as_pointer(), BYTE.as_pointer()
    added = [floats, floats, bytes_, FLOAT, FLOAT] if finishes else []
    kinds = [INDEX, floats, INDEX, floats, INDEX, floats, INDEX, *added]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = IRBuilder(function.append_basic_block())
    blocks, a, a_step, b, depth, out, out_step, *rest = function.args
    with cgutils.for_range(builder, blocks) as loop:
        row = builder.mul(loop.index, Constant(INDEX, ROWS))
        at = builder.mul(row, out_step)
        firsts = _steps(builder, builder.gep(a, [builder.mul(row, a_step)]), a_step, ROWS)
        if finishes:
            _, other, mask, _, _ = rest
            _prefetch(builder, other, at, out_step, width, READ)
            _prefetch(builder, mask, at, out_step, 1, WRITE)
        sums = _summed(builder, firsts, b, depth, width)
        if finishes:
            _finish(builder, sums, at, out_step, *rest)
        for total, place in zip(sums, _spots(builder, builder.gep(out, [at]), out_step, width), strict=True):
            (_store_past_caches if finishes else _store)(builder, place, builder.load(total))
    builder.ret_void()
    return function


def _summed(builder: IRBuilder, firsts: list[Value], b: Value, depth: Value, width: int) -> list[Value]:
    """Return where the sums of a product are, row by row."""
    sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(width)] for _ in range(ROWS)]
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
    return list(chain(*sums))


def _finish(
    builder: IRBuilder, sums: list[Value], at: Value, step: Value,
    shift: Value, other: Value, mask: Value, low: Value, high: Value,
) -> None:  # fmt: skip
    """Add what is asked for, clamp, and write the mask."""
    width = len(sums) // ROWS
    shifts = [_load(builder, _onward(builder, shift, k), VECTOR) for k in range(width)] * ROWS
    for total, added in zip(sums, shifts, strict=True):
        builder.store(builder.fadd(builder.load(total), added), total)
    with builder.if_then(_is_any(builder, other)):
        for total, place in zip(sums, _spots(builder, builder.gep(other, [at]), step, width), strict=True):
            builder.store(builder.fadd(builder.load(total), _load(builder, place, VECTOR)), total)
    with builder.if_then(_is_any(builder, mask)):
        low, high = _spread(builder, low), _spread(builder, high)
        for total, place in zip(sums, _spots(builder, builder.gep(mask, [at]), step, width), strict=True):
            clamped, through = _clamped(builder, builder.load(total), low, high)
            builder.store(clamped, total)
            _store(builder, place, through)


def _prefetch(builder: IRBuilder, first: Value, at: Value, step: Value, width: int, use: int) -> None:
    """Have a block brought to the cache, if there is one, while its product is computed."""
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), *[number] * 3])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    settings = [Constant(number, setting) for setting in (use, SOON, DATA)]
    with builder.if_then(_is_any(builder, first)):
        for place in _spots(builder, builder.gep(first, [at]), step, width):
            builder.call(prefetch, [builder.bitcast(place, BYTE.as_pointer()), *settings])


def _spots(builder: IRBuilder, first: Value, step: Value, width: int) -> list[Value]:
    """Return the addresses of the vectors of a block, row by row."""
    return [_onward(builder, row, k) for row in _steps(builder, first, step, ROWS) for k in range(width)]


def _is_any(builder: IRBuilder, pointer: Value) -> Value:
    return builder.icmp_unsigned("!=", builder.ptrtoint(pointer, INDEX), Constant(INDEX, 0))


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


def _clamped(builder: IRBuilder, value: Value, low: Value, high: Value) -> tuple[Value, Value]:
    """Return a clamped vector, and a byte for each of its numbers that was let through."""
    raised = builder.select(builder.fcmp_ordered("<", value, low), low, value)
    above, below = builder.fcmp_ordered(">", value, low), builder.fcmp_ordered("<", value, high)
    lowered = builder.select(builder.fcmp_ordered(">", raised, high), high, raised)
    return lowered, builder.zext(builder.and_(above, below), BYTES)


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


def _place_if_any(context: Any, builder: IRBuilder, signature: Any, arguments: Any, array: int, at: int) -> Value:
    """Return the address of a place of an array, or none if the array is empty."""
    made = context.make_array(signature.args[array])(context, builder, arguments[array])
    place = builder.gep(made.data, [arguments[at]])
    none = builder.inttoptr(Constant(INDEX, 0), place.type)
    return builder.select(builder.icmp_signed("==", made.nitems, Constant(INDEX, 0)), none, place)


def _places(
    context: Any, builder: IRBuilder, signature: Any, arguments: Any, array: int, at: int, step: Value, count: int
) -> list[Value]:
    """Return the addresses of `count` places of an array, a step apart, given which arguments say where."""
    first = _place(context, builder, signature.args[array], arguments[array], arguments[at])
    return _steps(builder, first, step, count)


def _steps(builder: IRBuilder, first: Value, step: Value, count: int) -> list[Value]:
    return [builder.gep(first, [builder.mul(step, Constant(INDEX, k))]) for k in range(count)]


def _onward(builder: IRBuilder, place: Value, vectors: int) -> Value:
    return builder.gep(place, [Constant(INDEX, vectors * LANES)])


def _load(builder: IRBuilder, place: Value, kind: ir.VectorType) -> Value:
    loaded = builder.load(builder.bitcast(place, kind.as_pointer()))
    loaded.align = 1
    return loaded


def _store(builder: IRBuilder, place: Value, value: Value) -> None:
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=1)


def _store_past_caches(builder: IRBuilder, place: Value, value: Value) -> None:
    """Write a vector that is not read again soon, and leave the caches to others. It has to be aligned.

    A thread that did calls `wait_for_stores` at its end.
    """
    stored = builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=4 * LANES)
    stored.set_metadata("nontemporal", builder.module.add_metadata([Constant(ir.IntType(32), 1)]))


def _store_past_caches_if_aligned(builder: IRBuilder, place: Value, value: Value) -> None:
    last = builder.and_(builder.ptrtoint(place, INDEX), Constant(INDEX, 4 * LANES - 1))
    with builder.if_else(builder.icmp_unsigned("==", last, Constant(INDEX, 0))) as (aligned, other):
        with aligned:
            _store_past_caches(builder, place, value)
        with other:
            _store(builder, place, value)
