"""Matrix products (GEMM) of float32 for kernels that Numba compiles, in blocks that the registers hold.

Products are added with one rounding (fma), in the same order on every processor. The second factor is packed: cut into
panels of as many columns as a block has, each panel's rows behind each other.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, no_type_check

from llvmlite import ir
from llvmlite.ir import Constant, IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from phosphene.engine.cpu.kernel import Floats
from phosphene.engine.cpu.vectors import (
    BYTE,
    FLOAT,
    HAS_AVX512,
    INDEX,
    LANES,
    VECTOR,
    ZERO,
    Places,
    address_of,
    clamp_vector,
    fields_of,
    fused,
    index,
    is_any,
    load_from,
    load_number,
    offset,
    onward,
    places_of,
    pointer,
    spread,
    steps,
    store_at,
    store_past_caches,
)

ROWS = 12 if HAS_AVX512 else 6
"""Rows of a block of a product: with two vectors a row they fill the registers, of which there are 32 of 16 numbers
with AVX-512, and 16 of 8 with AVX2."""

HALF_ROWS = ROWS // 2
"""Rows of the smallest block."""

PANEL = 2 * LANES
"""Columns of a block of a product, but for the last, which may have half as many."""

WIDTHS = (8, 6, 4)
"""Allowed widths, in vectors, of the product that skips zeros; narrower ones spend longer scanning the bits than
multiplying."""

WORD = 64
"""Bits, one for each number that may be zero, that are kept together."""

UNROLLED = 4
"""Steps of a product's sum that are written out, so that one jump is spent on as many."""

READ, WRITE, SOON, DATA = 0, 1, 3, 1
"""What LLVM's prefetch is told."""


class Rows(NamedTuple):
    """Rows of a matrix in a flat array: the first begins `at`, and each lies a `step` behind the one before."""

    array: Floats
    at: int
    step: int


def pack(factors: Tensor) -> Tensor:
    """Lay out factors [products, depth, columns] for `gemm`: [products, panels, depth, columns of a panel], flat.

    There are zeros where there are no more columns; the last panel has one vector if they end there.
    """
    products, depth, columns = factors.shape
    packed = factors.new_zeros(products, depth * (columns + -columns % LANES))
    for first in range(0, columns, PANEL):
        width = min(PANEL, columns + -columns % LANES - first)
        panel = packed[:, first * depth : (first + width) * depth].view(products, depth, width)
        panel[:, :, : columns - first].copy_(factors[:, :, first : first + width])
    return packed.flatten()


@intrinsic
@no_type_check
def gemm(typing_context, halves, a, b, depth, out, width):
    """Set a part of `out` to the product of `halves` x HALF_ROWS rows of `depth` numbers of `a`, and of `b`, packed,
    `depth` rows of `width` vectors, 1 or 2. All three are `Rows`.
    """

    def generate(context, builder, signature, arguments):
        halves, a, b, depth, out, width = arguments
        kinds = signature.args
        (a, a_step), (b, _), (out, out_step) = (
            _first_row(context, builder, kind, rows) for kind, rows in ((kinds[1], a), (kinds[2], b), (kinds[4], out))
        )
        blocks, left = builder.ashr(halves, index(1)), builder.and_(halves, index(1))
        arguments = [blocks, a, a_step, b, depth, out, out_step]
        _call_for(builder, width, (1, 2), partial(_gemm_function, builder.module, ROWS), arguments)
        with builder.if_then(builder.icmp_signed("!=", left, index(0))):
            done = builder.mul(blocks, index(ROWS))
            a, out = (offset(builder, at, builder.mul(done, step)) for at, step in ((a, a_step), (out, out_step)))
            arguments = [left, a, a_step, b, depth, out, out_step]
            _call_for(builder, width, (1, 2), partial(_gemm_function, builder.module, HALF_ROWS), arguments)
        return context.get_dummy_value()

    return types.void(types.intp, a, b, types.intp, out, types.intp), generate


