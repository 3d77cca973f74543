"""Matrix products of float32 for kernels that Numba compiles, in blocks that the registers hold.

Products are added with one rounding (fma), in the same order on every processor. Arrays are flat. Wherever a place in
one is asked for, it is the index of the first number of a vector.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import no_type_check

import torch
import torch.nn.functional as F
from llvmlite import ir
from llvmlite.ir import Constant, IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from phosphene.engine.cpu.vectors import (
    BYTE,
    FLOAT,
    HAS_AVX512,
    INDEX,
    LANES,
    NOTHING,
    VECTOR,
    address_if_any,
    address_of,
    clamp,
    fused,
    load_from,
    onward,
    spread,
    steps,
    store_at,
    store_past_caches,
)

ROWS = 12 if HAS_AVX512 else 6
"""Rows of a block of a product: with two vectors a row they fill the registers, of which there are 32 of 16 numbers
with AVX-512, and 16 of 8 with AVX2."""

HALF = ROWS // 2
"""Rows of the smallest block."""

PANEL = 2 * LANES
"""Columns of a block of a product, but for the last, which may have half as many."""

WIDTHS = (8, 6, 4)
"""Vectors of a row of a product that passes over zeros: with fewer, too much of the time is looking for what is not."""

WORD = 64
"""Marks that are kept together."""

UNROLLED = 4
"""Steps of a product's sum that are written out, so that one jump is spent on as many."""

READ, WRITE, SOON, DATA = 0, 1, 3, 1
"""What LLVM's prefetch is told."""


def pack(factors: Tensor) -> Tensor:
    """Lay out factors [products, depth, columns] for `multiply`: [products, panels, depth, columns of a panel], flat.

    There are zeros where there are no more columns; the last panel has one vector if they end there.
    """
    padded = F.pad(factors, (0, -factors.shape[2] % LANES))
    return torch.cat([panel.flatten(1) for panel in padded.split(PANEL, dim=2)], dim=1).flatten()


@intrinsic
@no_type_check
def multiply(typing_context, halves, a, a_at, a_step, b, b_at, depth, out, out_at, out_step, width):
    """Set a part of `out` to the product of `halves` x HALF rows of `depth` numbers of `a`, and `depth` x `width`
    vectors of `b`.

    `width` is 1 or 2. Rows of `a` and `out` lie a step apart, those of `b` next to each other.
    """

    def generate(context, builder, signature, arguments):
        a, b, out = (address_of(context, builder, signature.args[k], arguments[k], arguments[k + 1]) for k in (1, 4, 7))
        halves, _, _, a_step, _, _, depth, _, _, out_step, width = arguments
        blocks, left = builder.ashr(halves, Constant(INDEX, 1)), builder.and_(halves, Constant(INDEX, 1))
        given = [blocks, a, a_step, b, depth, out, out_step]
        _call_for(builder, width, (1, 2), partial(_product, builder.module, ROWS), given)
        with builder.if_then(builder.icmp_signed("!=", left, Constant(INDEX, 0))):
            done = builder.mul(blocks, Constant(INDEX, ROWS))
            a, out = (builder.gep(place, [builder.mul(done, step)]) for place, step in ((a, a_step), (out, out_step)))
            given = [left, a, a_step, b, depth, out, out_step]
            _call_for(builder, width, (1, 2), partial(_product, builder.module, HALF), given)
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, a, index, index, b, index, index, out, index, index, index), generate


