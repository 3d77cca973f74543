"""How much memory a step will take, estimated, and the largest tile that fits. Nothing is computed but shapes."""

import logging
import re
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from math import inf
from mmap import mmap
from threading import Thread
from typing import Any, TypeVar, cast

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from phosphene.dreaming.gradient import differentiate
from phosphene.dreaming.objective import Scoring
from phosphene.dreaming.stages import CPU
from phosphene.errors import SettingsError, UsageError, shown
from phosphene.malloc import give_back, is_out_of_memory, keep_nothing
from phosphene.networks.graph import on_paper
from phosphene.networks.network import Features
from phosphene.types import Limit, Shift, Size

G = TypeVar("G", bound=Callable[..., tuple[float, Any]])
"""A `GradientFn`, of pictures in memory or on disk."""

logger = logging.getLogger(__name__)

SHARE = 0.7
"""Of the memory that is free, what a dream may take."""

WORKSPACE = 1.4
"""What the allocator takes for the tensors' bytes, in a process on the CPU of the command line. One that gives back
what it frees takes less, one that keeps it without `malloc.TUNABLES` more. docs/size.md has what was measured."""

COPYING = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
"""Operations that take about as much memory as what they read and write, while they run."""

PIXEL = 12
"""Bytes of a pixel: three float32."""

HELD_IMAGES, STEP_IMAGES = 6, 12
"""Images of the whole size that are in memory while the network looks at one of them, and at the height of the norm and
the step on the pixels, which come after it."""

MOST, MOST_PIXEL = 10**9, 2000
"""Upper bound in bytes for a step of our own networks without a guide: MOST + MOST_PIXEL x pixels x layers."""

LEAST_TILE = 64
"""The smallest tile, in px, that is tried."""

RESERVE = 2**26
"""Bytes of address space that are released at the first out-of-memory error, so that recovery can allocate. They are
never written, so they take no memory."""

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_bytes(amount: Limit) -> int:
    """Read an amount of memory as people spell it: 2GB, 1.5G, 800M, 2000000000."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(amount).strip().upper())
    if found is None or not 0 < float(found[1]) < inf or (found[0].isdecimal() and int(found[0]) < 2**20):
        raise SettingsError(f"{shown(amount)} is not an amount of memory; one is spelt 2GB, 1.5G or 800M, or in bytes")
    return int(float(found[1]) * UNITS[found[2]])


def spell_bytes(number: float) -> str:
    """Spell an amount of memory or disk in GB, MB or kB."""
    if 1e3 <= number < 1e6:
        return f"{number / 1e3:.0f} kB"
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(number, 0) / 1e6:.0f} MB"


def in_use(device: torch.device = CPU) -> int:
    """Bytes of memory that this process holds now, on a GPU if `device` is one."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def budget(memory: Limit | None, device: torch.device) -> int:
    """Return how many more bytes a dream may take: `memory` is for the whole process, or else a share of what is free.

    What the dream before it took and freed is free. Memory on a GPU is counted there, and `memory` is then the GPU's.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        used = in_use(device)
        kept = torch.cuda.memory_reserved(device) - used  # by PyTorch, for who asks next
        return parse_bytes(memory) - used if memory is not None else int(SHARE * (free + kept))
    give_back()
    return parse_bytes(memory) - in_use() if memory is not None else int(SHARE * psutil.virtual_memory().available)


def gradient_bytes(features: Features, scoring: Scoring, window: Size, batch: int = 1) -> int:
    """Estimate the bytes that the network and its gradient take for a batch of windows of `window` px."""
    with on_paper(features), LiveBytes() as live:
        images = [torch.empty(3, *window, device=features.mean.device) for _ in range(batch)]
        differentiate(features, scoring.on_paper, images, [(0.0, 0.0)] * batch)
    return int(WORKSPACE * live.peak)


@dataclass(frozen=True)
class PictureBytes:
    """Bytes of a dream's pictures in memory: those that are `held` while the network looks at them, and the peak of a
    `step` on them, for which what the network took is free again."""

    held: int
    step: int

    def with_network(self, needed: int) -> int:
        """Return the peak of a whole step, with a network that takes `needed`."""
        return max(self.held + needed, self.step)

    def with_images(self, count: int, size: Size) -> "PictureBytes":
        """With so many images more, all the time."""
        more = count * PIXEL * size[0] * size[1]
        return PictureBytes(self.held + more, self.step + more)


def image_bytes(size: Size) -> PictureBytes:
    """Estimate the bytes of all images of the whole size, where they are in memory and a step takes one gradient."""
    image = PIXEL * size[0] * size[1]
    return PictureBytes(HELD_IMAGES * image, STEP_IMAGES * image)


def most_bytes(size: Size, layers: int) -> int:
    """Return the bytes, images aside, within which a step of our own networks stays if no guide is given."""
    return MOST + MOST_PIXEL * layers * size[0] * size[1]


def halving_gradient(build: Callable[[int], G], first: G, tile: int) -> G:
    """Return `first`, which `build` made for tiles of `tile` px, but with tiles half as large once memory runs out.

    The gradient that could not be had is computed again: no step is lost.
    """
    gradient, side, reserve = first, tile, mmap(-1, RESERVE)

    def halving(image: Any, shift: Shift) -> tuple[float, Any]:
        nonlocal gradient, side
        while True:
            try:
                return gradient(image, shift)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or side // 2 < LEAST_TILE:
                    raise
                reason = str(error)
            reserve.close()
            keep_nothing()
            side //= 2
            logger.warning("memory ran out: going on with tiles of %d px", side)
            try:
                gradient = _in_new_threads(build(side))
            except UsageError:  # what sees all of a picture has no tiles
                raise MemoryError(reason) from None

    return cast(G, halving)


def _in_new_threads(gradient: G) -> G:
    """Return `gradient`, computed in a new thread each time, which an interruption does not wait for.

    After oneDNN once fails to allocate code for a convolution in a thread, it fails there for good.
    """

    def in_a_fresh_thread(image: Any, shift: Shift) -> tuple[float, Any]:
        found: Future[tuple[float, Any]] = Future()
        Thread(target=_settle, args=(found, gradient, image, shift), daemon=True).start()
        return found.result()

    return cast(G, in_a_fresh_thread)


def _settle(found: Future[Any], compute: Callable[..., Any], *arguments: Any) -> None:
    try:
        found.set_result(compute(*arguments))
    except BaseException as error:
        found.set_exception(error)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that live while it is on, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, result)
        if func._overloadpacket in COPYING:
            made = result[0] if isinstance(result, tuple) else result
            self.peak = max(self.peak, self.live + args[0].nbytes + made.nbytes)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        self.live += size
        self.peak = max(self.peak, self.live)
        self._storages[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        del self._storages[key]
        self.live -= size