@intrinsic
@no_type_check
def gemm_with_epilogue(typing_context, blocks, a, b, depth, epilogue, column, at, step, width):
    """As `gemm`, of `blocks` x ROWS rows, whose results go by way of an epilogue, for the filters from `column` on.

    In its arrays the rows begin `at`, where vectors are aligned, and lie a `step` apart.
    """

    def generate(context, builder, signature, arguments):
        blocks, a, b, depth, epilogue, column, at, step, width = arguments
        kinds = signature.args
        (a, a_step), (b, _) = (
            _first_row(context, builder, kind, rows) for kind, rows in ((kinds[1], a), (kinds[2], b))
        )
        places = places_of(context, builder, kinds[4], epilogue, column, at)
        arguments = [blocks, a, a_step, b, depth, places.out, step, *_finishing(places)]
        _call_for(builder, width, (1, 2), partial(_gemm_function, builder.module, ROWS, finishes=True), arguments)
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, a, b, index, epilogue, index, index, index, index), generate


@intrinsic
@no_type_check
def gemm_skip_zeros(typing_context, rows, a, bits, b, depth, sums, epilogue, column, at, step, width):
    """As `gemm_with_epilogue`, for any number of `rows` of `a`, skipping what is zero there.

    `bits` [rows, depth / WORD, rounded up] has a bit for each number of `a` that is not. `width` is one of WIDTHS, and
    `sums` has room for as many vectors for each row. The result is the same, if all of `b` is finite; only a zero's
    sign may differ.
    """

    def generate(context, builder, signature, arguments):
        rows, a, bits, b, depth, sums, epilogue, column, at, step, width = arguments
        kinds = signature.args
        (a, a_step), (b, _) = (_first_row(context, builder, kinds[k], arguments[k]) for k in (1, 3))
        bits, sums = (address_of(context, builder, kinds[k], arguments[k], index(0)) for k in (2, 5))
        places = places_of(context, builder, kinds[6], epilogue, column, at)
        arguments = [rows, a, a_step, bits, depth, b, sums, places.out, step, *_finishing(places)]
        _call_for(builder, width, WIDTHS, partial(_skipping_function, builder.module), arguments)
        return context.get_dummy_value()

    number = types.intp
    return types.void(number, a, bits, b, number, sums, epilogue, number, number, number, number), generate


def _first_row(context: Any, builder: IRBuilder, kind: Any, rows: Value) -> tuple[Value, Value]:
    """Return the address of the first of some `Rows`, and their step."""
    values, kinds = fields_of(builder, kind, rows)
    return address_of(context, builder, kinds.array, values.array, values.at), values.step


FINISHING = [FLOAT.as_pointer(), FLOAT.as_pointer(), BYTE.as_pointer(), FLOAT, FLOAT]


def _finishing(places: Places) -> list[Value]:
    """What a function of FINISHING is given of an epilogue."""
    return [places.bias, places.addend, places.mask, places.low, places.high]


def _call_for(
    builder: IRBuilder, width: Value, widths: Iterable[int], function_of: Callable[[int], ir.Function],
    arguments: list[Value],
) -> None:  # fmt: skip
    """Call the function for a width, which is one of some; within each it is a constant."""
    for chosen in widths:
        with builder.if_then(builder.icmp_signed("==", width, index(chosen))):
            builder.call(function_of(chosen), arguments)


