"""Resize, roll, blur and Laplacian bands: tensor to tensor, no settings, no randomness."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from phosphene.types import Size

Planes = Float[Tensor, "channels height width"]
Resized = Float[Tensor, "channels new_height new_width"]
Band = Float[Tensor, "channels _ _"]
"""Planes in a list of several sizes."""

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""The generating kernel of Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983."""


def resize(image: Planes, size: Size) -> Resized:
    """Bilinear, over the source's whole footprint when it shrinks, so that nothing aliases."""
    if image.shape[1:] == size:
        return image
    if size[1] == 1 and image.shape[1] != size[0]:
        # PyTorch (2.14, CPU) repeats the first row where the result is one pixel wide: turn it on its side.
        return _resize(_resize(image, (image.shape[1], 1)).mT, (1, size[0])).mT.contiguous()
    return _resize(image, size)


def wrapped(part: slice, shift: int, length: int) -> list[slice]:
    """The places of a part of a rolled axis on the axis itself: one slice, or two where it wraps around."""
    start = (part.start - shift) % length
    stop = start + part.stop - part.start
    return [slice(start, min(stop, length)), *([slice(0, stop - length)] if stop > length else [])]


def blur(image: Planes, sigma: float) -> Planes:
    """Gaussian blur with standard deviation `sigma` px, cut off at three of them; edges are repeated."""
    if sigma == 0:
        return image
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    return _convolve_separably(image, (kernel / kernel.sum()).tolist())


def laplacian_bands(image: Planes, bands: int) -> list[Band]:
    """Split into `bands`, fine to coarse: each but the last is what a reduction by two loses (Burt, Adelson 1983).

    `merge_bands` adds them up to the image again. Fewer bands come back when a side runs out of pixels.
    """
    parts: list[Planes] = []
    while len(parts) < bands - 1 and min(image.shape[1:]) > 1:
        low = _convolve_separably(image, BINOMIAL, every=2)
        parts.append(_upsample(low, image).neg_().add_(image))
        image = low
    return [*parts, image]


def merge_bands(bands: list[Band]) -> Planes:
    """Add up what `laplacian_bands` split."""
    *fine, image = bands
    for band in reversed(fine):
        image = _upsample(image, band).add_(band)
    return image


def _resize(image: Tensor, size: Size) -> Tensor:
    if image.device.type == "mps":  # which antialiases since PyTorch 2.7 only
        return _resize(image.cpu(), size).to(image.device)
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def _upsample(image: Tensor, like: Tensor) -> Tensor:
    """Bilinear; sample k lies on pixel 2k, where the reduction took it from."""
    return _upsample_along(_upsample_along(image, 1, like.shape[1]), 2, like.shape[2])


def _upsample_along(image: Tensor, dim: int, size: int) -> Tensor:
    """Put the mean of each two neighbours between them, and repeat the last one as far as `size`."""
    larger = image.new_empty([*image.shape[:dim], size, *image.shape[dim + 1 :]])
    given, found = image.movedim(dim, 0), larger.movedim(dim, 0)
    found[::2] = given
    found[1 : 2 * len(given) - 2 : 2] = (given[:-1] + given[1:]) / 2
    found[2 * len(given) - 1 :] = given[-1:]
    return larger


def _convolve_separably(image: Tensor, kernel: Sequence[float], every: int = 1) -> Tensor:
    """Convolve rows and columns with `kernel`, its edges repeated, and keep of both one in `every`."""
    padded = F.pad(image[None], (len(kernel) // 2,) * 4, mode="replicate")[0]
    return _convolve_along(_convolve_along(padded, kernel, 1, every), kernel, 2, every)


def _convolve_along(image: Tensor, kernel: Sequence[float], dim: int, every: int) -> Tensor:
    """Add up the taps one after the other.

    PyTorch's convolution of so few channels takes 7 to 20 times as long on the CPU, and many times the memory.
    """
    first, *others = image.unfold(dim, len(kernel), every).unbind(-1)
    total = first * kernel[0]
    for tap, weight in zip(others, kernel[1:], strict=True):
        total.add_(tap, alpha=weight)
    return total