@intrinsic
@no_type_check
def multiply_and_clamp(
    typing_context, blocks, a, a_step, b, b_at, depth, shift, shift_at, other, low, high, out, mask, at, step, width,
):  # fmt: skip
    """As `multiply`, with `shift`, of `width` vectors, added to each row, and a part of `other`, if that is not empty.

    If `mask` is not empty, the sum is clamped, and what was let through is noted there. `other`, `out` and `mask` lie
    alike, from `at` on, and their rows begin where vectors are aligned.
    """

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        a = address_of(context, builder, kinds[1], arguments[1], Constant(INDEX, 0))
        b, shift = (address_of(context, builder, kinds[k], arguments[k], arguments[k + 1]) for k in (3, 6))
        other, mask = (address_if_any(context, builder, signature, arguments, k, 13) for k in (8, 12))
        out = address_of(context, builder, kinds[11], arguments[11], arguments[13])
        blocks, _, a_step, _, _, depth, _, _, _, low, high, _, _, _, step, width = arguments
        given = [blocks, a, a_step, b, depth, out, step, shift, other, mask, low, high]
        _call_for(builder, width, (1, 2), partial(_product, builder.module, ROWS, finishes=True), given)
        return context.get_dummy_value()

    index, number = types.intp, types.float32
    return types.void(
        index, a, index, b, index, index, shift, index, other, number, number, out, mask, index, index, index
    ), generate  # fmt: skip


@intrinsic
@no_type_check
def multiply_nonzero(
    typing_context, places, a, a_step, marks, depth, b, b_at, sums, shift, shift_at, other, low, high, out, mask, at,
    step, width,
):  # fmt: skip
    """As `multiply_and_clamp`, for `places` rows of `a`, passing over what is zero there.

    `marks` [places, depth / WORD, rounded up] has a bit for each number of `a` that is not. `width` is one of WIDTHS,
    and `sums` has room for as many vectors for each place. The result is the same, if all of `b` is
    finite; only a zero's sign may differ.
    """

    def generate(context, builder, signature, arguments):
        kinds, zero = signature.args, Constant(INDEX, 0)
        a, marks, sums = (address_of(context, builder, kinds[k], arguments[k], zero) for k in (1, 3, 7))
        b, shift = (address_of(context, builder, kinds[k], arguments[k], arguments[k + 1]) for k in (5, 8))
        other, mask = (address_if_any(context, builder, signature, arguments, k, 15) for k in (10, 14))
        out = address_of(context, builder, kinds[13], arguments[13], arguments[15])
        places, _, a_step, _, depth, _, _, _, _, _, _, low, high, _, _, _, step, width = arguments
        given = [places, a, a_step, marks, depth, b, sums, out, step, shift, other, mask, low, high]
        _call_for(builder, width, WIDTHS, partial(_nonzero_product, builder.module), given)
        return context.get_dummy_value()

    index, number = types.intp, types.float32
    return types.void(
        index, a, index, marks, index, b, index, sums, shift, index, other, number, number, out, mask, index, index,
        index,
    ), generate  # fmt: skip


def _call_for(
    builder: IRBuilder, width: Value, widths: Iterable[int], function_of: Callable[[int], ir.Function],
    arguments: list[Value],
) -> None:  # fmt: skip
    """Call the function for a width, which is one of some; within each it is a constant."""
    for chosen in widths:
        with builder.if_then(builder.icmp_signed("==", width, Constant(INDEX, chosen))):
            builder.call(function_of(chosen), arguments)