def _skipping_function(module: ir.Module, width: int) -> ir.Function:
    """Return the function behind `gemm_skip_zeros`.

    It takes a word of bits at a time, for all rows: as many rows of the second factor stay in the nearest cache.
    """
    floats, bits_ = FLOAT.as_pointer(), INDEX.as_pointer()
    kinds = [INDEX, floats, INDEX, bits_, INDEX, *[floats] * 3, INDEX, *FINISHING]
    function, is_new = function_in(module, f"gemm_skip_zeros_{width}", kinds)
    if not is_new:
        return function
    builder = IRBuilder(function.append_basic_block())
    places, a, a_step, bits_of_rows, depth, b, sums_before, out, out_step, *rest = function.args
    count = builder.sdiv(builder.add(depth, index(WORD - 1)), index(WORD))
    last = builder.sub(count, index(1))
    sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(width)]
    with cgutils.for_range(builder, count) as words, cgutils.for_range(builder, places) as loop:
        own = offset(builder, sums_before, builder.mul(loop.index, index(width * LANES)))
        is_first, is_last = (builder.icmp_signed("==", words.index, end) for end in (index(0), last))
        for k, total in enumerate(sums):
            before = load_from(builder, onward(builder, own, k))
            builder.store(builder.select(is_first, ZERO, before), total)
        word = builder.mul(words.index, index(WORD))
        row = offset(builder, a, builder.add(builder.mul(loop.index, a_step), word))
        panels = _starts(builder, offset(builder, b, builder.mul(word, index(PANEL))), depth, width)
        at = builder.add(builder.mul(loop.index, count), words.index)
        bits = load_number(builder, offset(builder, bits_of_rows, at, INDEX), INDEX)
        _add_nonzero(builder, bits, row, panels, sums)
        with builder.if_then(is_last):
            at = builder.mul(loop.index, out_step)
            _finish(builder, [sums], at, out_step, *rest)
            for total, place in zip(sums, _spots(builder, out, at, out_step, 1, width), strict=True):
                store_past_caches(builder, place, builder.load(total))
        with builder.if_then(builder.not_(is_last)):
            for k, total in enumerate(sums):
                store_at(builder, onward(builder, own, k), builder.load(total))
    builder.ret_void()
    return function


