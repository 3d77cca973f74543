"""Resize, roll, blur and Laplacian bands: tensor to tensor, no settings, no randomness."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from phosphene.types import Shift, Size

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


def roll(image: Planes, shift: Shift) -> Planes:
    """Move the image down and right by `shift`; what leaves at one edge enters at the other."""
    return torch.roll(image, shift, dims=(1, 2))


def blur(image: Planes, sigma: float) -> Planes:
    """Gaussian blur with standard deviation `sigma` px, cut off at three of them; edges are repeated."""
    if sigma == 0:
        return image
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    return _convolve_separably(image, kernel / kernel.sum())


def laplacian_bands(image: Planes, bands: int) -> list[Band]:
    """Split into `bands`, fine to coarse: each but the last is what a reduction by two loses (Burt, Adelson 1983).

    `merge_bands` adds them up to the image again. Fewer bands come back when a side runs out of pixels.
    """
    kernel = torch.tensor(BINOMIAL, dtype=image.dtype, device=image.device)
    parts: list[Planes] = []
    while len(parts) < bands - 1 and min(image.shape[1:]) > 1:
        low = _convolve_separably(image, kernel)[:, ::2, ::2]
        parts.append(image - _upsample(low, image))
        image = low
    return [*parts, image]


def merge_bands(bands: list[Band]) -> Planes:
    """Add up what `laplacian_bands` split."""
    *fine, image = bands
    for band in reversed(fine):
        image = band + _upsample(image, band)
    return image


def _resize(image: Tensor, size: Size) -> Tensor:
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def _upsample(image: Tensor, like: Tensor) -> Tensor:
    """Bilinear; sample k lies on pixel 2k, where the reduction took it from."""
    padded = F.pad(image[None], (0, 1, 0, 1), mode="replicate")
    size = (2 * image.shape[1] + 1, 2 * image.shape[2] + 1)
    larger = F.interpolate(padded, size=size, mode="bilinear", align_corners=True)[0]
    return larger[:, : like.shape[1], : like.shape[2]]


def _convolve_separably(image: Tensor, kernel: Tensor) -> Tensor:
    channels, radius = image.shape[0], len(kernel) // 2
    rows = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(image[None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)[0]
