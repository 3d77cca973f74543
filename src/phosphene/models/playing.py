"""A network's way forth and back, recorded once for a shape of images, and then played without Python between kernels.

Between two kernels, calling modules and PyTorch's autograd take a tenth of a millisecond, a sixth of a step of a small
image. But for images of one shape a frozen network does the same each time: the same kernels, and the same of PyTorch's
operations, on tensors that lie alike. So its first step is written down, and later ones follow what is written: kernels
one after the other in one call, in memory that is laid out in advance. What is computed is the same, to the bit.
"""

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phosphene.models.launching import launch, thread_count
from phosphene.models.recording import Launch, Operation, Place, Recorder, found

LINE = 64
"""Bytes of a line of the cache, at a multiple of which each tensor begins, as PyTorch's do."""

MOST_SHAPES = 64
"""Shapes of which it is kept what is done; a dream has a few for each octave."""

NetworkFn = Callable[[Tensor], Mapping[str, Tensor]]
Life = tuple[int, int]
"""The numbers of the first and the last call that use a storage."""

Slopes = tuple[Tensor | None, ...]
Pattern = tuple[bool, ...]
"""Which results a gradient is given of."""


class Key(NamedTuple):
    """What a recording holds for."""

    shape: torch.Size
    threads: int


class Repeated:
    """A network that is asked for its images' gradient, on the CPU in float32: images [batch, 3, height, width] to named
    tensors."""

    def __init__(self, network: NetworkFn) -> None:
        self.network = network
        self.names: list[str] = []
        self.recordings: dict[Key, Recording | None] = {}

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Run the network, or play what it did when it saw the first images of that shape."""
        key = Key(images.shape, thread_count())
        if key in self.recordings and self.recordings[key] is None:
            return self.network(images)
        results = _Repeated.apply(images, self, key)
        return dict(zip(self.names, results, strict=True))

    def keep(self, key: Key, recording: "Recording") -> None:
        """Keep a recording, or that there is none to be had."""
        self.recordings[key] = recording if recording.is_worth_it else None
        for oldest in list(self.recordings)[:-MOST_SHAPES]:
            del self.recordings[oldest]


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, repeated: Repeated, key: Key) -> tuple[Tensor, ...]:
        recording = repeated.recordings.get(key)
        ctx.way = Take(repeated, key) if recording is None else Performance(recording, repeated, key)
        ctx.set_materialize_grads(False)
        return tuple(ctx.way.forth(images))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor, None, None]:
        return ctx.way.back(slopes), None, None


@dataclass(frozen=True)
class Tape:
    """What is done on the way forth, or back, from what is `given` to the `results`; `first` is the first call's number."""

    first: int
    calls: Sequence[Launch | Operation]
    given: Sequence[Place]
    results: Sequence[Place]


class Take:
    """A step that is written down."""

    def __init__(self, repeated: Repeated, key: Key) -> None:
        self.repeated, self.key = repeated, key
        self.recorder = Recorder()
        self.back_tapes: dict[Pattern, Tape] = {}

    def forth(self, images: Tensor) -> list[Tensor]:
        """Run the network."""
        self.images = images.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            self.forth_tape, self.results = self._record([self.images], self._run)
        return [result.detach() for result in self.results]

    def back(self, slopes: Slopes) -> Tensor:
        """Return the gradient, and keep the recording."""
        results = [result for result, slope in zip(self.results, slopes, strict=True) if slope is not None]
        given = [slope.clone() for slope in slopes if slope is not None]
        tape, (gradient,) = self._record(
            given, lambda: torch.autograd.grad(results, self.images, given, retain_graph=True)
        )
        self.back_tapes.setdefault(_pattern(slopes), tape)
        self.repeated.keep(self.key, Recording(self.recorder, self.forth_tape, dict(self.back_tapes)))
        return gradient

    def _run(self) -> Sequence[Tensor]:
        named = self.repeated.network(self.images)
        self.repeated.names = list(named)
        return list(named.values())

    def _record(self, given: list[Tensor], run: Callable[[], Sequence[Tensor]]) -> tuple[Tape, Sequence[Tensor]]:
        first = len(self.recorder.calls)
        for tensor in given:
            self.recorder.take(tensor)
        with self.recorder:
            results = run()
        places = [[self.recorder.place(tensor) for tensor in tensors] for tensors in (given, results)]
        return Tape(first, self.recorder.calls[first:], *places), results


class Recording:
    """What a network does for images of one shape: forth, and back from some of its results.

    Storages that are made without being written to lie together, in `room` bytes, but for those of results.
    """

    def __init__(self, recorder: Recorder, forth: Tape, back: Mapping[Pattern, Tape]) -> None:
        tapes = [forth, *back.values()]
        used = [set(chain(*(call.storages for call in tape.calls))) for tape in tapes]
        self.lasting = used[0] & set().union(*used[1:])
        lives = _lives(tapes, self.lasting)
        results = {place.storage for tape in tapes for place in tape.results}
        inner = sorted((recorder.empty & lives.keys()) - results)
        begins, self.room = laid_out([recorder.sizes[k] for k in inner], [lives[k] for k in inner])
        self.begins = dict(zip(inner, begins, strict=True))
        self.constants = {k: tensor.untyped_storage() for k, tensor in recorder.constants.items()}
        self.addresses = np.zeros(len(recorder.sizes), np.int64)
        self.addresses[list(self.constants)] = [storage.data_ptr() for storage in self.constants.values()]
        outer = results & recorder.empty
        self.forth, *others = (Score(tape, lives, {k: recorder.sizes[k] for k in outer}) for tape in tapes)
        self.back = dict(zip(back, others, strict=True))
        self.is_worth_it = recorder.is_repeatable and any(isinstance(part, Launches) for part, _ in self.forth.parts)