def function_in(module: ir.Module, name: str, kinds: list[ir.Type]) -> tuple[ir.Function, bool]:
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
    panel = builder.mul(depth, index(PANEL))
    begins = steps(builder, first, panel, -(-width // 2))
    return [onward(builder, begins[k // 2], k % 2) for k in range(width)]


def _add_nonzero(builder: IRBuilder, bits: Value, row: Value, panels: list[Value], sums: list[Value]) -> None:
    """Add each number of a row that has a bit, times the vectors that belong to it."""
    before = builder.block
    head, body, done = (builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    left = builder.phi(INDEX)
    left.add_incoming(bits, before)
    builder.cbranch(builder.icmp_unsigned("!=", left, index(0)), body, done)
    builder.position_at_end(body)
    place = builder.cttz(left, Constant(ir.IntType(1), 1))
    factor = spread(builder, load_number(builder, offset(builder, row, place)))
    onward_by = builder.mul(place, index(PANEL))
    for start, total in zip(panels, sums, strict=True):
        other = load_from(builder, offset(builder, start, onward_by), VECTOR)
        builder.store(fused(builder, factor, other, builder.load(total)), total)
    left.add_incoming(builder.and_(left, builder.sub(left, index(1))), body)
    builder.branch(head)
    builder.position_at_end(done)


def _gemm_function(module: ir.Module, rows: int, width: int, finishes: bool = False) -> ir.Function:
    """Return the function behind `gemm` or `gemm_with_epilogue`."""
    floats = FLOAT.as_pointer()
    kinds = [INDEX, floats, INDEX, floats, INDEX, floats, INDEX, *(FINISHING if finishes else [])]
    function, is_new = function_in(module, f"gemm_{rows}_{width}_{finishes}", kinds)
    if not is_new:
        return function
    builder = IRBuilder(function.append_basic_block())
    blocks, a, a_step, b, depth, out, out_step, *rest = function.args
    with cgutils.for_range(builder, blocks) as loop:
        row = builder.mul(loop.index, index(rows))
        at = builder.mul(row, out_step)
        firsts = steps(builder, offset(builder, a, builder.mul(row, a_step)), a_step, rows)
        if finishes:
            _, addend, mask, _, _ = rest
            _prefetch(builder, _spots(builder, addend, at, out_step, rows, width), addend, READ)
            _prefetch(builder, _spots(builder, mask, at, out_step, rows, 1, BYTE), mask, WRITE)
        sums = _summed(builder, firsts, b, depth, width)
        if finishes:
            _finish(builder, sums, at, out_step, *rest)
        for total, place in zip(chain(*sums), _spots(builder, out, at, out_step, rows, width), strict=True):
            (store_past_caches if finishes else store_at)(builder, place, builder.load(total))
    builder.ret_void()
    return function


def _summed(builder: IRBuilder, firsts: list[Value], b: Value, depth: Value, width: int) -> list[list[Value]]:
    """Return where the sums of a product are, row by row."""
    sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(width)] for _ in firsts]
    for total in chain(*sums):
        builder.store(ZERO, total)
    whole = builder.sdiv(depth, index(UNROLLED))
    with cgutils.for_range(builder, whole) as loop:
        for step in range(UNROLLED):
            place = builder.add(builder.mul(loop.index, index(UNROLLED)), index(step))
            _add_products(builder, firsts, b, place, sums)
    done = builder.mul(whole, index(UNROLLED))
    with cgutils.for_range_slice(builder, done, depth, index(1), INDEX) as (place, _):
        _add_products(builder, firsts, b, place, sums)
    return sums


def _finish(
    builder: IRBuilder, sums: list[list[Value]], at: Value, step: Value,
    bias: Value, addend: Value, mask: Value, low: Value, high: Value,
) -> None:  # fmt: skip
    """Take each row of sums through the epilogue, but for writing it."""
    rows, width = len(sums), len(sums[0])
    biases = [load_from(builder, onward(builder, bias, k)) for k in range(width)]
    for row in sums:
        for total, added in zip(row, biases, strict=True):
            builder.store(builder.fadd(builder.load(total), added), total)
    with builder.if_then(is_any(builder, addend)):
        for total, place in zip(chain(*sums), _spots(builder, addend, at, step, rows, width), strict=True):
            builder.store(builder.fadd(builder.load(total), load_from(builder, place)), total)
    with builder.if_then(is_any(builder, mask)):
        low, high = spread(builder, low), spread(builder, high)
        for total, place in zip(chain(*sums), _spots(builder, mask, at, step, rows, width, BYTE), strict=True):
            clamped, through = clamp_vector(builder, builder.load(total), low, high)
            builder.store(clamped, total)
            store_at(builder, place, through)


def _prefetch(builder: IRBuilder, places: list[Value], array: Value, use: int) -> None:
    """Have some vectors brought to the cache, if there is an array of them, while their product is computed."""
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), *[number] * 3])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    settings = [Constant(number, setting) for setting in (use, SOON, DATA)]
    with builder.if_then(is_any(builder, array)):
        for place in places:
            builder.call(prefetch, [pointer(builder, place, BYTE), *settings])


def _spots(
    builder: IRBuilder, array: Value, at: Value, step: Value, rows: int, width: int, kind: ir.Type = FLOAT
) -> list[Value]:
    """Return the addresses of the vectors of a block of an array, from a place on, row by row."""
    first = offset(builder, array, at, kind)
    return [onward(builder, row, k, kind) for row in steps(builder, first, step, rows, kind) for k in range(width)]


def _add_products(builder: IRBuilder, firsts: list[Value], b: Value, place: Value, sums: list[list[Value]]) -> None:
    """Add the outer product of a column of the first factor and a row of the second."""
    width = len(sums[0])
    row = offset(builder, b, builder.mul(place, index(width * LANES)))
    others = [load_from(builder, onward(builder, row, k)) for k in range(width)]
    for first, totals in zip(firsts, sums, strict=True):
        factor = spread(builder, load_number(builder, offset(builder, first, place)))
        for other, total in zip(others, totals, strict=True):
            builder.store(fused(builder, factor, other, builder.load(total)), total)
