"""What a network does, written down: our own kernels, and what PyTorch does below autograd."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from phosphene.engine.cpu.kernel import Kernel, overheard

aten = torch.ops.aten
EMPTY = (aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided)
"""Operations that make a tensor and do not write to it."""

UNREPEATABLE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded}
"""What PyTorch says of operations that do not do the same each time."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in which storage, and how."""

    storage: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Launch:
    """A kernel, by its address, and the block that it is called with: the addresses at `holes` are those of `storages`,
    and `offsets` bytes more."""

    address: int
    block: NDArray[np.int64]
    holes: list[int]
    storages: list[int]
    offsets: list[int]


@dataclass(frozen=True)
class Operation:
    """One of PyTorch's, with places for tensors, and the storages of its results, `None` where one is not new."""

    function: Callable[..., Any]
    args: list[Any]
    kwargs: Mapping[str, Any]
    makes: list[int | None]

    @property
    def storages(self) -> list[int]:
        """All that it reads or writes."""
        made = [storage for storage in self.makes if storage is not None]
        return [place.storage for place in found(Place, [self.args, list(self.kwargs.values())])] + made


@dataclass(frozen=True)
class Tape:
    """What is done from what is `given` to the `results`."""

    calls: Sequence[Launch | Operation]
    given: Sequence[Place]
    results: Sequence[Place]


class Recorder(TorchDispatchMode):
    """Writes down what this thread does.

    Storages are numbered. `sizes` are their bytes, `empty` are those that were made without being written to, and
    `constants` those that were there before, with a tensor of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Launch | Operation] = []
        self.sizes: list[int] = []
        self.empty: set[int] = set()
        self.constants: dict[int, Tensor] = {}
        self.is_repeatable = True
        self._known: dict[int, tuple[int, weakref.ref[Any]]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch asks this, and would load its compiler, a second and 140 MB, to leave this class out."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do what is asked for, and write it down unless it only makes or describes a tensor."""
        named = kwargs or {}
        result = func(*args, **named)
        given, parts = found(Tensor, [args, list(named.values())]), found(Tensor, result)
        if any(part.is_meta for part in parts):
            return result
        places = self._placed(args), {name: self._placed(value) for name, value in named.items()}
        before = {tensor.untyped_storage()._cdata for tensor in given}
        makes = [None if part.untyped_storage()._cdata in before else self.take(part) for part in parts]
        self.is_repeatable &= UNREPEATABLE.isdisjoint(func.tags)
        if func.overloadpacket in EMPTY:
            self.empty.update(storage for storage in makes if storage is not None)
        elif func._schema.is_mutable or any(storage is not None for storage in makes):
            self.calls.append(Operation(func, *places, makes))
        return result

    def record(self, given: Sequence[Tensor], run: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Tape]:
        """Run a function of tensors, each with a storage of its own, and return its results and what it did."""
        first = len(self.calls)
        for tensor in given:
            self.take(tensor)
        with self:
            overheard.by = self._note
            try:
                results = run()
            finally:
                overheard.by = None
        places = [[self.place(tensor) for tensor in tensors] for tensors in (given, results)]
        return results, Tape(self.calls[first:], *places)

    def place(self, tensor: Tensor) -> Place:
        """Return where a tensor lies; if in a storage that is not known, it was there before."""
        storage = tensor.untyped_storage()
        number, known = self._known.get(storage._cdata, (-1, None))
        if known is None or known() is None:
            number = self.take(tensor)
            self.constants[number] = tensor
        return Place(number, tensor.dtype, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())

    def take(self, tensor: Tensor) -> int:
        """Give the storage of a tensor, which is new, a number."""
        storage = tensor.untyped_storage()
        self._known[storage._cdata] = len(self.sizes), weakref.ref(storage)
        self.sizes.append(storage.nbytes())
        return len(self.sizes) - 1

    def _placed(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._placed(part) for part in value]
        return self.place(value) if isinstance(value, Tensor) else value

    def _note(self, kernel: Kernel, arguments: Sequence[Any]) -> None:
        """Write down a kernel that was run."""
        numbers, holes, places, offsets = [0], list[int](), list[int](), list[int]()
        for kind, argument in zip(kernel.kinds, arguments, strict=True):
            if isinstance(argument, Tensor):
                holes.append(len(numbers))
                places.append(self.place(argument).storage)
                offsets.append(argument.data_ptr() - argument.untyped_storage().data_ptr())
            numbers += kind.numbers_of(argument)
        block = np.frombuffer(kernel.layout.pack(*numbers), np.int64)
        self.calls.append(Launch(kernel.compiled.address, block, holes, places, offsets))


def found(kind: Any, value: Any) -> list[Any]:
    """Return all of a kind in nested lists."""
    if isinstance(value, list | tuple):
        return [one for part in value for one in found(kind, part)]
    return [value] if isinstance(value, kind) else []
