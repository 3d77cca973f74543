"""What was recorded, laid out in memory and played: kernels one after the other in one call, without Python between."""

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phosphene.engine.cpu.kernel import launch
from phosphene.engine.recording import Launch, Operation, Place, Recorder, Tape, found

LINE = 64
"""Bytes of a line of the cache, at a multiple of which each tensor begins, as PyTorch's do."""

Life = tuple[int, int]
"""The first and the last call that use a storage, counted through all tapes."""

Pattern = tuple[bool, ...]
"""Which results a gradient is given for."""


class Recording:
    """What a network does for images of one shape: forth, and back from some of its results.

    Storages that are made without being written to lie together, in `room` bytes, but for those of results. With
    `goes_again`, more than one way back is taken in a step.
    """

    def __init__(self, recorder: Recorder, forth: Tape, back: Mapping[Pattern, Tape], goes_again: bool) -> None:
        tapes, sizes = [forth, *back.values()], recorder.sizes
        lives, results = _lives(tapes, goes_again), {place.storage for tape in tapes for place in tape.results}
        inner = sorted((recorder.empty & lives.keys()) - results)
        begins, self.room = laid_out([sizes[k] for k in inner], [lives[k] for k in inner])
        self.begins = dict(zip(inner, begins, strict=True))
        self.constants = {k: tensor.untyped_storage() for k, tensor in recorder.constants.items()}
        self.addresses = np.zeros(len(sizes), np.int64)
        self.addresses[list(self.constants)] = [storage.data_ptr() for storage in self.constants.values()]
        made = {k: sizes[k] for k in results & recorder.empty}
        ends = {k: last for k, (_, last) in lives.items() if k not in self.begins and k not in self.constants}
        starts = accumulate((len(tape.calls) for tape in tapes), initial=0)
        self.forth, *reels = (Reel(tape, start, ends, made) for tape, start in zip(tapes, starts, strict=False))
        self.back = dict(zip(back, reels, strict=True))
        self.is_repeatable = recorder.is_repeatable
        self.is_new = True


class Reel:
    """A tape, ready to be played: its parts, each with the storages that nobody needs behind it.

    Calls are counted through all tapes, and this one's begin with `start`. `ends` are the last calls that use each
    storage, and `made` the bytes of storages that are made for results.
    """

    def __init__(self, tape: Tape, start: int, ends: Mapping[int, int], made: Mapping[int, int]) -> None:
        self.given, self.results = tape.given, tape.results
        own = {place.storage for place in tape.results}
        self.made = {k: made[k] for k in own & made.keys()}
        self.parts: list[tuple[Launches | Operation, list[int]]] = []
        for part, count in _parts(tape.calls):
            start, first = start + count, start
            self.parts.append((part, [k for k, end in ends.items() if first <= end < start and k not in own]))


class Launches:
    """Kernels that are launched one after the other."""

    def __init__(self, row: Sequence[Launch]) -> None:
        self.addresses = [call.address for call in row]
        self.starts = np.cumsum([0, *(len(call.block) for call in row)])[:-1]
        self.blocks = np.concatenate([call.block for call in row])
        holes = [np.array(call.holes) + start for call, start in zip(row, self.starts, strict=True)]
        self.holes = np.concatenate(holes)
        self.storages = np.concatenate([call.storages for call in row])
        self.offsets = np.concatenate([call.offsets for call in row])

    def run(self, addresses: NDArray[np.int64], threads: int) -> None:
        """Run them, given where the storages are."""
        blocks = self.blocks.copy()
        blocks[self.holes] = addresses[self.storages] + self.offsets
        taken = np.zeros((len(self.starts), threads), np.int64)
        blocks[self.starts] = taken.ctypes.data + taken.strides[0] * np.arange(len(taken))
        entries = np.stack([self.addresses, blocks.ctypes.data + blocks.itemsize * self.starts], axis=1)
        launch(entries, threads)


