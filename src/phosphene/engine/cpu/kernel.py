"""Kernels: functions that Numba compiles, and that all threads run at once, each on a part of the work.

    class Scale(NamedTuple):                # the kernel's arguments, declared once, for Python and for Numba
        values: Floats
        factor: float

    @kernel(Scale)
    def scale(thread, threads, block):
        a = unpack(block, Scale)
        first, last = share(thread, threads, a.values.size)
        ...

    run(scale, Scale(tensor, 2.0))

A kernel is compiled as a serial function. With Numba's parallel loop around it, Numba would optimise it and generate
its code twice. Its inputs, outputs and scratch are passed by address, and it must not allocate or raise: Numba would
print the error and go on, with a wrong result. Its arguments lie in a block of 64-bit slots:

    block    -> [ &counters | slots of argument 1 | slots of argument 2 | ... ]      an array's slots: address, shape
    counters -> [ parts that were taken of thread 0's share | of thread 1's | ... ]  see `next_part`

No kernel is compiled with `fastmath`. With it, products and sums are contracted differently in a kernel that comes from
Numba's cache than in one that was just compiled, and a recipe must give the same bytes each time.
"""

import ctypes
import logging
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, partial
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints, no_type_check

import numba
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that compiling or loading a kernel may take before the user is told of it."""

POOL_LOCK = threading.Lock()
"""Held while a kernel runs, since some of Numba's thread pools must not be used from two threads at once."""


class Array(NamedTuple):
    """An array argument. If it has one dimension, it takes the elements of a dense tensor of any shape, in the order of
    memory: contiguous or channels last."""

    dtype: str
    dimensions: int


Floats = Annotated[Tensor, Array("float32", 1)]
Bools = Annotated[Tensor, Array("bool", 1)]
Images = Annotated[Tensor, Array("float32", 4)]
Bytes = Annotated[Tensor, Array("uint8", 4)]
Scratch = Annotated[Tensor | int, Array("float32", 2)]
"""Per-thread scratch. Python passes its length in floats; the kernel gets an array [threads, length]."""


def _version() -> str:
    """Return a hash of all files of the engine, any of which may be compiled into a kernel."""
    sources = (file.read_bytes() for file in sorted(Path(__file__).parents[1].rglob("*.py")))
    return sha256(b"".join(sources)).hexdigest()[:16]


VERSION = types.RawPointer(f"block_{_version()}")
"""A pointer whose type is named after the version of the engine.

Numba caches a compiled function until its own file or its signature changes. So this type is in every signature, to
recompile a kernel when another file of the engine changes.
"""

ENTRY = types.void(types.intp, types.intp, VERSION)
"""A kernel's signature: the index of the thread, the number of threads, and the block of arguments."""


def _start_threads() -> int:
    """Start Numba's threads, and return how many there are.

    Where Numba and PyTorch share OpenMP, this changes the number of PyTorch's threads too, so it is set back.
    """
    threads = torch.get_num_threads()
    started: int = numba.get_num_threads()
    torch.set_num_threads(threads)
    return started


MOST_THREADS = _start_threads()


class Slots(NamedTuple):
    """How an argument is laid out in a block."""

    type: types.Type
    format: str
    """The slots' format for `struct`: a character each."""
    encode: Callable[[Any], Iterable[Any]]
    """Returns the argument's values for `struct.pack`."""
    parts: tuple["Slots", ...] = ()
    """The slots of a tuple's items."""


class Kernel:
    """A function `(thread, threads, block)`, compiled when it is first run."""

    def __init__(self, function: Callable[..., None], arguments: type) -> None:
        self.function, self.slots = function, _slots_of(arguments)
        self.layout = struct.Struct("q" + self.slots.format)
        self.block = ctypes.create_string_buffer(self.layout.size)

    @cached_property
    def compiled(self) -> Any:
        """The compiled function, possibly from the on-disk cache."""
        return compiled(partial(numba.cfunc, ENTRY, error_model="numpy"), self.function)

    def run(self, threads: int, arguments: Any) -> None:
        """Run it on `threads` threads, and wait for them."""
        counters = (ctypes.c_int64 * threads)()
        self.layout.pack_into(self.block, 0, ctypes.addressof(counters), *self.slots.encode(arguments))
        numba.set_num_threads(threads)
        _launcher()(self.compiled.address, ctypes.addressof(self.block), threads)


