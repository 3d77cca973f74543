"""Matrix products (GEMM) of float32 for kernels that Numba compiles: out = a @ b, in blocks held in registers.

Products are added by fused multiply-add, with one rounding, in the same order on every processor. `b` is packed: it is
cut into panels as wide as a register block, and the rows of each panel follow one another.
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
    EpiloguePointers,
    address_of,
    broadcast,
    clamp_vector,
    epilogue_pointers,
    fields_of,
    fma,
    index,
    is_not_null,
    load_scalar,
    load_vector,
    offset,
    pointer,
    store_nontemporal,
    store_vector,
    strided,
    vector_offset,
)

ROWS = 12 if HAS_AVX512 else 6
"""Rows of a register block (MR). With two vectors a row they fill the registers: 32 of 16 floats with AVX-512, 16 of 8
with AVX2."""

HALF_ROWS = ROWS // 2
"""Rows of the smallest block."""

PANEL = 2 * LANES
"""Columns of a register block, and of a packed panel (NR). The last panel may have half as many."""

WIDTHS = (8, 6, 4)
"""Widths, in vectors, of the blocks of `gemm_skip_zeros`. Narrower ones would spend longer on scanning the bits than on
multiplying."""

WORD = 64
"""Bits in a word: one for each element of a row of `a`, set where that is not zero."""

UNROLLED = 4
"""Steps of the loop over `depth` that are unrolled."""

READ, WRITE, SOON, DATA = 0, 1, 3, 1
"""Operands of LLVM's prefetch: read or write, locality, data cache."""


class Rows(NamedTuple):
    """Rows of a matrix in a flat array: the first begins `at`, and they lie `step` floats apart."""

    array: Floats
    at: int
    step: int


def pack(factors: Tensor) -> Tensor:
    """Pack matrices [products, depth, columns] as `b` for `gemm`: [products, panels, depth, columns of a panel], flat.

    Missing columns are zeros. The last panel is one vector wide if that is enough.
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
    """Set a block of `out` to a @ b. All three are `Rows`.

    `a` has `halves` x HALF_ROWS rows of `depth` floats, and `b` is a packed panel, `depth` rows of `width` vectors (1
    or 2).
    """

    def generate(context, builder, signature, arguments):
        halves, a, b, depth, out, width = arguments
        kinds = signature.args
        (a, a_step), (b, _), (out, out_step) = (
            _first_row(context, builder, kind, rows) for kind, rows in ((kinds[1], a), (kinds[2], b), (kinds[4], out))
        )
        blocks, odd = builder.ashr(halves, index(1)), builder.and_(halves, index(1))
        arguments = [blocks, a, a_step, b, depth, out, out_step]
        _call_for(builder, width, (1, 2), partial(_gemm_function, builder.module, ROWS), arguments)
        with builder.if_then(builder.icmp_signed("!=", odd, index(0))):
            row = builder.mul(blocks, index(ROWS))
            a, out = (
                offset(builder, address, builder.mul(row, step)) for address, step in ((a, a_step), (out, out_step))
            )
            arguments = [odd, a, a_step, b, depth, out, out_step]
            _call_for(builder, width, (1, 2), partial(_gemm_function, builder.module, HALF_ROWS), arguments)
        return context.get_dummy_value()

    return types.void(types.intp, a, b, types.intp, out, types.intp), generate


@intrinsic
@no_type_check
def gemm_with_epilogue(typing_context, blocks, a, b, depth, epilogue, column, at, step, width):
    """As `gemm`, for `blocks` x ROWS rows, with an epilogue, whose bias is read from `column` on.

    In the epilogue's other arrays the rows begin `at`, where vectors are aligned, and lie `step` elements apart.
    """

    def generate(context, builder, signature, arguments):
        blocks, a, b, depth, epilogue, column, at, step, width = arguments
        kinds = signature.args
        (a, a_step), (b, _) = (
            _first_row(context, builder, kind, rows) for kind, rows in ((kinds[1], a), (kinds[2], b))
        )
        pointers = epilogue_pointers(context, builder, kinds[4], epilogue, column, at)
        arguments = [blocks, a, a_step, b, depth, pointers.out, step, *_epilogue_operands(pointers)]
        _call_for(builder, width, (1, 2), partial(_gemm_function, builder.module, ROWS, has_epilogue=True), arguments)
        return context.get_dummy_value()

    intp = types.intp
    return types.void(intp, a, b, intp, epilogue, intp, intp, intp, intp), generate


@intrinsic
@no_type_check
def gemm_skip_zeros(typing_context, rows, a, bits, b, depth, sums, epilogue, column, at, step, width):
    """As `gemm_with_epilogue`, for any number of `rows`, skipping the zeros of `a`.

    `bits` [rows, depth / WORD rounded up] has a bit for each element of `a`, set where that is not zero. `width` is one
    of WIDTHS. `sums` is scratch for [rows, width] vectors. If all of `b` is finite, the result is the same to the bit,
    except for the signs of zeros.
    """

    def generate(context, builder, signature, arguments):
        rows, a, bits, b, depth, sums, epilogue, column, at, step, width = arguments
        kinds = signature.args
        (a, a_step), (b, _) = (_first_row(context, builder, kinds[k], arguments[k]) for k in (1, 3))
        bits, sums = (address_of(context, builder, kinds[k], arguments[k], index(0)) for k in (2, 5))
        pointers = epilogue_pointers(context, builder, kinds[6], epilogue, column, at)
        arguments = [rows, a, a_step, bits, depth, b, sums, pointers.out, step, *_epilogue_operands(pointers)]
        _call_for(builder, width, WIDTHS, partial(_gemm_skip_zeros_function, builder.module), arguments)
        return context.get_dummy_value()

    intp = types.intp
    return types.void(intp, a, bits, b, intp, sums, epilogue, intp, intp, intp, intp), generate


def _first_row(context: Any, builder: IRBuilder, kind: Any, rows: Value) -> tuple[Value, Value]:
    """Return the address of the first of `rows`, and their step."""
    values, kinds = fields_of(builder, kind, rows)
    return address_of(context, builder, kinds.array, values.array, values.at), values.step


OPERAND_TYPES = [FLOAT.as_pointer(), FLOAT.as_pointer(), BYTE.as_pointer(), FLOAT, FLOAT]


def _epilogue_operands(pointers: EpiloguePointers) -> list[Value]:
    """Return the epilogue's operands for a generated function, of OPERAND_TYPES."""
    return [pointers.bias, pointers.addend, pointers.mask, pointers.low, pointers.high]