class Performance:
    """A step that is played, and its memory."""

    def __init__(self, recording: Recording, threads: int) -> None:
        self.begins, self.threads = recording.begins, threads
        self.inner = torch.empty(recording.room, dtype=torch.uint8).untyped_storage()
        self.storages = dict(recording.constants)
        self.addresses = recording.addresses.copy()
        self.addresses[list(self.begins)] = self.inner.data_ptr() + np.array(list(self.begins.values()), np.int64)

    def play(self, reel: Reel, given: Sequence[Tensor]) -> list[Tensor]:
        """Return the results that it has for what is given."""
        for place, tensor in zip(reel.given, given, strict=True):
            self._hold(place.storage, _as_recorded(tensor, place))
        for storage, size in reel.made.items():
            self._hold(storage, torch.empty(size, dtype=torch.uint8))
        for part, done in reel.parts:
            if isinstance(part, Launches):
                part.run(self.addresses, self.threads)
            else:
                self._operate(part)
            for storage in done:
                self.storages.pop(storage, None)
        return [self._tensor(place) for place in reel.results]

    def _operate(self, operation: Operation) -> None:
        args, kwargs = self._filled(operation.args), {k: self._filled(value) for k, value in operation.kwargs.items()}
        made = found(Tensor, operation.function(*args, **kwargs))
        for storage, tensor in zip(operation.makes, made, strict=True):
            if storage is not None:
                self._hold(storage, tensor)

    def _hold(self, storage: int, tensor: Tensor) -> None:
        self.storages[storage] = tensor.untyped_storage()
        self.addresses[storage] = self.storages[storage].data_ptr()

    def _filled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._filled(part) for part in value]
        return self._tensor(value) if isinstance(value, Place) else value

    def _tensor(self, place: Place) -> Tensor:
        begin = self.begins.get(place.storage)
        storage = self.inner if begin is not None else self.storages[place.storage]
        offset = place.offset + (begin or 0) // place.dtype.itemsize
        return torch.empty(0, dtype=place.dtype).set_(storage, offset, place.size, place.stride)


def laid_out(sizes: Sequence[int], lives: Sequence[Life]) -> tuple[list[int], int]:
    """Return where blocks begin of which some live at the same time, and how much room they take.

    The largest is placed first, and each at the lowest place that is free as long as it lives.
    """
    begins, room, placed = [0] * len(sizes), 0, list[tuple[int, int, Life]]()
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        size, (first, last), at = -(-sizes[k] // LINE) * LINE, lives[k], 0
        for begin, end, (since, until) in placed:
            if since <= last and first <= until:
                if begin - at >= size:
                    break
                at = max(at, end)
        insort(placed, (at, at + size, lives[k]))
        begins[k], room = at, max(room, at + size)
    return begins, room


def _parts(calls: Sequence[Launch | Operation]) -> Iterator[tuple[Launches | Operation, int]]:
    """Yield what is done together, and how many calls that is."""
    for _, group in groupby(calls, type):
        row = list(group)
        launches = [call for call in row if isinstance(call, Launch)]
        if launches:
            yield Launches(launches), len(launches)
        yield from ((call, 1) for call in row if isinstance(call, Operation))


def _lives(tapes: Sequence[Tape], goes_again: bool) -> dict[int, Life]:
    """Return when each storage is used; to go back again, what is made forth and used back is there until the end."""
    lives: dict[int, Life] = {}
    for number, call in enumerate(chain(*(tape.calls for tape in tapes))):
        for storage in call.storages:
            lives[storage] = lives.get(storage, (number, number))[0], number
    back, end = len(tapes[0].calls), sum(len(tape.calls) for tape in tapes)
    return {k: (first, end if goes_again and first < back <= last else last) for k, (first, last) in lives.items()}


def _as_recorded(tensor: Tensor, place: Place) -> Tensor:
    """Return what is given as it lay when it was recorded."""
    if tensor.stride() == place.stride and not tensor.storage_offset():
        return tensor
    return torch.empty_strided(place.size, place.stride, dtype=place.dtype).copy_(tensor)
