"""Kernels: functions that Numba compiles, and that all threads run at once, each on parts of the work.

    class Scale(NamedTuple):                # what a kernel is given, declared once, for Python and for Numba
        values: Floats
        factor: float

    @kernel(Scale)
    def scale(thread, threads, block):
        a = unpack(block, Scale)
        first, last = share(thread, threads, a.values.size)
        ...

    run(scale, Scale(tensor, 2.0))

A kernel is compiled as it is, without a loop over threads around it, for which Numba would optimise and generate it
twice. It gets all that it works on from here, by address, and allocates nothing: an error in it would be printed, and
the result be wrong. Its arguments lie in a block of 64-bit slots:

    block -> [ &taken | slot of argument 1 | slot of argument 2 | ... ]       an array's slots: address, shape
    taken -> [ parts taken of thread 0's share | of thread 1's | ... ]        see `next_part`

No kernel is compiled with `fastmath`: how it is then contracted depends on whether it was compiled in this process or
came from Numba's cache, and a recipe must give the same bytes in both.
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
"""Seconds that a kernel may take to be compiled or read until the user is told what it is."""

POOL_LOCK = threading.Lock()
"""Held while a kernel runs: not each of Numba's thread pools may be used from two threads at once."""


class Array(NamedTuple):
    """An array that a kernel is given. One of one dimension may have any shape, and channels last."""

    dtype: str
    dimensions: int


Floats = Annotated[Tensor, Array("float32", 1)]
Bools = Annotated[Tensor, Array("bool", 1)]
Images = Annotated[Tensor, Array("float32", 4)]
Bytes = Annotated[Tensor, Array("uint8", 4)]
Scratch = Annotated[Tensor | int, Array("float32", 2)]
"""What each thread keeps on the way: Python says how many numbers, and the kernel gets a row of as many a thread."""


def _version() -> str:
    """Hash all files of the engine: any of them may be compiled into a kernel."""
    sources = (file.read_bytes() for file in sorted(Path(__file__).parents[1].rglob("*.py")))
    return sha256(b"".join(sources)).hexdigest()[:16]


VERSION = types.RawPointer(f"block_{_version()}")
"""A pointer whose type names the version of the engine.

Numba keeps a compiled function until its own file changes, or its signature; so this is part of each.
"""

ENTRY = types.void(types.intp, types.intp, VERSION)
"""What a kernel is called with: the number of its thread, how many there are, and the block of its arguments."""


def _start_threads() -> int:
    """Let Numba start its threads, and return their number. Where the two share OpenMP, it sets PyTorch's too."""
    threads = torch.get_num_threads()
    started: int = numba.get_num_threads()
    torch.set_num_threads(threads)
    return started


MOST_THREADS = _start_threads()


class Slots(NamedTuple):
    """How an argument lies in a block."""

    type: types.Type
    format: str
    """As `struct` writes it."""
    encode: Callable[[Any], Iterable[Any]]
    """What is written of an argument."""
    parts: tuple["Slots", ...] = ()
    """Of an argument that has some."""


class Kernel:
    """A function `(thread, threads, block)` that is compiled when it is first run."""

    def __init__(self, function: Callable[..., None], arguments: type) -> None:
        self.function, self.slots = function, _slots_of(arguments)
        self.layout = struct.Struct("q" + self.slots.format)
        self.block = ctypes.create_string_buffer(self.layout.size)

    @cached_property
    def compiled(self) -> Any:
        """It in the processor's language, or as it was kept by an earlier process."""
        return compiled(partial(numba.cfunc, ENTRY, error_model="numpy"), self.function)

    def run(self, threads: int, arguments: Any) -> None:
        """Run it on as many threads."""
        taken = (ctypes.c_int64 * threads)()
        self.layout.pack_into(self.block, 0, ctypes.addressof(taken), *self.slots.encode(arguments))
        numba.set_num_threads(threads)
        _launcher()(self.compiled.address, ctypes.addressof(self.block), threads)


def kernel(arguments: type) -> Callable[[Callable[..., None]], Kernel]:
    """Make a kernel of a function. `arguments` is a `NamedTuple` of what it is given, and `unpack` hands it out."""
    return partial(Kernel, arguments=arguments)


def run(kernel: Kernel, arguments: Any, threads: int | None = None) -> None:
    """Run a kernel on PyTorch's threads, or on as many as are given.

    Nothing is run if the first argument is a fake tensor, which only has a shape.
    """
    if isinstance(_first(arguments), FakeTensor):
        return
    threads = min(torch.get_num_threads(), MOST_THREADS) if threads is None else threads
    numbers = getattr(arguments, "scratch", None)
    if numbers is not None:
        rows = torch.empty(threads, numbers, dtype=torch.float32, device="cpu")
        arguments = arguments._replace(scratch=rows)
    with POOL_LOCK:
        kernel.run(threads, arguments)


def _first(arguments: Any) -> Any:
    return _first(arguments[0]) if isinstance(arguments, tuple) else arguments


@intrinsic
@no_type_check
def unpack(typing_context, block, arguments):
    """Return what a kernel is given, as the `NamedTuple` that it was made with."""
    slots = _slots_of(arguments.instance_class)

    def generate(context, builder, signature, values):
        numbers = builder.bitcast(values[0], ir.IntType(64).as_pointer())
        places = (ir.Constant(ir.IntType(64), at) for at in range(1, len(slots.format) + 1))
        read = [builder.load(builder.gep(numbers, [place])) for place in places]
        return _decoded(context, builder, slots, read)

    return slots.type(block, arguments), generate