class Score:
    """A tape, ready to be played: its parts, each with the storages that nobody needs behind it."""

    def __init__(self, tape: Tape, lives: Mapping[int, Life], outer: Mapping[int, int]) -> None:
        self.given, self.results = tape.given, tape.results
        self.outer = {place.storage: outer[place.storage] for place in tape.results if place.storage in outer}
        self.parts: list[tuple[Launches | Operation, list[int]]] = []
        needed, stop = {place.storage for place in tape.results}, tape.first
        for are_launches, calls in groupby(tape.calls, lambda call: isinstance(call, Launch)):
            row = list(calls)
            for part in [Launches(row)] if are_launches else row:
                start, stop = stop, stop + (len(row) if are_launches else 1)
                self.parts.append((part, [k for k, (_, last) in lives.items() if start <= last < stop and k not in needed]))


class Launches:
    """Kernels that are launched one after the other."""

    def __init__(self, row: Sequence[Launch]) -> None:
        self.addresses = [launch.address for launch in row]
        self.starts = np.cumsum([0, *(len(launch.block) for launch in row)])[:-1]
        self.blocks = np.concatenate([launch.block for launch in row])
        holes = [np.array(launch.holes) + start for launch, start in zip(row, self.starts, strict=True)]
        self.holes = np.concatenate(holes)
        self.storages = np.concatenate([launch.storages for launch in row])
        self.offsets = np.concatenate([launch.offsets for launch in row])

    def run(self, addresses: NDArray[np.int64], threads: int) -> None:
        """Run them, given where the storages are."""
        blocks = self.blocks.copy()
        blocks[self.holes] = addresses[self.storages] + self.offsets
        entries = np.stack([self.addresses, blocks.ctypes.data + blocks.itemsize * self.starts], axis=1)
        launch(entries, threads)


class Performance:
    """A step that is played."""

    def __init__(self, recording: Recording, repeated: Repeated, key: Key) -> None:
        self.recording, self.repeated, self.key = recording, repeated, key
        self.addresses = recording.addresses.copy()
        self.storages = dict(recording.constants)
        self.inner = torch.empty(recording.room, dtype=torch.uint8).untyped_storage()
        begins = recording.begins
        self.addresses[list(begins)] = self.inner.data_ptr() + np.array(list(begins.values()), np.int64)

    def forth(self, images: Tensor) -> list[Tensor]:
        """Return the results."""
        self.images = images
        return self._play(self.recording.forth, [images])

    def back(self, slopes: Slopes) -> Tensor:
        """Return the gradient; where none was recorded for such slopes, run the network."""
        score = self.recording.back.get(_pattern(slopes))
        given = [slope for slope in slopes if slope is not None]
        if score:
            (gradient,) = self._play(score, given)
            return gradient
        self.repeated.recordings.pop(self.key, None)
        images = self.images.detach().requires_grad_(True)
        with torch.enable_grad():
            results = self.repeated.network(images).values()
        chosen = [result for result, slope in zip(results, slopes, strict=True) if slope is not None]
        (gradient,) = torch.autograd.grad(chosen, images, given)
        return gradient

    def _play(self, score: Score, given: Sequence[Tensor]) -> list[Tensor]:
        for place, tensor in zip(score.given, given, strict=True):
            self._hold(place.storage, _as_recorded(tensor, place))
        for storage, size in score.outer.items():
            self._hold(storage, torch.empty(size, dtype=torch.uint8))
        for part, done in score.parts:
            if isinstance(part, Launches):
                part.run(self.addresses, self.key.threads)
            else:
                self._operate(part)
            for storage in done:
                self.storages.pop(storage, None)
        return [self._tensor(place) for place in score.results]

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
        begin = self.recording.begins.get(place.storage)
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


def _lives(tapes: Sequence[Tape], lasting: set[int]) -> dict[int, Life]:
    """Return when each storage is used; what is made forth and used back is there until the end, to go back again."""
    lives: dict[int, Life] = {}
    for tape in tapes:
        for number, call in enumerate(tape.calls, tape.first):
            for storage in call.storages:
                lives[storage] = lives.get(storage, (number, number))[0], number
    end = max(last for _, last in lives.values()) + 1
    return {k: (first, end if k in lasting else last) for k, (first, last) in lives.items()}


def _as_recorded(tensor: Tensor, place: Place) -> Tensor:
    """Return what is given as it lay when it was recorded."""
    if tensor.stride() == place.stride and not tensor.storage_offset():
        return tensor
    return torch.empty_strided(place.size, place.stride, dtype=place.dtype).copy_(tensor)


def _pattern(slopes: Slopes) -> Pattern:
    return tuple(slope is not None for slope in slopes)