def kernel(arguments: type) -> Callable[[Callable[..., None]], Kernel]:
    """Make a kernel of a function. `arguments` is a `NamedTuple` class, which `unpack` returns an instance of."""
    return partial(Kernel, arguments=arguments)


def run(kernel: Kernel, arguments: Any, threads: int | None = None) -> None:
    """Run a kernel on `threads` threads, by default as many as PyTorch uses.

    If the first argument is a fake tensor, which has a shape but no data, nothing is run.
    """
    if isinstance(_first_leaf(arguments), FakeTensor):
        return
    threads = min(torch.get_num_threads(), MOST_THREADS) if threads is None else threads
    numbers = getattr(arguments, "scratch", None)
    if numbers is not None:
        rows = torch.empty(threads, numbers, dtype=torch.float32, device="cpu")
        arguments = arguments._replace(scratch=rows)
    with POOL_LOCK:
        kernel.run(threads, arguments)


def _first_leaf(arguments: Any) -> Any:
    return _first_leaf(arguments[0]) if isinstance(arguments, tuple) else arguments


@intrinsic
@no_type_check
def unpack(typing_context, block, arguments):
    """Return a kernel's arguments, an instance of the `NamedTuple` class that it was declared with."""
    slots = _slots_of(arguments.instance_class)

    def generate(context, builder, signature, values):
        numbers = builder.bitcast(values[0], ir.IntType(64).as_pointer())
        places = (ir.Constant(ir.IntType(64), at) for at in range(1, len(slots.format) + 1))
        read = [builder.load(builder.gep(numbers, [place])) for place in places]
        return _decoded(context, builder, slots, read)

    return slots.type(block, arguments), generate


