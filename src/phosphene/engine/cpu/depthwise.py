"""Depthwise convolutions on the CPU in float32, with the 1x1 convolution in front that widens what they read.

What stands between the two is several times as wide as what is read, and is never written to memory. A thread computes
a panel of its channels, a few rows at a time, into a line buffer: the last rows that the window still sees, with zeros
around them, a plane for each vector of channels. Of the clamps a bit a unit is kept.

    forward    x  -> GEMM -> bias, clamp -> line buffer -> window -> bias, clamp -> y
    backward   dx <- GEMM <- mask <- window <- line buffer <- mask <- dy

The forward kernel shares out panels of channels, within strips of rows that are so high that x stays in a cache; a few
rows are widened in two strips. The backward kernel shares out strips of few rows with all their channels, whose GEMM
adds up in one piece. Every sum is added in the same order, whatever the strips, the threads and the image's size.
"""

from itertools import accumulate, product
from typing import Annotated, NamedTuple, no_type_check

import numba
import torch
from llvmlite import ir
from llvmlite.ir import IRBuilder
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from phosphene.engine.algorithms import FEWEST
from phosphene.engine.cpu.gemm import HALF_ROWS, PANEL, Rows, function_in, gemm
from phosphene.engine.cpu.kernel import Array, Floats, Scratch, kernel, next_part, run, share, unpack
from phosphene.engine.cpu.vectors import (
    FLOAT,
    HAS_AVX512,
    INDEX,
    LANES,
    VECTOR,
    ZERO,
    address_of,
    clamp_vector,
    fused,
    index,
    load,
    load_from,
    offset,
    onward,
    pointer,
    spread,
    store,
    store_at,
    store_past_caches_if_aligned,
    wait_for_stores,
)
from phosphene.engine.layout import Pair, new_channels_last, pixels

WINDOWS = ((3, 1), (3, 2), (5, 1), (5, 2))
"""Taps and strides, each of rows and columns, that are written out."""

BLOCK = 8 if HAS_AVX512 else 4
"""Places of a row whose sums are in registers together: an even number."""

AHEAD = 4
"""Rows that are widened at a time."""

STRIP = 2**18
"""Numbers of x in a strip that is widened: 1 MB, a part of what a core's cache holds."""

SEEN = 2**17
"""Numbers in front of the GEMM of a strip that goes back, of all channels."""

BITS, FLAGS = ir.IntType(LANES), ir.VectorType(ir.IntType(1), LANES)
"""Which numbers of a vector were let through, in memory and in a register."""


Bits = Annotated[Tensor, Array("uint8", 1)]


class Layer(NamedTuple):
    """A frozen convolution, 1x1 [channels, filters] or depthwise
    [channels / FEWEST, taps, taps, FEWEST], flat, and the clamp behind it."""

    weight: Floats
    bias: Floats
    low: float
    high: float


class Window(NamedTuple):
    """What a place sees: `taps` x `taps` places, those of the next one `stride` further.

    The first place's begin `top` rows and `left` columns in front of the input.
    """

    taps: int
    stride: int
    top: int
    left: int


class Lines(NamedTuple):
    """A line buffer: the numbers of a line, and their count less one, which is a power of 2.

    The input begins `inset` places within a line. Results come in `blocks` of a row; their first sees the places from
    `start` on, and some are `skipped`.
    """

    pitch: int
    around: int
    inset: int
    blocks: int
    start: int
    skipped: int


class Shape(NamedTuple):
    """Of a batch of inputs, wide channels, those of a 1x1 convolution's input or 0, and of the results."""

    images: int
    height: int
    width: int
    channels: int
    depth: int
    rows: int
    columns: int


Ends = tuple[int, int, int, int, int, int]


class ForwardArguments(NamedTuple):
    """What the forward kernel is given."""

    x: Floats
    pitch: int
    widen: Layer
    widened: Bits
    depthwise: Layer
    passed: Bits
    y: Floats
    shape: Shape
    window: Window
    lines: Lines
    strips: int
    ends: Ends
    scratch: Scratch


class BackwardArguments(NamedTuple):
    """What the backward kernel is given."""

    dy: Floats
    passed: Bits
    taps: Floats
    widened: Bits
    narrow: Floats
    dx: Floats
    shape: Shape
    window: Window
    lines: Lines
    high: int
    ends: Ends
    scratch: Scratch


