"""Depthwise convolutions on the CPU in float32, fused with the 1x1 expansion in front of them.

The expanded activation has several times the channels of the input, and is never written to memory. A thread computes a
panel of its channels, a few rows at a time, into a ring buffer. The buffer holds the last rows that the depthwise
window still reads, padded with zeros: one plane for each vector of channels. Each clamp saves a mask, one bit for each
output.

    forward    x  -> GEMM -> bias, clamp -> ring buffer -> depthwise -> bias, clamp -> y
    backward   dx <- GEMM <- mask <- depthwise, transposed <- ring buffer <- mask <- dy

The forward kernel splits the work by image, strip of rows and panel of channels. A strip is so high that its part of x
stays in a cache; the few rows that two strips share are expanded twice. The backward kernel splits the work by image
and strip of a few rows, with all channels, since its GEMM sums over them. Every sum is added up in the same order,
whatever the strips, the number of threads and the size of the image.
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

from phosphene.engine.algorithms import MAX_LANES
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
    broadcast,
    clamp_vector,
    fma,
    index,
    load,
    load_vector,
    offset,
    pointer,
    store,
    store_nontemporal_if_aligned,
    store_vector,
    vector_offset,
    wait_for_stores,
)
from phosphene.engine.layout import Pair, new_channels_last, pixels

WINDOWS = ((3, 1), (3, 2), (5, 1), (5, 2))
"""Kernel sizes and strides, the same for rows and columns, for which code is generated."""

BLOCK = 8 if HAS_AVX512 else 4
"""Pixels of a row whose sums are in registers at once: an even number."""

EXPAND_ROWS = 4
"""Rows that are expanded at a time."""

FORWARD_STRIP = 2**18
"""Floats of x in a strip of the forward kernel: 1 MB, a part of a core's cache."""

BACKWARD_STRIP = 2**17
"""Floats of the expanded gradient, over all channels, in a strip of the backward kernel."""

BITS, FLAGS = ir.IntType(LANES), ir.VectorType(ir.IntType(1), LANES)
"""LLVM's types of a vector's mask: in memory and in a register."""


Bits = Annotated[Tensor, Array("uint8", 1)]


class Layer(NamedTuple):
    """A frozen convolution and the clamp behind it.

    The weight is flat: [input channels, filters] of a 1x1 convolution, and of a depthwise one [channels / MAX_LANES,
    taps, taps, MAX_LANES].
    """

    weight: Floats
    bias: Floats
    low: float
    high: float


class Window(NamedTuple):
    """A window of `taps` x `taps` pixels, with the same `stride` both ways.

    The first window begins `top` rows and `left` columns in front of the input.
    """

    taps: int
    stride: int
    top: int
    left: int


class Ring(NamedTuple):
    """A ring buffer of lines, a power of two for each plane.

    Line i of a plane lies at `i & ring_mask`. The window's results of a row are computed in `blocks` of BLOCK.
    """

    line_floats: int
    """Floats in a line: a vector for each pixel, with the padding."""
    ring_mask: int
    """Lines of a plane, less one."""
    lead: int
    """Pixels of padding at the left of a line."""
    blocks: int
    start: int
    """Pixel of a line at which the first block's window begins."""
    drop: int
    """Leading results of a row that are not part of the output."""


class Shape(NamedTuple):
    """The sizes of both layers, of a batch of `images`."""

    images: int
    height: int
    """Rows of the input, and of the expanded activation."""
    width: int
    channels: int
    """Of the expanded activation and the output."""
    in_channels: int
    """Of the input, or 0 if there is no expansion."""
    rows: int
    """Rows of the output."""
    columns: int


Ends = tuple[int, int, int, int, int, int]


class ForwardArguments(NamedTuple):
    """The arguments of the forward kernel. `pitch` is that of x: floats from one pixel to the next."""

    x: Floats
    pitch: int
    expand: Layer
    expand_mask: Bits
    depthwise: Layer
    out_mask: Bits
    y: Floats
    shape: Shape
    window: Window
    ring: Ring
    strips: int
    """Strips in an image."""
    ends: Ends
    scratch: Scratch