@no_type_check
def _decoded(context, builder, slots, words):
    """Return an argument, given the 64 bits of each of its slots."""
    if slots.parts:
        ends = list(accumulate(len(part.format) for part in slots.parts))
        parts_words = [words[end - len(part.format) : end] for part, end in zip(slots.parts, ends, strict=True)]
        items = [
            _decoded(context, builder, part, part_words)
            for part, part_words in zip(slots.parts, parts_words, strict=True)
        ]
        return context.make_tuple(builder, slots.type, items)
    if slots.type == types.float32:
        return builder.fptrunc(builder.bitcast(words[0], ir.DoubleType()), ir.FloatType())
    if slots.type == types.intp:
        return words[0]
    value = context.make_array(slots.type)(context, builder)
    address, *shape = words
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(slots.type.dtype)))
    strides = list(accumulate(reversed(shape[1:]), builder.mul, initial=size))[::-1]
    data = builder.inttoptr(address, value.data.type)
    populate_array(value, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return value._getvalue()


@cache
def _slots_of(kind: Any) -> Slots:
    """Return how an argument is laid out in a block, given its type hint."""
    if kind is int:
        return Slots(types.intp, "q", _scalar)
    if kind is float:
        return Slots(types.float32, "d", _scalar)
    if get_origin(kind) is Annotated:
        array = get_args(kind)[1]
        dtype = types.boolean if array.dtype == "bool" else getattr(types, array.dtype)
        numba_type = types.Array(dtype, array.dimensions, "C")
        encode = partial(_flat_array if array.dimensions == 1 else _shaped_array, getattr(torch, array.dtype))
        return Slots(numba_type, "q" * (1 + array.dimensions), encode)
    is_named = hasattr(kind, "_fields")
    hints = get_type_hints(kind, include_extras=True).values() if is_named else get_args(kind)
    parts = tuple(map(_slots_of, hints))
    numba_type = types.BaseTuple.from_types([part.type for part in parts], kind if is_named else None)
    return Slots(numba_type, "".join(part.format for part in parts), partial(_encoded, parts), parts)


def _encoded(parts: tuple[Slots, ...], values: Iterable[Any]) -> Iterator[Any]:
    for part, value in zip(parts, values, strict=True):
        yield from part.encode(value)


def _scalar(number: float) -> tuple[float]:
    return (number,)


def _flat_array(dtype: torch.dtype, tensor: Tensor) -> tuple[int, int]:
    """Return the address of a tensor, and how many elements it has."""
    is_dense = tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
    if not is_dense or tensor.dtype is not dtype or not tensor.is_cpu:
        raise _layout_error(dtype, tensor)
    return tensor.data_ptr(), tensor.numel()


def _shaped_array(dtype: torch.dtype, tensor: Tensor) -> tuple[int, ...]:
    """Return the address of a tensor, and its shape."""
    if not tensor.is_contiguous() or tensor.dtype is not dtype or not tensor.is_cpu:
        raise _layout_error(dtype, tensor)
    return tensor.data_ptr(), *tensor.shape


def _layout_error(dtype: torch.dtype, tensor: Tensor) -> ValueError:
    return ValueError(f"{tensor.dtype} on {tensor.device} is read as {dtype}, contiguous, on the CPU")


@numba.njit(inline="always")
@no_type_check
def share(thread, threads, count):
    """Return the range [first, stop) of `count` items that a thread works on."""
    return thread * count // threads, (thread + 1) * count // threads


@numba.njit
@no_type_check
def next_part(thread, threads, block, parts):
    """Return which of `parts` parts a thread works on next, or -1 if all are taken.

    It takes the parts of its own share first, and then steals from other threads, which another program may hold up.
    """
    for k in range(threads):
        owner = (thread + k) % threads
        first, stop = share(owner, threads, parts)
        part = first + _take(block, owner)
        if part < stop:
            return part
    return -1


@intrinsic
@no_type_check
def _take(typing_context, block, owner):
    """Increment the counter of an owner's share, and return what it was: an atomic fetch-and-add."""

    def generate(context, builder, signature, values):
        numbers = builder.bitcast(values[0], ir.IntType(64).as_pointer())
        counts = builder.inttoptr(builder.load(numbers), ir.IntType(64).as_pointer())
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", builder.gep(counts, [values[1]]), one, "monotonic")

    return types.intp(block, types.intp), generate


@intrinsic
@no_type_check
def _call(typing_context, address, thread, threads, block):
    """Call a kernel by its address."""

    def generate(context, builder, signature, values):
        call_address(builder, values[0], values[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


def call_address(builder: ir.IRBuilder, address: ir.Value, numbers: Sequence[ir.Value]) -> None:
    """Call a function at an address, which takes 64-bit integers or addresses and returns nothing."""
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(numbers))
    builder.call(builder.inttoptr(address, kind.as_pointer()), numbers)


@no_type_check
def _call_in_all_threads(address, block, threads):
    for thread in numba.prange(threads):
        _call(address, thread, threads, block)


@cache
def _launcher() -> Any:
    """Return the compiled function that calls a kernel in all threads."""
    signature = types.void(*[types.intp] * 3)
    return compiled(partial(numba.njit, signature, parallel=True, nogil=True), _call_in_all_threads)


def compiled(compile_with: Callable[..., Any], function: Callable[..., None]) -> Any:
    """Compile a function, or load it from the on-disk cache, if there is a folder that can be written.

    If it takes more than PATIENCE, the user is told what the program waits for.
    """
    with _notice_if_slow():
        try:
            return compile_with(cache=True)(function)
        except RuntimeError:  # Numba can write its cache neither in the package's folder nor in the user's
            return compile_with()(function)


@contextmanager
def _notice_if_slow() -> Iterator[None]:
    timer = threading.Timer(PATIENCE, _notice)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@cache
def _notice() -> None:
    logger.warning("preparing kernels for this processor: up to a minute the first time, then they are cached")