def _nonzero_product(module: ir.Module, width: int) -> ir.Function:
    """Return the function behind `multiply_nonzero`.

    It takes a word of marks at a time, for all places: as many rows of the second factor stay in the nearest cache.
    """
    floats, bits_ = FLOAT.as_pointer(), INDEX.as_pointer()
    kinds = [INDEX, floats, INDEX, bits_, INDEX, *[floats] * 3, INDEX, floats, floats, BYTE.as_pointer(), FLOAT, FLOAT]
    function, is_new = _function(module, f"nonzero_product_{width}", kinds)
    if not is_new:
        return function
    builder = IRBuilder(function.append_basic_block())
    places, a, a_step, marks, depth, b, sums_before, out, out_step, *rest = function.args
    count = builder.sdiv(builder.add(depth, Constant(INDEX, WORD - 1)), Constant(INDEX, WORD))
    last = builder.sub(count, Constant(INDEX, 1))
    sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(width)]
    with cgutils.for_range(builder, count) as words, cgutils.for_range(builder, places) as loop:
        own = builder.gep(sums_before, [builder.mul(loop.index, Constant(INDEX, width * LANES))])
        is_first, is_last = (builder.icmp_signed("==", words.index, end) for end in (Constant(INDEX, 0), last))
        for k, total in enumerate(sums):
            before = load_from(builder, onward(builder, own, k), VECTOR)
            builder.store(builder.select(is_first, NOTHING, before), total)
        word = builder.mul(words.index, Constant(INDEX, WORD))
        row = builder.gep(a, [builder.add(builder.mul(loop.index, a_step), word)])
        panels = _starts(builder, builder.gep(b, [builder.mul(word, Constant(INDEX, PANEL))]), depth, width)
        bits = builder.load(builder.gep(marks, [builder.add(builder.mul(loop.index, count), words.index)]))
        _add_marked(builder, bits, row, panels, sums)
        with builder.if_then(is_last):
            at = builder.mul(loop.index, out_step)
            _finish(builder, [sums], at, out_step, *rest)
            for total, place in _with_places(builder, [sums], builder.gep(out, [at]), out_step):
                store_past_caches(builder, place, builder.load(total))
        with builder.if_then(builder.not_(is_last)):
            for k, total in enumerate(sums):
                store_at(builder, onward(builder, own, k), builder.load(total))
    builder.ret_void()
    return function


def _function(module: ir.Module, name: str, kinds: list[ir.Type]) -> tuple[ir.Function, bool]:
    """Return a function of a module, and whether it is new and has to be written.

    Inlined, the addresses that the caller's loops go through would take the registers that it needs; and were it called
    for each block, the caller's own stores would wait for the block's to reach the cache.
    """
    if name in module.globals:
        return module.globals[name], False
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, True