class BackwardArguments(NamedTuple):
    """The arguments of the backward kernel."""

    dy: Floats
    out_mask: Bits
    depthwise_weight: Floats
    expand_mask: Bits
    expand_weight: Floats
    dx: Floats
    shape: Shape
    window: Window
    ring: Ring
    strip_rows: int
    ends: Ends
    scratch: Scratch


def forward(x: Tensor, expand: Layer, depthwise: Layer, window: Window, size: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Expand `x` [batch, channels, rows, columns] and clamp, then convolve depthwise to `size` pixels and clamp.

    Returns the result, and the masks of the first and the second clamp, one bit an output. If `expand` has no weights,
    `x` itself is convolved. The expanded channels are a multiple of LANES.
    """
    values, pitch = pixels(x)
    images, _, height, width = x.shape
    channels, in_channels, blocks = len(depthwise.bias), len(expand.weight), -(-size[1] // BLOCK)
    line_pixels = max((blocks * BLOCK - 1) * window.stride + window.taps, window.left + width)
    ring = Ring(line_pixels * LANES, _ring_mask(window.taps - 1 + EXPAND_ROWS), window.left, blocks, 0, 0)
    strips = max(1, min(size[0] // (2 * EXPAND_ROWS), height * width * (in_channels or PANEL) // FORWARD_STRIP))
    ends = _ends(ring, EXPAND_ROWS * width, in_channels, in_channels, 0)
    y = new_channels_last(x, channels, size)
    expand_mask, out_mask = _empty_mask(x, channels if in_channels else 0), _empty_mask(y, channels)
    shape = Shape(images, height, width, channels, in_channels, *size)
    run(
        _forward,
        ForwardArguments(
            values, pitch, expand, expand_mask, depthwise, out_mask, y, shape, window, ring, strips, ends, ends[-1]
        ),
    )  # fmt: skip
    return y, expand_mask, out_mask


def backward(
    dy: Tensor,
    out_mask: Tensor,
    depthwise_weight: Tensor,
    window: Window,
    expand_mask: Tensor,
    expand_weight: Tensor,
    shape: torch.Size,
) -> Tensor:
    """Return the gradient of an input of `shape`, given that of `forward`'s result, channels last, and its masks.

    `expand_weight` is [expanded channels, input channels], the latter padded with zeros to a multiple of LANES.
    """
    images, x_channels, height, width = shape
    _, channels, rows, columns = dy.shape
    taps, stride, _, left = window
    in_channels, drop, reach = x_channels if len(expand_weight) else 0, left % stride, (taps - 1) // stride
    blocks, strip_rows = -(-(width + drop) // BLOCK), min(2 * EXPAND_ROWS, max(2, BACKWARD_STRIP // (width * channels)))
    line_pixels = reach + max(left // stride + (blocks * BLOCK - 1) // stride + 1, columns)
    ring = Ring(line_pixels * LANES, _ring_mask(strip_rows // stride + taps), reach, blocks, left // stride, drop)
    ends = _ends(
        ring, strip_rows * width, channels, channels if in_channels else 0,
        strip_rows * width * channels if in_channels else 0,
    )  # fmt: skip
    dx = new_channels_last(dy, x_channels, (height, width))
    sizes = Shape(images, height, width, channels, in_channels, rows, columns)
    run(
        _backward,
        BackwardArguments(
            dy, out_mask, depthwise_weight, expand_mask, expand_weight, dx, sizes, window, ring, strip_rows, ends,
            ends[-1],
        ),
    )  # fmt: skip
    return dx


def _ring_mask(lines: int) -> int:
    """Return the next power of two, less one."""
    return (1 << (lines - 1).bit_length()) - 1


def _empty_mask(x: Tensor, channels: int) -> Tensor:
    """Return an uninitialised mask for `channels` channels of the pixels of `x`, one bit each."""
    images, _, rows, columns = x.shape
    return x.new_empty(images * rows * columns * channels // 8, dtype=torch.uint8)


def _ends(ring: Ring, gemm_pixels: int, depth: int, packed_depth: int, strip_floats: int) -> Ends:
    """Return the offsets at which the parts of a thread's scratch end, in floats.

    They are the ring buffer, a row of the window's results, the GEMM's results, a copy of the last rows that it reads,
    its packed panel of weights, and a strip of the expanded gradient.
    """
    sizes = (
        2 * (ring.ring_mask + 1) * ring.line_floats, ring.blocks * BLOCK * LANES, (gemm_pixels + HALF_ROWS) * PANEL,
        HALF_ROWS * depth, packed_depth * PANEL, strip_floats,
    )  # fmt: skip
    buffer, row, products, tail, panel, strip = accumulate(sizes)
    return buffer, row, products, tail, panel, strip


@kernel(ForwardArguments)
@no_type_check
def _forward(thread, threads, block):
    a = unpack(block, ForwardArguments)
    images, height, width, channels, in_channels, rows, columns = a.shape
    window, ring, strips, ends, expand = a.window, a.ring, a.strips, a.ends, a.expand
    (taps, stride, lead, _), scratch = window, a.scratch[thread]
    row, products, tail, panel = scratch[ends[0] :], scratch[ends[1] :], scratch[ends[2] :], scratch[ends[3] :]
    scratch[: ends[0]] = 0
    vectors, panels = channels // LANES, -(-channels // PANEL)
    part = next_part(thread, threads, block, images * strips * panels)
    while part >= 0:
        strip, first = part // panels, part % panels * 2
        image, count = strip // strips, min(2, vectors - first)
        top, bottom = share(strip % strips, strips, rows)
        next_line, last_line = top * stride - lead, (bottom - 1) * stride - lead + taps
        _pack(expand.weight, first * LANES, channels, in_channels, count, panel)
        for i in range(top, bottom):
            while next_line < i * stride - lead + taps:
                begin, end = max(next_line, 0), min(next_line + EXPAND_ROWS, last_line, height)
                if in_channels and begin < end:
                    at, gemm_pixels = (image * height + begin) * width * a.pitch, (end - begin) * width
                    _multiply(a.x, at, a.pitch, gemm_pixels, panel, in_channels, count, products, tail)
                for line in range(next_line, min(next_line + EXPAND_ROWS, last_line)):
                    pixel = (image * height + line) * width
                    for v in range(count):
                        to, channel = _line_start(ring, v, line), (first + v) * LANES
                        if not begin <= line < end:
                            _clear(scratch, to, ring)
                        elif in_channels:
                            at, bit_at = (
                                (line - begin) * width * PANEL + v * LANES,
                                pixel * vectors + (first + v) * width,
                            )
                            _clamp_into_ring(
                                products, at, expand.bias, channel, expand.low, expand.high,
                                scratch, to, a.expand_mask, bit_at, width,
                            )  # fmt: skip
                        else:
                            _copy(a.x, pixel * a.pitch + channel, a.pitch, scratch, to, LANES, width)
                next_line += EXPAND_ROWS
            pixel = (image * rows + i) * columns
            for v in range(count):
                channel = (first + v) * LANES
                _convolve_row(window, scratch, v, ring, i * stride - lead, 1, a.depthwise.weight, channel, 0, row)
                _clamp_into_output(
                    row, a.depthwise.bias, channel, a.depthwise.low, a.depthwise.high, a.y, pixel * channels + channel,
                    channels, a.out_mask, pixel * vectors + (first + v) * columns, columns,
                )  # fmt: skip
        part = next_part(thread, threads, block, images * strips * panels)
    wait_for_stores()


@kernel(BackwardArguments)
@no_type_check
def _backward(thread, threads, block):
    a = unpack(block, BackwardArguments)
    images, height, width, channels, in_channels, rows, columns = a.shape
    window, ring, strip_rows, ends = a.window, a.ring, a.strip_rows, a.ends
    (taps, stride, lead, _), scratch = window, a.scratch[thread]
    row, products, tail, panel = scratch[ends[0] :], scratch[ends[1] :], scratch[ends[2] :], scratch[ends[3] :]
    expanded, first = scratch[ends[4] :], ring.drop * LANES
    scratch[: ends[0]] = 0
    vectors, strips = channels // LANES, -(-height // strip_rows)
    part = next_part(thread, threads, block, images * strips)
    while part >= 0:
        image, top = part // strips, part % strips * strip_rows
        bottom = min(top + strip_rows, height)
        for vector in range(vectors):
            channel = vector * LANES
            for line in range(-((taps - 1 - top - lead) // stride), (bottom - 1 + lead) // stride + 1):
                pixel, to = (image * rows + line) * columns, _line_start(ring, 0, line)
                if 0 <= line < rows:
                    at, bit_at = pixel * channels + channel, pixel * vectors + vector * columns
                    _copy_masked(a.dy, at, channels, a.out_mask, bit_at, scratch, to, LANES, columns)
                else:
                    _clear(scratch, to, ring)
            for i in range(top, bottom):
                tap, pixel = (i + lead) % stride, (image * height + i) * width
                _convolve_row_transposed(
                    window, scratch, 0, ring, (i + lead) // stride, -1, a.depthwise_weight, channel, tap, row
                )
                if in_channels:
                    bit_at, to = pixel * vectors + vector * width, (i - top) * width * channels + channel
                    _copy_masked(row, first, LANES, a.expand_mask, bit_at, expanded, to, channels, width)
                else:
                    _copy(row, first, LANES, a.dx, pixel * channels + channel, channels, width)
        for column in range(0, in_channels, PANEL):
            panel_columns, pixel = min(PANEL, in_channels - column), (image * height + top) * width
            count = -(-panel_columns // LANES)
            _pack(a.expand_weight, column, -(-in_channels // MAX_LANES) * MAX_LANES, channels, count, panel)
            _multiply(expanded, 0, channels, (bottom - top) * width, panel, channels, count, products, tail)
            for j in range((bottom - top) * width):
                for c in range(panel_columns):
                    a.dx[(pixel + j) * in_channels + column + c] = products[j * PANEL + c]
        part = next_part(thread, threads, block, images * strips)


@numba.njit(inline="always")
@no_type_check
def _line_start(ring, plane, line):
    """Return where the first pixel of a line lies in the ring buffer, behind the padding."""
    return (plane * (ring.ring_mask + 1) + (line & ring.ring_mask)) * ring.line_floats + ring.lead * LANES


@numba.njit(inline="always")
@no_type_check
def _clear(buffer, start, ring):
    """Fill a line with zeros, given the `start` of its first pixel."""
    begin = start - ring.lead * LANES
    buffer[begin : begin + ring.line_floats] = 0


@numba.njit(inline="always")
@no_type_check
def _pack(weight, at, pitch, depth, width, panel):
    """Pack `depth` rows of `width` vectors, which begin `at` and lie `pitch` apart, for `gemm`."""
    for k in range(depth):
        for v in range(width):
            store(panel, (k * width + v) * LANES, load(weight, at + k * pitch + v * LANES))


@numba.njit(inline="always")
@no_type_check
def _multiply(x, at, pitch, count, panel, depth, width, products, tail):
    """Multiply `count` pixels of x, `depth` floats each and `pitch` apart, by a packed panel of `width` vectors.

    The products are rows of PANEL floats. The last pixels, fewer than HALF_ROWS, are copied to `tail` first: the GEMM
    reads HALF_ROWS of them, and x may end there.
    """
    whole = count // HALF_ROWS * HALF_ROWS
    gemm(whole // HALF_ROWS, Rows(x, at, pitch), Rows(panel, 0, 0), depth, Rows(products, 0, PANEL), width)
    for k in range(count - whole):
        for c in range(depth):
            tail[k * depth + c] = x[at + (whole + k) * pitch + c]
    if whole < count:
        gemm(1, Rows(tail, 0, depth), Rows(panel, 0, 0), depth, Rows(products, whole * PANEL, PANEL), width)


@numba.njit(inline="always")
@no_type_check
def _copy(values, at, pitch, out, to, out_pitch, count):
    """Copy `count` vectors."""
    for j in range(count):
        store(out, to + j * out_pitch, load(values, at + j * pitch))


@numba.njit(inline="always")
@no_type_check
def _copy_masked(values, at, pitch, bits, bit_at, out, to, out_pitch, count):
    """Copy `count` vectors, with zeros where a bit of the mask is not set."""
    for j in range(count):
        _copy_vector_masked(values, at + j * pitch, bits, bit_at + j, out, to + j * out_pitch)


@numba.njit(inline="always")
@no_type_check
def _clamp_into_ring(values, at, bias, channel, low, high, buffer, to, bits, bit_at, count):
    """Add the bias to `count` vectors of a GEMM's results, clamp them into a line of the ring buffer, and write the
    mask."""
    for j in range(count):
        _clamp_store(values, at + j * PANEL, bias, channel, low, high, buffer, to + j * LANES, bits, bit_at + j)


@numba.njit(inline="always")
@no_type_check
def _clamp_into_output(row, bias, channel, low, high, y, to, channels, bits, bit_at, count):
    """Add the bias to `count` vectors of a row, clamp them into `y`, which is not read again soon, and write the
    mask."""
    for j in range(count):
        _clamp_store_nontemporal(row, j * LANES, bias, channel, low, high, y, to + j * channels, bits, bit_at + j)


@intrinsic
@no_type_check
def _copy_vector_masked(typing_context, values, at, bits, bit_at, out, to):
    """Copy a vector, with zeros where a bit of the mask is not set."""

    def generate(context, builder, signature, arguments):
        source, mask, target = (_address(context, builder, signature, arguments, k) for k in (0, 2, 4))
        through = builder.bitcast(builder.load(pointer(builder, mask, BITS), align=1, typ=BITS), FLAGS)
        store_vector(builder, target, builder.select(through, load_vector(builder, source), ZERO))
        return context.get_dummy_value()

    return types.void(values, types.intp, bits, types.intp, out, types.intp), generate


@no_type_check
def _clamping(store_value):
    """Return an intrinsic that adds a vector of the bias to one of values, clamps the sum, writes it with
    `store_value`, and writes the mask, a bit each."""

    @intrinsic
    @no_type_check
    def write(typing_context, values, at, bias, bias_at, low, high, out, to, bits, bit_at):
        def generate(context, builder, signature, arguments):
            value, bias, target, mask = (_address(context, builder, signature, arguments, k) for k in (0, 2, 6, 8))
            total = builder.fadd(load_vector(builder, value), load_vector(builder, bias))
            low, high = (broadcast(builder, arguments[k]) for k in (4, 5))
            clamped, through = clamp_vector(builder, total, low, high)
            store_value(builder, target, clamped)
            store_vector(builder, mask, builder.bitcast(builder.trunc(through, FLAGS), BITS))
            return context.get_dummy_value()

        intp, number = types.intp, types.float32
        return types.void(values, intp, bias, intp, number, number, out, intp, bits, intp), generate

    return write


_clamp_store, _clamp_store_nontemporal = _clamping(store_vector), _clamping(store_nontemporal_if_aligned)


@no_type_check
def _address(context, builder, signature, arguments, k):
    """Return the address of element `arguments[k + 1]` of the array `arguments[k]`; in a mask elements are vectors."""
    array, at = arguments[k], arguments[k + 1]
    if signature.args[k].dtype == types.uint8:
        at = builder.mul(at, index(LANES // 8))
    return address_of(context, builder, signature.args[k], array, at)


@no_type_check
def _row_convolution(transposed):
    """Return an intrinsic that sets `row` to a row of the depthwise convolution, or of its transpose, of a plane of the
    ring buffer.

    The kernel's row `tap` is applied to `line`, and each further one `line_step` lines on. The transpose skips
    `stride` rows of the kernel each time.
    """

    @intrinsic
    @no_type_check
    def convolve(typing_context, window, buffer, plane, ring, line, line_step, kernel, channel, tap, row):
        def generate(context, builder, signature, arguments):
            window, buffer, plane, ring, line, line_step, kernel, channel, tap, row = arguments
            taps, stride, _, _ = cgutils.unpack_tuple(builder, window)
            line_floats, ring_mask, _, blocks, start, _ = cgutils.unpack_tuple(builder, ring)
            plane = builder.mul(builder.mul(plane, builder.add(ring_mask, index(1))), line_floats)
            begin = builder.add(plane, builder.mul(start, index(LANES)))
            places = (
                (1, buffer, begin),
                (6, kernel, _tap_offset(builder, taps, channel, tap)),
                (9, row, index(0)),
            )
            buffer, kernel, row = (address_of(context, builder, signature.args[k], *place) for k, *place in places)
            count = builder.sub(taps, tap)
            if transposed:
                count = builder.sdiv(builder.add(count, builder.sub(stride, index(1))), stride)
            operands = [buffer, line_floats, ring_mask, line, line_step, count, kernel, row, blocks]
            for window_taps, window_stride in WINDOWS:
                has_taps, has_stride = (
                    builder.icmp_signed("==", value, index(wanted))
                    for value, wanted in ((taps, window_taps), (stride, window_stride))
                )
                with builder.if_then(builder.and_(has_taps, has_stride)):
                    builder.call(_row_function(builder.module, window_taps, window_stride, transposed), operands)
            return context.get_dummy_value()

        intp = types.intp
        return types.void(window, buffer, intp, ring, intp, intp, kernel, intp, intp, row), generate

    return convolve


_convolve_row, _convolve_row_transposed = _row_convolution(transposed=False), _row_convolution(transposed=True)


@no_type_check
def _tap_offset(builder, taps, channel, tap):
    """Return where row `tap` of the kernel of a vector of channels begins in the weights."""
    lanes = index(MAX_LANES)
    group, within = builder.sdiv(channel, lanes), builder.srem(channel, lanes)
    row = builder.mul(builder.add(builder.mul(group, taps), tap), taps)
    return builder.add(builder.mul(row, lanes), within)


@no_type_check
def _row_function(module, taps, stride, transposed):
    """Return the function behind `_convolve_row` or `_convolve_row_transposed` for a window."""
    name, floats = f"convolve_row_{taps}_{stride}_{transposed}", FLOAT.as_pointer()
    kinds = [floats, *[INDEX] * 5, floats, floats, INDEX]
    function, is_new = function_in(module, name, kinds)
    if not is_new:
        return function
    builder = IRBuilder(function.append_basic_block())
    buffer, line_floats, ring_mask, line, line_step, count, kernel, row, blocks = function.args
    terms = _terms(taps, stride, transposed)
    block_floats, tap_step = (BLOCK // stride * LANES, stride) if transposed else (BLOCK * stride * LANES, 1)
    sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(BLOCK)]
    with cgutils.for_range(builder, blocks) as loop:
        for total in sums:
            builder.store(ZERO, total)
        first = offset(builder, buffer, builder.mul(loop.index, index(block_floats)))
        with cgutils.for_range(builder, count) as tap:
            at = builder.and_(builder.add(line, builder.mul(tap.index, line_step)), ring_mask)
            place = offset(builder, first, builder.mul(at, line_floats))
            first_tap = offset(builder, kernel, builder.mul(tap.index, index(tap_step * taps * MAX_LANES)))
            factors = [
                load_vector(builder, vector_offset(builder, first_tap, m * MAX_LANES // LANES)) for m in range(taps)
            ]
            values = {k: load_vector(builder, vector_offset(builder, place, k)) for _, _, k in terms}
            for t, m, k in terms:
                builder.store(fma(builder, factors[m], values[k], builder.load(sums[t])), sums[t])
        to = offset(builder, row, builder.mul(loop.index, index(BLOCK * LANES)))
        for t, total in enumerate(sums):
            store_vector(builder, vector_offset(builder, to, t), builder.load(total))
    builder.ret_void()
    return function


def _terms(taps: int, stride: int, transposed: bool) -> list[tuple[int, int, int]]:
    """Return the products of a block as (result, tap, pixel): result += kernel[tap] * line[pixel]."""
    pairs = product(range(BLOCK), range(taps))
    if not transposed:
        return [(t, m, t * stride + m) for t, m in pairs]
    return [(t, m, (t - m) // stride + (taps - 1) // stride) for t, m in pairs if (t - m) % stride == 0]