@no_type_check
def _decoded(context, builder, slots, numbers):
    """Make an argument of the 64 bits in each of its slots."""
    if slots.parts:
        ends = list(accumulate(len(part.format) for part in slots.parts))
        pieces = [numbers[end - len(part.format) : end] for part, end in zip(slots.parts, ends, strict=True)]
        made = [_decoded(context, builder, part, piece) for part, piece in zip(slots.parts, pieces, strict=True)]
        return context.make_tuple(builder, slots.type, made)
    if slots.type == types.float32:
        return builder.fptrunc(builder.bitcast(numbers[0], ir.DoubleType()), ir.FloatType())
    if slots.type == types.intp:
        return numbers[0]
    made = context.make_array(slots.type)(context, builder)
    address, *shape = numbers
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(slots.type.dtype)))
    steps = list(accumulate(reversed(shape[1:]), builder.mul, initial=size))[::-1]
    data = builder.inttoptr(address, made.data.type)
    populate_array(made, data=data, shape=shape, strides=steps, itemsize=size, meminfo=None)
    return made._getvalue()


@cache
def _slots_of(kind: Any) -> Slots:
    """Return how an argument lies in a block, given its type hint."""
    if kind is int:
        return Slots(types.intp, "q", _alone)
    if kind is float:
        return Slots(types.float32, "d", _alone)
    if get_origin(kind) is Annotated:
        array = get_args(kind)[1]
        dtype = types.boolean if array.dtype == "bool" else getattr(types, array.dtype)
        made = types.Array(dtype, array.dimensions, "C")
        encode = partial(_flat if array.dimensions == 1 else _shaped, getattr(torch, array.dtype))
        return Slots(made, "q" * (1 + array.dimensions), encode)
    is_named = hasattr(kind, "_fields")
    hints = get_type_hints(kind, include_extras=True).values() if is_named else get_args(kind)
    parts = tuple(map(_slots_of, hints))
    made = types.BaseTuple.from_types([part.type for part in parts], kind if is_named else None)
    return Slots(made, "".join(part.format for part in parts), partial(_encoded, parts), parts)


def _encoded(parts: tuple[Slots, ...], values: Iterable[Any]) -> Iterator[Any]:
    for part, value in zip(parts, values, strict=True):
        yield from part.encode(value)


def _alone(number: float) -> tuple[float]:
    return (number,)


def _flat(dtype: torch.dtype, tensor: Tensor) -> tuple[int, int]:
    """Return the address of a tensor, and how many numbers it has."""
    lies = tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
    if not lies or tensor.dtype is not dtype or not tensor.is_cpu:
        raise _misread(dtype, tensor)
    return tensor.data_ptr(), tensor.numel()


def _shaped(dtype: torch.dtype, tensor: Tensor) -> tuple[int, ...]:
    """Return the address of a tensor, and its shape."""
    if not tensor.is_contiguous() or tensor.dtype is not dtype or not tensor.is_cpu:
        raise _misread(dtype, tensor)
    return tensor.data_ptr(), *tensor.shape


def _misread(dtype: torch.dtype, tensor: Tensor) -> ValueError:
    return ValueError(f"{tensor.dtype} on {tensor.device} is read as {dtype}, contiguous, on the CPU")


@numba.njit(inline="always")
@no_type_check
def share(thread, threads, count):
    """Return the first of `count` things that a thread works on, and the one behind its last."""
    return thread * count // threads, (thread + 1) * count // threads


@numba.njit
@no_type_check
def next_part(thread, threads, block, parts):
    """Return which of `parts` things a thread works on next: one of its own share, then one of another's; -1 if all
    are taken. Which thread does a part is not known beforehand, for another program may hold one up."""
    for k in range(threads):
        owner = (thread + k) % threads
        first, stop = share(owner, threads, parts)
        part = first + _taken(block, owner)
        if part < stop:
            return part
    return -1


@intrinsic
@no_type_check
def _taken(typing_context, block, owner):
    """Return how many parts of an owner's share were taken before, and take one."""

    def generate(context, builder, signature, values):
        numbers = builder.bitcast(values[0], ir.IntType(64).as_pointer())
        counts = builder.inttoptr(builder.load(numbers), ir.IntType(64).as_pointer())
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", builder.gep(counts, [values[1]]), one, "monotonic")

    return types.intp(block, types.intp), generate


@intrinsic
@no_type_check
def _call(typing_context, address, thread, threads, block):
    """Call the kernel at an address."""

    def generate(context, builder, signature, values):
        call_address(builder, values[0], values[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


def call_address(builder: ir.IRBuilder, address: ir.Value, numbers: Sequence[ir.Value]) -> None:
    """Call a function that takes whole numbers, or addresses, and returns nothing."""
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(numbers))
    builder.call(builder.inttoptr(address, kind.as_pointer()), numbers)


@no_type_check
def _call_in_all_threads(address, block, threads):
    for thread in numba.prange(threads):
        _call(address, thread, threads, block)


@cache
def _launcher() -> Any:
    """Return the function that calls a kernel in all threads."""
    signature = types.void(*[types.intp] * 3)
    return compiled(partial(numba.njit, signature, parallel=True, nogil=True), _call_in_all_threads)


def compiled(compile_with: Callable[..., Any], function: Callable[..., None]) -> Any:
    """Compile a function, or take it from where an earlier process kept it, if there is a folder to keep it in.

    The user is told what is waited for, if it takes long.
    """
    with _telling():
        try:
            return compile_with(cache=True)(function)
        except RuntimeError:  # as Numba raises where neither the package's folder nor the user's can be written
            return compile_with()(function)


@contextmanager
def _telling() -> Iterator[None]:
    telling = threading.Timer(PATIENCE, _tell_of_compiling)
    telling.start()
    try:
        yield
    finally:
        telling.cancel()


@cache
def _tell_of_compiling() -> None:
    logger.warning("compiling for this processor, which is kept for the next time: up to a minute")