def _starts(builder: IRBuilder, first: Value, depth: Value, width: int) -> list[Value]:
    """Return where the vectors of a row begin that lies in several panels."""
    panel = builder.mul(depth, Constant(INDEX, PANEL))
    begins = steps(builder, first, panel, -(-width // 2))
    return [onward(builder, begins[k // 2], k % 2) for k in range(width)]


def _add_marked(builder: IRBuilder, bits: Value, row: Value, panels: list[Value], sums: list[Value]) -> None:
    """Add each number of a row that `bits` marks, times the vectors that belong to it."""
    before = builder.block
    head, body, done = (builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    left = builder.phi(INDEX)
    left.add_incoming(bits, before)
    builder.cbranch(builder.icmp_unsigned("!=", left, Constant(INDEX, 0)), body, done)
    builder.position_at_end(body)
    place = builder.cttz(left, Constant(ir.IntType(1), 1))
    factor = spread(builder, builder.load(builder.gep(row, [place])))
    onward_by = builder.mul(place, Constant(INDEX, PANEL))
    for start, total in zip(panels, sums, strict=True):
        other = load_from(builder, builder.gep(start, [onward_by]), VECTOR)
        builder.store(fused(builder, factor, other, builder.load(total)), total)
    left.add_incoming(builder.and_(left, builder.sub(left, Constant(INDEX, 1))), body)
    builder.branch(head)
    builder.position_at_end(done)


def _product(module: ir.Module, rows: int, width: int, finishes: bool = False) -> ir.Function:
    """Return the function behind `multiply` or `multiply_and_clamp`."""
    floats, bytes_ = FLOAT.as_pointer(), BYTE.as_pointer()
    added = [floats, floats, bytes_, FLOAT, FLOAT] if finishes else []
    kinds = [INDEX, floats, INDEX, floats, INDEX, floats, INDEX, *added]
    function, is_new = _function(module, f"product_{rows}_{width}_{finishes}", kinds)
    if not is_new:
        return function
    builder = IRBuilder(function.append_basic_block())
    blocks, a, a_step, b, depth, out, out_step, *rest = function.args
    with cgutils.for_range(builder, blocks) as loop:
        row = builder.mul(loop.index, Constant(INDEX, rows))
        at = builder.mul(row, out_step)
        firsts = steps(builder, builder.gep(a, [builder.mul(row, a_step)]), a_step, rows)
        if finishes:
            _, other, mask, _, _ = rest
            _prefetch(builder, other, at, out_step, rows, width, READ)
            _prefetch(builder, mask, at, out_step, rows, 1, WRITE)
        sums = _summed(builder, firsts, b, depth, width)
        if finishes:
            _finish(builder, sums, at, out_step, *rest)
        for total, place in _with_places(builder, sums, builder.gep(out, [at]), out_step):
            (store_past_caches if finishes else store_at)(builder, place, builder.load(total))
    builder.ret_void()
    return function


def _summed(builder: IRBuilder, firsts: list[Value], b: Value, depth: Value, width: int) -> list[list[Value]]:
    """Return where the sums of a product are, row by row."""
    sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(width)] for _ in firsts]
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
    return sums


def _finish(
    builder: IRBuilder, sums: list[list[Value]], at: Value, step: Value,
    shift: Value, other: Value, mask: Value, low: Value, high: Value,
) -> None:  # fmt: skip
    """Add what is asked for to each row of sums, clamp, and write the mask."""
    shifts = [load_from(builder, onward(builder, shift, k), VECTOR) for k in range(len(sums[0]))]
    for row in sums:
        for total, added in zip(row, shifts, strict=True):
            builder.store(builder.fadd(builder.load(total), added), total)
    with builder.if_then(_is_any(builder, other)):
        for total, place in _with_places(builder, sums, builder.gep(other, [at]), step):
            builder.store(builder.fadd(builder.load(total), load_from(builder, place, VECTOR)), total)
    with builder.if_then(_is_any(builder, mask)):
        low, high = spread(builder, low), spread(builder, high)
        for total, place in _with_places(builder, sums, builder.gep(mask, [at]), step):
            clamped, through = clamp(builder, builder.load(total), low, high)
            builder.store(clamped, total)
            store_at(builder, place, through)


def _prefetch(builder: IRBuilder, first: Value, at: Value, step: Value, rows: int, width: int, use: int) -> None:
    """Have a block brought to the cache, if there is one, while its product is computed."""
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), *[number] * 3])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    settings = [Constant(number, setting) for setting in (use, SOON, DATA)]
    with builder.if_then(_is_any(builder, first)):
        for place in _spots(builder, builder.gep(first, [at]), step, rows, width):
            builder.call(prefetch, [builder.bitcast(place, BYTE.as_pointer()), *settings])


def _with_places(
    builder: IRBuilder, sums: list[list[Value]], first: Value, step: Value
) -> Iterator[tuple[Value, Value]]:
    """Yield each sum of a block with the address of its vector, row by row."""
    yield from zip(chain(*sums), _spots(builder, first, step, len(sums), len(sums[0])), strict=True)


def _spots(builder: IRBuilder, first: Value, step: Value, rows: int, width: int) -> list[Value]:
    """Return the addresses of the vectors of a block, row by row."""
    return [onward(builder, row, k) for row in steps(builder, first, step, rows) for k in range(width)]


def _is_any(builder: IRBuilder, pointer: Value) -> Value:
    return builder.icmp_unsigned("!=", builder.ptrtoint(pointer, INDEX), Constant(INDEX, 0))


def _add_products(builder: IRBuilder, firsts: list[Value], b: Value, place: Value, sums: list[list[Value]]) -> None:
    """Add the outer product of a column of the first factor and a row of the second."""
    width = len(sums[0])
    row = builder.gep(b, [builder.mul(place, Constant(INDEX, width * LANES))])
    others = [load_from(builder, onward(builder, row, k), VECTOR) for k in range(width)]
    for first, totals in zip(firsts, sums, strict=True):
        factor = spread(builder, builder.load(builder.gep(first, [place])))
        for other, total in zip(others, totals, strict=True):
            builder.store(fused(builder, factor, other, builder.load(total)), total)