def forward(x: Tensor, widen: Layer, depthwise: Layer, window: Window, size: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Return `x` [batch, channels, rows, columns] widened, clamped, convolved to `size` places and clamped, and what
    the first and the second clamp let through, a bit each.

    With no weights in `widen`, `x` is convolved as it is. The wide channels are a multiple of LANES.
    """
    values, pitch = pixels(x)
    images, _, height, width = x.shape
    channels, depth, blocks = len(depthwise.bias), len(widen.weight), -(-size[1] // BLOCK)
    places = max((blocks * BLOCK - 1) * window.stride + window.taps, window.left + width)
    lines = Lines(places * LANES, _around(window.taps - 1 + AHEAD), window.left, blocks, 0, 0)
    strips = max(1, min(size[0] // (2 * AHEAD), height * width * (depth or PANEL) // STRIP))
    ends = _ends(lines, AHEAD * width, depth, depth, 0)
    y = new_channels_last(x, channels, size)
    widened, passed = _bits_for(x, channels if depth else 0), _bits_for(y, channels)
    shape = Shape(images, height, width, channels, depth, *size)
    run(
        _forward,
        ForwardArguments(
            values, pitch, widen, widened, depthwise, passed, y, shape, window, lines, strips, ends, ends[-1]
        ),
    )  # fmt: skip
    return y, widened, passed


def backward(
    dy: Tensor, passed: Tensor, taps: Tensor, window: Window, widened: Tensor, narrow: Tensor, shape: torch.Size
) -> Tensor:
    """Return the gradient of an input of `shape`, given that of `forward`'s result, with channels last, and its bits.

    `narrow` has the weights of `widen` [filters, channels], with zeros behind up to a multiple of LANES.
    """
    images, few, height, width = shape
    _, channels, rows, columns = dy.shape
    side, stride, _, left = window
    depth, skipped, reach = few if len(narrow) else 0, left % stride, (side - 1) // stride
    blocks, high = -(-(width + skipped) // BLOCK), min(2 * AHEAD, max(2, SEEN // (width * channels)))
    places = reach + max(left // stride + (blocks * BLOCK - 1) // stride + 1, columns)
    lines = Lines(places * LANES, _around(high // stride + side), reach, blocks, left // stride, skipped)
    ends = _ends(lines, high * width, channels, channels if depth else 0, high * width * channels if depth else 0)
    dx = new_channels_last(dy, few, (height, width))
    shown = Shape(images, height, width, channels, depth, rows, columns)
    run(
        _backward,
        BackwardArguments(dy, passed, taps, widened, narrow, dx, shown, window, lines, high, ends, ends[-1]),
    )
    return dx


def _around(lines: int) -> int:
    """Return the next power of 2, less one."""
    return (1 << (lines - 1).bit_length()) - 1


def _bits_for(x: Tensor, channels: int) -> Tensor:
    """Return room for a bit for each of so many channels of the places of `x`, in bytes."""
    images, _, rows, columns = x.shape
    return x.new_empty(images * rows * columns * channels // 8, dtype=torch.uint8)


def _ends(lines: Lines, places: int, depth: int, packed: int, seen: int) -> Ends:
    """Return where in a thread's own numbers end: the line buffer, a row of the window's results, the GEMM's results,
    what it reads of its last rows, its panel of weights, and what it reads of a strip that goes back."""
    sizes = (
        2 * (lines.around + 1) * lines.pitch, lines.blocks * BLOCK * LANES, (places + HALF_ROWS) * PANEL,
        HALF_ROWS * depth, packed * PANEL, seen,
    )  # fmt: skip
    buffer, row, products, rest, panel, strip = accumulate(sizes)
    return buffer, row, products, rest, panel, strip


@kernel(ForwardArguments)
@no_type_check
def _forward(thread, threads, block):
    a = unpack(block, ForwardArguments)
    images, height, width, channels, depth, rows, columns = a.shape
    window, lines, strips, ends, widen = a.window, a.lines, a.strips, a.ends, a.widen
    (taps, stride, above, _), scratch = window, a.scratch[thread]
    row, products, rest, panel = scratch[ends[0] :], scratch[ends[1] :], scratch[ends[2] :], scratch[ends[3] :]
    scratch[: ends[0]] = 0
    vectors, panels = channels // LANES, -(-channels // PANEL)
    part = next_part(thread, threads, block, images * strips * panels)
    while part >= 0:
        strip, first = part // panels, part % panels * 2
        image, count = strip // strips, min(2, vectors - first)
        top, bottom = share(strip % strips, strips, rows)
        done, stop = top * stride - above, (bottom - 1) * stride - above + taps
        _pack(widen.weight, first * LANES, channels, depth, count, panel)
        for i in range(top, bottom):
            while done < i * stride - above + taps:
                begin, end = max(done, 0), min(done + AHEAD, stop, height)
                if depth and begin < end:
                    at, places = (image * height + begin) * width * a.pitch, (end - begin) * width
                    _multiply(a.x, at, a.pitch, places, panel, depth, count, products, rest)
                for line in range(done, min(done + AHEAD, stop)):
                    place = (image * height + line) * width
                    for v in range(count):
                        to, channel = _place_of(lines, v, line), (first + v) * LANES
                        if not begin <= line < end:
                            _clear(scratch, to, lines)
                        elif depth:
                            at, bit = (line - begin) * width * PANEL + v * LANES, place * vectors + (first + v) * width
                            _clamp_into_line(
                                products, at, widen.bias, channel, widen.low, widen.high,
                                scratch, to, a.widened, bit, width,
                            )  # fmt: skip
                        else:
                            _copy(a.x, place * a.pitch + channel, a.pitch, scratch, to, LANES, width)
                done += AHEAD
            place = (image * rows + i) * columns
            for v in range(count):
                channel = (first + v) * LANES
                _slide(window, scratch, v, lines, i * stride - above, 1, a.depthwise.weight, channel, 0, row)
                _clamp_past_caches(
                    row, a.depthwise.bias, channel, a.depthwise.low, a.depthwise.high, a.y, place * channels + channel,
                    channels, a.passed, place * vectors + (first + v) * columns, columns,
                )  # fmt: skip
        part = next_part(thread, threads, block, images * strips * panels)
    wait_for_stores()


@kernel(BackwardArguments)
@no_type_check
def _backward(thread, threads, block):
    a = unpack(block, BackwardArguments)
    images, height, width, channels, depth, rows, columns = a.shape
    window, lines, high, ends = a.window, a.lines, a.high, a.ends
    (taps, stride, above, _), scratch = window, a.scratch[thread]
    row, products, rest, panel = scratch[ends[0] :], scratch[ends[1] :], scratch[ends[2] :], scratch[ends[3] :]
    seen, shown = scratch[ends[4] :], lines.skipped * LANES
    scratch[: ends[0]] = 0
    vectors, strips = channels // LANES, -(-height // high)
    part = next_part(thread, threads, block, images * strips)
    while part >= 0:
        image, top = part // strips, part % strips * high
        bottom = min(top + high, height)
        for vector in range(vectors):
            channel = vector * LANES
            for line in range(-((taps - 1 - top - above) // stride), (bottom - 1 + above) // stride + 1):
                place, to = (image * rows + line) * columns, _place_of(lines, 0, line)
                if 0 <= line < rows:
                    at, bit = place * channels + channel, place * vectors + vector * columns
                    _keep(a.dy, at, channels, a.passed, bit, scratch, to, LANES, columns)
                else:
                    _clear(scratch, to, lines)
            for i in range(top, bottom):
                tap, place = (i + above) % stride, (image * height + i) * width
                _slide_back(window, scratch, 0, lines, (i + above) // stride, -1, a.taps, channel, tap, row)
                if depth:
                    bit, to = place * vectors + vector * width, (i - top) * width * channels + channel
                    _keep(row, shown, LANES, a.widened, bit, seen, to, channels, width)
                else:
                    _copy(row, shown, LANES, a.dx, place * channels + channel, channels, width)
        for column in range(0, depth, PANEL):
            few, place = min(PANEL, depth - column), (image * height + top) * width
            count = -(-few // LANES)
            _pack(a.narrow, column, -(-depth // FEWEST) * FEWEST, channels, count, panel)
            _multiply(seen, 0, channels, (bottom - top) * width, panel, channels, count, products, rest)
            for j in range((bottom - top) * width):
                for c in range(few):
                    a.dx[(place + j) * depth + column + c] = products[j * PANEL + c]
        part = next_part(thread, threads, block, images * strips)


@numba.njit(inline="always")
@no_type_check
def _place_of(lines, plane, line):
    """Return where the input begins in a line of a plane."""
    return (plane * (lines.around + 1) + (line & lines.around)) * lines.pitch + lines.inset * LANES


@numba.njit(inline="always")
@no_type_check
def _clear(buffer, place, lines):
    """Fill a line with zeros, given where its input begins."""
    begin = place - lines.inset * LANES
    buffer[begin : begin + lines.pitch] = 0


@numba.njit(inline="always")
@no_type_check
def _pack(weight, at, pitch, depth, width, panel):
    """Lay out `depth` rows of `width` vectors, `pitch` apart, for `gemm`."""
    for k in range(depth):
        for v in range(width):
            store(panel, (k * width + v) * LANES, load(weight, at + k * pitch + v * LANES))


@numba.njit(inline="always")
@no_type_check
def _multiply(x, at, pitch, places, panel, depth, width, products, rest):
    """Set rows of PANEL numbers to the products of so many places, `pitch` apart, and a panel.

    The last that are less than HALF_ROWS are copied, for there may be nothing behind them.
    """
    whole = places // HALF_ROWS * HALF_ROWS
    gemm(whole // HALF_ROWS, Rows(x, at, pitch), Rows(panel, 0, 0), depth, Rows(products, 0, PANEL), width)
    for k in range(places - whole):
        for c in range(depth):
            rest[k * depth + c] = x[at + (whole + k) * pitch + c]
    if whole < places:
        gemm(1, Rows(rest, 0, depth), Rows(panel, 0, 0), depth, Rows(products, whole * PANEL, PANEL), width)


@numba.njit(inline="always")
@no_type_check
def _copy(values, at, pitch, out, to, out_pitch, count):
    """Copy so many vectors."""
    for j in range(count):
        store(out, to + j * out_pitch, load(values, at + j * pitch))


@numba.njit(inline="always")
@no_type_check
def _keep(values, at, pitch, bits, bit, out, to, out_pitch, count):
    """Copy so many vectors, with zeros where a bit is not set."""
    for j in range(count):
        _keep_vector(values, at + j * pitch, bits, bit + j, out, to + j * out_pitch)


@numba.njit(inline="always")
@no_type_check
def _clamp_into_line(values, at, shift, channel, low, high, line, to, bits, bit, count):
    """Write so many vectors of a GEMM's results, shifted and clamped, to a line."""
    for j in range(count):
        _clamp_near(values, at + j * PANEL, shift, channel, low, high, line, to + j * LANES, bits, bit + j)


@numba.njit(inline="always")
@no_type_check
def _clamp_past_caches(row, shift, channel, low, high, y, to, channels, bits, bit, count):
    """Write so many vectors of a row, shifted and clamped, to `y`, which is not read again soon."""
    for j in range(count):
        _clamp_far(row, j * LANES, shift, channel, low, high, y, to + j * channels, bits, bit + j)


@intrinsic
@no_type_check
def _keep_vector(typing_context, values, at, bits, bit, out, to):
    """Write the vector at `values`, with zeros where a bit is not set."""

    def generate(context, builder, signature, arguments):
        value, marks, place = (_place(context, builder, signature, arguments, k) for k in (0, 2, 4))
        through = builder.bitcast(builder.load(pointer(builder, marks, BITS), align=1, typ=BITS), FLAGS)
        store_at(builder, place, builder.select(through, load_from(builder, value), ZERO))
        return context.get_dummy_value()

    return types.void(values, types.intp, bits, types.intp, out, types.intp), generate


@no_type_check
def _clamping(store_value):
    """Return a function of kernels that writes the vector at `values` plus the one at `shift`, clamped, and the bits of
    what was let through."""

    @intrinsic
    @no_type_check
    def write(typing_context, values, at, shift, shift_at, low, high, out, to, bits, bit):
        def generate(context, builder, signature, arguments):
            value, added, place, marks = (_place(context, builder, signature, arguments, k) for k in (0, 2, 6, 8))
            total = builder.fadd(load_from(builder, value), load_from(builder, added))
            low, high = (spread(builder, arguments[k]) for k in (4, 5))
            clamped, through = clamp_vector(builder, total, low, high)
            store_value(builder, place, clamped)
            store_at(builder, marks, builder.bitcast(builder.trunc(through, FLAGS), BITS))
            return context.get_dummy_value()

        whole, number = types.intp, types.float32
        return types.void(values, whole, shift, whole, number, number, out, whole, bits, whole), generate

    return write


_clamp_near, _clamp_far = _clamping(store_at), _clamping(store_past_caches_if_aligned)


@no_type_check
def _place(context, builder, signature, arguments, k):
    """Return the address of a place of an array, or of the bits of a vector, given which arguments these are."""
    array, at = arguments[k], arguments[k + 1]
    if signature.args[k].dtype == types.uint8:
        at = builder.mul(at, index(LANES // 8))
    return address_of(context, builder, signature.args[k], array, at)


@no_type_check
def _sliding(back):
    """Return a function of kernels that sets `row` to a row of what a window, or its adjoint, sees in a line buffer.

    The row of taps `tap` is on `line`, each that follows `onward_by` lines further; the adjoint's are a stride apart.
    """

    @intrinsic
    @no_type_check
    def slide(typing_context, window, buffer, plane, lines, line, onward_by, kernel, channel, tap, row):
        def generate(context, builder, signature, arguments):
            window, buffer, plane, lines, line, onward_by, kernel, channel, tap, row = arguments
            taps, stride, _, _ = cgutils.unpack_tuple(builder, window)
            pitch, around, _, blocks, start, _ = cgutils.unpack_tuple(builder, lines)
            plane = builder.mul(builder.mul(plane, builder.add(around, index(1))), pitch)
            begin = builder.add(plane, builder.mul(start, index(LANES)))
            places = (
                (1, buffer, begin),
                (6, kernel, _tap_at(builder, taps, channel, tap)),
                (9, row, index(0)),
            )
            buffer, kernel, row = (address_of(context, builder, signature.args[k], *place) for k, *place in places)
            count = builder.sub(taps, tap)
            if back:
                count = builder.sdiv(builder.add(count, builder.sub(stride, index(1))), stride)
            given = [buffer, pitch, around, line, onward_by, count, kernel, row, blocks]
            for sides, apart in WINDOWS:
                of_taps, of_stride = (
                    builder.icmp_signed("==", found, index(wanted))
                    for found, wanted in ((taps, sides), (stride, apart))
                )
                with builder.if_then(builder.and_(of_taps, of_stride)):
                    builder.call(_row_of(builder.module, sides, apart, back), given)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(window, buffer, whole, lines, whole, whole, kernel, whole, whole, row), generate

    return slide


_slide, _slide_back = _sliding(back=False), _sliding(back=True)


@no_type_check
def _tap_at(builder, taps, channel, tap):
    """Return where a vector's row of taps begins: kernels are [channels / FEWEST, taps, taps, FEWEST]."""
    few = index(FEWEST)
    group, within = builder.sdiv(channel, few), builder.srem(channel, few)
    row = builder.mul(builder.add(builder.mul(group, taps), tap), taps)
    return builder.add(builder.mul(row, few), within)


@no_type_check
def _row_of(module, taps, stride, back):
    """Return the function behind `_slide` or `_slide_back` for a window."""
    name, floats = f"slide_{taps}_{stride}_{back}", FLOAT.as_pointer()
    kinds = [floats, *[INDEX] * 5, floats, floats, INDEX]
    function, is_new = function_in(module, name, kinds)
    if not is_new:
        return function
    builder = IRBuilder(function.append_basic_block())
    buffer, pitch, around, line, onward_by, count, kernel, row, blocks = function.args
    seen = _seen(taps, stride, back)
    further, apart = (BLOCK // stride * LANES, stride) if back else (BLOCK * stride * LANES, 1)
    sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(BLOCK)]
    with cgutils.for_range(builder, blocks) as loop:
        for total in sums:
            builder.store(ZERO, total)
        first = offset(builder, buffer, builder.mul(loop.index, index(further)))
        with cgutils.for_range(builder, count) as tap:
            at = builder.and_(builder.add(line, builder.mul(tap.index, onward_by)), around)
            place = offset(builder, first, builder.mul(at, pitch))
            first_tap = offset(builder, kernel, builder.mul(tap.index, index(apart * taps * FEWEST)))
            factors = [load_from(builder, onward(builder, first_tap, m * FEWEST // LANES)) for m in range(taps)]
            values = {k: load_from(builder, onward(builder, place, k)) for _, _, k in seen}
            for t, m, k in seen:
                builder.store(fused(builder, factors[m], values[k], builder.load(sums[t])), sums[t])
        to = offset(builder, row, builder.mul(loop.index, index(BLOCK * LANES)))
        for t, total in enumerate(sums):
            store_at(builder, onward(builder, to, t), builder.load(total))
    builder.ret_void()
    return function


def _seen(taps: int, stride: int, back: bool) -> list[tuple[int, int, int]]:
    """Return which result of a block adds which tap times which place."""
    pairs = product(range(BLOCK), range(taps))
    if not back:
        return [(t, m, t * stride + m) for t, m in pairs]
    return [(t, m, (t - m) // stride + (taps - 1) // stride) for t, m in pairs if (t - m) % stride == 0]