def _call_for(
    builder: IRBuilder, width: Value, widths: Iterable[int], function_of: Callable[[int], ir.Function],
    arguments: list[Value],
) -> None:  # fmt: skip
    """Call the function that is generated for `width`, one of `widths`. There it is a constant."""
    for constant_width in widths:
        with builder.if_then(builder.icmp_signed("==", width, index(constant_width))):
            builder.call(function_of(constant_width), arguments)


def _gemm_skip_zeros_function(module: ir.Module, width: int) -> ir.Function:
    """Return the function behind `gemm_skip_zeros`.

    The outer loop is over words of `depth`, the inner one over rows, so that WORD rows of `b` stay in the L1 cache.
    """
    floats, bits_ = FLOAT.as_pointer(), INDEX.as_pointer()
    kinds = [INDEX, floats, INDEX, bits_, INDEX, *[floats] * 3, INDEX, *OPERAND_TYPES]
    function, is_new = function_in(module, f"gemm_skip_zeros_{width}", kinds)
    if not is_new:
        return function
    builder = IRBuilder(function.append_basic_block())
    rows, a, a_step, bits_of_rows, depth, b, partial_sums, out, out_step, *epilogue = function.args
    count = builder.sdiv(builder.add(depth, index(WORD - 1)), index(WORD))
    last = builder.sub(count, index(1))
    sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(width)]
    with cgutils.for_range(builder, count) as words, cgutils.for_range(builder, rows) as loop:
        row_sums = offset(builder, partial_sums, builder.mul(loop.index, index(width * LANES)))
        is_first, is_last = (builder.icmp_signed("==", words.index, end) for end in (index(0), last))
        for k, total in enumerate(sums):
            partial_sum = load_vector(builder, vector_offset(builder, row_sums, k))
            builder.store(builder.select(is_first, ZERO, partial_sum), total)
        word = builder.mul(words.index, index(WORD))
        row = offset(builder, a, builder.add(builder.mul(loop.index, a_step), word))
        panels = _vectors_in_panels(builder, offset(builder, b, builder.mul(word, index(PANEL))), depth, width)
        at = builder.add(builder.mul(loop.index, count), words.index)
        bits = load_scalar(builder, offset(builder, bits_of_rows, at, INDEX), INDEX)
        _add_nonzero(builder, bits, row, panels, sums)
        with builder.if_then(is_last):
            at = builder.mul(loop.index, out_step)
            _apply_epilogue(builder, [sums], at, out_step, *epilogue)
            for total, place in zip(sums, _block_vectors(builder, out, at, out_step, 1, width), strict=True):
                store_nontemporal(builder, place, builder.load(total))
        with builder.if_then(builder.not_(is_last)):
            for k, total in enumerate(sums):
                store_vector(builder, vector_offset(builder, row_sums, k), builder.load(total))
    builder.ret_void()
    return function


