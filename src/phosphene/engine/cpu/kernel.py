"""Kernels: functions that Numba compiles, and that all threads run at once, each on parts of the work.

A kernel is compiled as it is, without a loop over threads around it, for which Numba would optimise and generate it
twice. It gets all that it works on from here, by address, and allocates nothing: an error in it would be printed, and
the result be wrong.

No kernel is compiled with `fastmath`: how it is then contracted depends on whether it was compiled in this process or
came from Numba's cache, and a recipe must give the same bytes in both.
"""

import ctypes
import logging
import re
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, no_type_check

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

TURN = threading.Lock()
"""Held while a kernel runs: not each of Numba's thread pools may be used from two threads at once."""


def _version() -> str:
    """Hash all files of this folder: any of them may be compiled into the kernels of another."""
    sources = (file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    return sha256(b"".join(sources)).hexdigest()[:16]


ENTRY = types.void(types.intp, types.intp, types.RawPointer(f"block_{_version()}"))
"""What a kernel is called with: the number of its thread, how many there are, and the block of what it works on, behind
the address of a count for each thread of the parts that were taken from its share.

Numba keeps a compiled kernel until its own file changes, or its signature, which names the version of the others.
"""


def _start_threads() -> int:
    """Let Numba start its threads, and return their number. Where the two share OpenMP, it sets PyTorch's too."""
    threads = torch.get_num_threads()
    started: int = numba.get_num_threads()
    torch.set_num_threads(threads)
    return started


MOST_THREADS = _start_threads()


class Kind(NamedTuple):
    """What a kernel is given in one place: an array, as `float32[4]` of four dimensions, or numbers, as `int[2]`, `int`
    or `float`."""

    type: types.Type
    format: str
    """As `struct` writes it: of an array its address and its shape."""
    numbers_of: Callable[[Any], Iterable[Any]]
    """What is written of an argument."""


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


class Kernel:
    """A function `(thread, threads, block)` that is compiled when it is first run."""

    def __init__(self, function: Callable[..., None], kinds: str) -> None:
        self.function, self.kinds = function, _kinds_of(kinds)
        self.layout = struct.Struct("q" + "".join(kind.format for kind in self.kinds))
        self.block = ctypes.create_string_buffer(self.layout.size)

    @cached_property
    def compiled(self) -> Any:
        """It in the processor's language, or as it was kept by an earlier process."""
        with _telling():
            return _kept(partial(numba.cfunc, ENTRY, error_model="numpy"), self.function)

    def run(self, threads: int, arguments: Iterable[Any]) -> None:
        """Run it on as many threads."""
        taken = (ctypes.c_int64 * threads)()
        numbers = [ctypes.addressof(taken)]
        for kind, argument in zip(self.kinds, arguments, strict=True):
            numbers += kind.numbers_of(argument)
        self.layout.pack_into(self.block, 0, *numbers)
        numba.set_num_threads(threads)
        _launcher()(self.compiled.address, ctypes.addressof(self.block), threads)


def compiled(kinds: str) -> Callable[[Callable[..., None]], Kernel]:
    """Make a kernel of a function. `kinds` says what it is given, and `given` hands it out."""
    return partial(Kernel, kinds=kinds)


def run(kernel: Kernel, *arguments: object, own: int = 0) -> None:
    """Run a kernel on tensors, the first of which says whether only shapes are asked for: then nothing is run.

    Tensors are on the CPU, and what is an array of one dimension there may have any shape, and channels last. With
    `own`, the last that the kernel is given is a `float32[2]` of as many numbers for each thread.
    """
    if isinstance(arguments[0], FakeTensor):
        return
    threads = min(torch.get_num_threads(), MOST_THREADS)
    rows = [torch.empty(threads, own, dtype=torch.float32, device="cpu")] if own else []
    with TURN:
        kernel.run(threads, (*arguments, *rows))


@intrinsic(prefer_literal=True)
@no_type_check
def given(typing_context, block, kinds):
    """Return what a kernel is given, for the constant `kinds` that it was made with."""
    found = _kinds_of(kinds.literal_value)
    starts = list(accumulate((len(kind.format) for kind in found), initial=1))

    def generate(context, builder, signature, values):
        numbers = builder.bitcast(values[0], ir.IntType(64).as_pointer())

        def number(at):
            return builder.load(builder.gep(numbers, [ir.Constant(ir.IntType(64), at)]))

        made = [
            _argument(context, builder, kind, [number(start + k) for k in range(len(kind.format))])
            for kind, start in zip(found, starts, strict=False)
        ]
        return context.make_tuple(builder, signature.return_type, made)

    return types.Tuple([kind.type for kind in found])(block, kinds), generate


@no_type_check
def _argument(context, builder, kind, numbers):
    """Make one argument of the 64 bits at each of its places."""
    if kind.type == types.float32:
        return builder.fptrunc(builder.bitcast(numbers[0], ir.DoubleType()), ir.FloatType())
    if kind.type == types.intp:
        return numbers[0]
    if isinstance(kind.type, types.UniTuple):
        return context.make_tuple(builder, kind.type, numbers)
    made = context.make_array(kind.type)(context, builder)
    address, *shape = numbers
    size = context.get_constant(types.intp, context.get_abi_sizeof(made.data.type.pointee))
    steps = list(accumulate(reversed(shape[1:]), builder.mul, initial=size))[::-1]
    data = builder.inttoptr(address, made.data.type)
    populate_array(made, data=data, shape=shape, strides=steps, itemsize=size, meminfo=None)
    return made._getvalue()


@cache
def _kinds_of(kinds: str) -> tuple[Kind, ...]:
    return tuple(map(_kind_of, kinds.split()))


def _kind_of(name: str) -> Kind:
    kind, count = re.findall(r"^(\w+?)(?:\[(\d+)\])?$", name)[0]
    if kind == "float" and not count:
        return Kind(types.float32, "d", _alone)
    if kind == "int":
        many = types.UniTuple(types.intp, int(count)) if count else types.intp
        return Kind(many, "q" * int(count or 1), tuple if count else _alone)
    dtype = types.boolean if kind == "bool" else getattr(types, kind)
    numbers_of = partial(_flat if count == "1" else _shaped, getattr(torch, kind))
    return Kind(types.Array(dtype, int(count), "C"), "q" * (1 + int(count)), numbers_of)


@numba.njit(inline="always")
@no_type_check
def share(thread, threads, count):
    """Return the first of `count` things that a thread works on, and the one behind its last."""
    return thread * count // threads, (thread + 1) * count // threads


@numba.njit(inline="always")
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
        address, thread, threads, block = values
        number = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [number, number, number.as_pointer()])
        function = builder.inttoptr(address, kind.as_pointer())
        builder.call(function, [thread, threads, builder.inttoptr(block, number.as_pointer())])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@no_type_check
def _call_in_all_threads(address, block, threads):
    for thread in numba.prange(threads):
        _call(address, thread, threads, block)


@cache
def _launcher() -> Any:
    """Return the function that calls a kernel in all threads."""
    signature = types.void(*[types.intp] * 3)
    with _telling():
        return _kept(partial(numba.njit, signature, parallel=True, nogil=True), _call_in_all_threads)


def _kept(compile_with: Callable[..., Any], function: Callable[..., None]) -> Any:
    """Compile a function, or take it from where an earlier process kept it, if there is a folder to keep it in."""
    try:
        return compile_with(cache=True)(function)
    except RuntimeError:  # as Numba raises where neither the package's folder nor the user's can be written
        return compile_with()(function)


@contextmanager
def _telling() -> Iterator[None]:
    """Tell the user what is waited for, if it takes long."""
    telling = threading.Timer(PATIENCE, _tell_of_compiling)
    telling.start()
    try:
        yield
    finally:
        telling.cancel()


@cache
def _tell_of_compiling() -> None:
    logger.warning("compiling for this processor, which is kept for the next time: up to a minute")
