"""A network's way forth and back, recorded once for a shape of images, and then played without Python between kernels.

Between two kernels, calling modules and PyTorch's autograd take a tenth of a millisecond, a tenth of a step at 375x500
in all. But for images of one shape a frozen network does the same each time: the same kernels, and the same of
PyTorch's operations, on tensors that lie alike. So its first step is written down, and later ones follow what is
written: kernels one after the other in one call, in memory that is laid out in advance. What is computed is the same,
to the bit.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from phosphene.engine.cpu.kernel import thread_count
from phosphene.engine.layout import needs_pytorch
from phosphene.engine.playing import Pattern, Performance, Recording
from phosphene.engine.recording import Recorder, Tape
from phosphene.malloc import give_back

MOST_SHAPES = 64
"""Recordings that are kept, the last ones; a dream in tiles makes a few in each octave."""

Slopes = tuple[Tensor | None, ...]
"""Gradients with respect to the network's results; `None` for those that do not count."""


class Key(NamedTuple):
    """What a recording holds for."""

    shape: torch.Size
    threads: int


class Repeated:
    """A network, images [batch, 3, height, width] to named tensors, for the steps of a dream.

    It is recorded and played where it is asked for its images' gradient, on the CPU in float32. `gradients` says how
    many are asked for in a step; with one, memory is free for others as soon as the way back has passed.
    """

    def __init__(self, network: Callable[[Tensor], Mapping[str, Tensor]], gradients: int) -> None:
        self.network, self.goes_again = network, gradients > 1
        self.names: list[str] = []
        self.recordings: dict[Key, Recording] = {}

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Run the network, or play what it did with the first images of their shape."""
        if not images.requires_grad or needs_pytorch(images) or isinstance(images, FakeTensor):
            return self.network(images)
        key = Key(images.shape, thread_count())
        recording = self.recordings.get(key)
        if recording and not recording.is_repeatable:
            return self.network(images)
        results = _Repeated.apply(images, Replay(self, key, recording) if recording else Take(self, key))
        return dict(zip(self.names, results, strict=True))

    def run(self, images: Tensor) -> list[Tensor]:
        """Run the network, for its images' gradient."""
        with torch.enable_grad():
            named = self.network(images)
        self.names = list(named)
        return list(named.values())

    def keep(self, key: Key, recording: Recording) -> None:
        """Keep a recording, and forget the oldest."""
        self.recordings[key] = recording
        for oldest in list(self.recordings)[:-MOST_SHAPES]:
            self.recordings.pop(oldest, None)


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, step: "Take | Replay") -> tuple[Tensor, ...]:
        ctx.step = step
        ctx.set_materialize_grads(False)
        return tuple(step.forth(images))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor, None]:
        return ctx.step.back(slopes), None


class Take:
    """A step that is written down while it is taken."""

    def __init__(self, repeated: Repeated, key: Key) -> None:
        self.repeated, self.key = repeated, key
        self.recorder = Recorder()
        self.back_tapes: dict[Pattern, Tape] = {}

    def forth(self, images: Tensor) -> list[Tensor]:
        """Return the network's results."""
        lie_alone = images.is_contiguous() and not images.storage_offset()
        images = images.detach() if lie_alone else images.detach().clone(memory_format=torch.contiguous_format)
        self.images = images.requires_grad_(True)
        self.results, self.tape = self.recorder.record([self.images], lambda: self.repeated.run(self.images))
        return [result.detach() for result in self.results]

    def back(self, slopes: Slopes) -> Tensor:
        """Return the gradient, and keep what is known now, if that holds for as many threads as it was asked for."""
        pattern = _pattern(slopes)
        if pattern in self.back_tapes or thread_count() != self.key.threads:
            return self._gradient(slopes)
        own = tuple(None if slope is None else slope.clone() for slope in slopes)
        given = [slope for slope in own if slope is not None]
        (gradient,), self.back_tapes[pattern] = self.recorder.record(given, lambda: [self._gradient(own)])
        self.repeated.keep(
            self.key, Recording(self.recorder, self.tape, dict(self.back_tapes), self.repeated.goes_again)
        )
        return gradient

    def _gradient(self, slopes: Slopes) -> Tensor:
        return _gradient(self.results, slopes, self.images, self.repeated.goes_again)


class Replay:
    """A step that is played."""

    def __init__(self, repeated: Repeated, key: Key, recording: Recording) -> None:
        self.repeated, self.key, self.recording = repeated, key, recording
        if recording.is_new:
            give_back()  # what the recorded step had in pieces, and this one has in one
            recording.is_new = False
        self.performance: Performance | None = None

    def forth(self, images: Tensor) -> list[Tensor]:
        """Return the network's results."""
        self.images, self.performance = images.detach(), Performance(self.recording, self.key.threads)
        return self.performance.play(self.recording.forth, [images])

    def back(self, slopes: Slopes) -> Tensor:
        """Return the gradient; where none was recorded for such slopes, run the network, and record the next step.

        What is raised stays the same in a dream, so that is no more than once for a shape.
        """
        reel = self.recording.back.get(_pattern(slopes))
        if reel is None:
            self.repeated.recordings.pop(self.key, None)
            images = self.images.requires_grad_(True)
            return _gradient(self.repeated.run(images), slopes, images, goes_again=False)
        if self.performance is None:
            raise RuntimeError("the way back was taken, and what it needs is gone")
        (gradient,) = self.performance.play(reel, [slope for slope in slopes if slope is not None])
        if not self.repeated.goes_again:
            self.performance = None
        return gradient


def _gradient(results: Sequence[Tensor], slopes: Slopes, images: Tensor, goes_again: bool) -> Tensor:
    pairs = [(result, slope) for result, slope in zip(results, slopes, strict=True) if slope is not None]
    chosen, given = zip(*pairs, strict=True)
    return torch.autograd.grad(chosen, images, given, retain_graph=goes_again)[0]


def _pattern(slopes: Slopes) -> Pattern:
    return tuple(slope is not None for slope in slopes)