def function_in(module: ir.Module, name: str, kinds: list[ir.Type]) -> tuple[ir.Function, bool]:
    """Return the function `name` of a module, and whether it is new, so that its body has to be generated.

    It is not inlined, since the caller's loop addresses would take the registers that it needs. And it loops over
    blocks itself: called for each block, the caller's own stores would wait until the block's reach the cache.
    """
    if name in module.globals:
        return module.globals[name], False
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, True


def _vectors_in_panels(builder: IRBuilder, first: Value, depth: Value, width: int) -> list[Value]:
    """Return the addresses of the `width` vectors of a row of `b`, which lie in several panels."""
    panel = builder.mul(depth, index(PANEL))
    begins = strided(builder, first, panel, -(-width // 2))
    return [vector_offset(builder, begins[k // 2], k % 2) for k in range(width)]


def _add_nonzero(builder: IRBuilder, bits: Value, row: Value, panels: list[Value], sums: list[Value]) -> None:
    """Add each element of a row of `a` whose bit is set, times its row of `b`, to the sums."""
    entry = builder.block
    head, body, end = (builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    remaining = builder.phi(INDEX)
    remaining.add_incoming(bits, entry)
    builder.cbranch(builder.icmp_unsigned("!=", remaining, index(0)), body, end)
    builder.position_at_end(body)
    bit = builder.cttz(remaining, Constant(ir.IntType(1), 1))
    factor = broadcast(builder, load_scalar(builder, offset(builder, row, bit)))
    row_offset = builder.mul(bit, index(PANEL))
    for start, total in zip(panels, sums, strict=True):
        other = load_vector(builder, offset(builder, start, row_offset), VECTOR)
        builder.store(fma(builder, factor, other, builder.load(total)), total)
    remaining.add_incoming(builder.and_(remaining, builder.sub(remaining, index(1))), body)
    builder.branch(head)
    builder.position_at_end(end)


def _gemm_function(module: ir.Module, rows: int, width: int, has_epilogue: bool = False) -> ir.Function:
    """Return the function behind `gemm` or `gemm_with_epilogue`."""
    floats = FLOAT.as_pointer()
    kinds = [INDEX, floats, INDEX, floats, INDEX, floats, INDEX, *(OPERAND_TYPES if has_epilogue else [])]
    function, is_new = function_in(module, f"gemm_{rows}_{width}_{has_epilogue}", kinds)
    if not is_new:
        return function
    builder = IRBuilder(function.append_basic_block())
    blocks, a, a_step, b, depth, out, out_step, *epilogue = function.args
    with cgutils.for_range(builder, blocks) as loop:
        row = builder.mul(loop.index, index(rows))
        at = builder.mul(row, out_step)
        a_rows = strided(builder, offset(builder, a, builder.mul(row, a_step)), a_step, rows)
        if has_epilogue:
            _, addend, mask, _, _ = epilogue
            _prefetch(builder, _block_vectors(builder, addend, at, out_step, rows, width), addend, READ)
            _prefetch(builder, _block_vectors(builder, mask, at, out_step, rows, 1, BYTE), mask, WRITE)
        sums = _accumulate(builder, a_rows, b, depth, width)
        if has_epilogue:
            _apply_epilogue(builder, sums, at, out_step, *epilogue)
        for total, address in zip(chain(*sums), _block_vectors(builder, out, at, out_step, rows, width), strict=True):
            (store_nontemporal if has_epilogue else store_vector)(builder, address, builder.load(total))
    builder.ret_void()
    return function


def _accumulate(builder: IRBuilder, a_rows: list[Value], b: Value, depth: Value, width: int) -> list[list[Value]]:
    """Generate the loop over `depth`; return the addresses of the sums, [rows][width]."""
    sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(width)] for _ in a_rows]
    for total in chain(*sums):
        builder.store(ZERO, total)
    whole = builder.sdiv(depth, index(UNROLLED))
    with cgutils.for_range(builder, whole) as loop:
        for step in range(UNROLLED):
            k = builder.add(builder.mul(loop.index, index(UNROLLED)), index(step))
            _add_outer_product(builder, a_rows, b, k, sums)
    unrolled = builder.mul(whole, index(UNROLLED))
    with cgutils.for_range_slice(builder, unrolled, depth, index(1), INDEX) as (k, _):
        _add_outer_product(builder, a_rows, b, k, sums)
    return sums


def _apply_epilogue(
    builder: IRBuilder, sums: list[list[Value]], at: Value, step: Value,
    bias: Value, addend: Value, mask: Value, low: Value, high: Value,
) -> None:  # fmt: skip
    """Apply the epilogue to a block of sums and write its mask; the caller writes the result."""
    rows, width = len(sums), len(sums[0])
    bias_vectors = [load_vector(builder, vector_offset(builder, bias, k)) for k in range(width)]
    for row in sums:
        for total, bias_vector in zip(row, bias_vectors, strict=True):
            builder.store(builder.fadd(builder.load(total), bias_vector), total)
    with builder.if_then(is_not_null(builder, addend)):
        for total, address in zip(chain(*sums), _block_vectors(builder, addend, at, step, rows, width), strict=True):
            builder.store(builder.fadd(builder.load(total), load_vector(builder, address)), total)
    with builder.if_then(is_not_null(builder, mask)):
        low, high = broadcast(builder, low), broadcast(builder, high)
        for total, address in zip(
            chain(*sums), _block_vectors(builder, mask, at, step, rows, width, BYTE), strict=True
        ):
            clamped, through = clamp_vector(builder, builder.load(total), low, high)
            builder.store(clamped, total)
            store_vector(builder, address, through)


def _prefetch(builder: IRBuilder, places: list[Value], array: Value, use: int) -> None:
    """Prefetch vectors of an array, unless it is null, while their product is computed."""
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), *[number] * 3])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    settings = [Constant(number, setting) for setting in (use, SOON, DATA)]
    with builder.if_then(is_not_null(builder, array)):
        for place in places:
            builder.call(prefetch, [pointer(builder, place, BYTE), *settings])


def _block_vectors(
    builder: IRBuilder, array: Value, at: Value, step: Value, rows: int, width: int, kind: ir.Type = FLOAT
) -> list[Value]:
    """Return the addresses of the vectors of a block of an array that begins `at`, row by row."""
    first = offset(builder, array, at, kind)
    return [
        vector_offset(builder, row, k, kind) for row in strided(builder, first, step, rows, kind) for k in range(width)
    ]


def _add_outer_product(builder: IRBuilder, a_rows: list[Value], b: Value, k: Value, sums: list[list[Value]]) -> None:
    """Add the outer product of column `k` of `a` and row `k` of `b`."""
    width = len(sums[0])
    row = offset(builder, b, builder.mul(k, index(width * LANES)))
    b_vectors = [load_vector(builder, vector_offset(builder, row, v)) for v in range(width)]
    for a_row, totals in zip(a_rows, sums, strict=True):
        factor = broadcast(builder, load_scalar(builder, offset(builder, a_row, k)))
        for b_vector, total in zip(b_vectors, totals, strict=True):
            builder.store(fma(builder, factor, b_vector, builder.load(total)), total)
