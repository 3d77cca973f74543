"""What a dream may be made of: files, samples, arrays, tensors, and seeded noise."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.errors import UsageError
from phosphene.imagefile import Photo
from phosphene.recipe.own import is_own, own_mask
from phosphene.setup.memory import PIXEL
from phosphene.types import Image, Plane, Size

Source = Any
"""A path, `sample:NAME`, `noise:HEIGHTxWIDTH`, a `Photo`, an `Image`, or anything that NumPy takes for a picture."""


def read(source: Source, rng: torch.Generator) -> Photo:
    """Read a photograph from a file, a sample, an array, or seeded noise; one that was read already stays as it is."""
    if isinstance(source, Photo):
        return source
    if isinstance(source, str) and source.startswith("noise:"):
        return Photo(_noise(source, rng), None, source, "", ())
    if isinstance(source, str | Path):
        return imagefile.read(source)
    pixels = source if isinstance(source, torch.Tensor) else _from_array(np.asarray(source))
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.is_floating_point():
        raise UsageError(
            f"a tensor of shape {tuple(pixels.shape)} and type {pixels.dtype} is not an image; "
            f"one is float, [3, height, width], 0 to 1"
        )
    pixels = pixels.detach().cpu().float().clamp(0, 1)
    return Photo(pixels, None, "array", hashlib.sha256(pixels.numpy().tobytes()).hexdigest(), ())


def read_mask(mask: str, size: Size) -> Plane:
    """Read a mask from a file, or have it from somebody's own array or function, 0..1 at `size` (height, width)."""
    if not is_own(mask):
        return imagefile.as_mask(imagefile.read(mask), size)
    given = own_mask(mask)
    plane = _as_plane(_asked(given, mask, size) if callable(given) else given, mask)
    if callable(given) and plane.shape != size:
        raise UsageError(f"{mask} gave a mask {list(plane.shape)} for a picture {list(size)}")
    return resize(plane[None], size)[0].clamp(0, 1)


def mask_checksum(mask: str | None, size: Size) -> str | None:
    """Return the SHA-256 of a mask's file, or of the pixels of somebody's own."""
    if mask is None:
        return None
    if is_own(mask):
        return hashlib.sha256(read_mask(mask, size).numpy().data).hexdigest()
    return imagefile.checksum(mask)


def own_mask_bytes(mask: str | None, size: Size) -> int:
    """Foretell the bytes of a mask of somebody's own, which is whole even by way of the disk."""
    return PIXEL * size[0] * size[1] if is_own(mask) else 0


def _asked(function: Callable[[int, int], Any], name: str, size: Size) -> Any:
    try:
        return function(*size)
    except Exception as error:  # it is other people's code
        raise UsageError(f"{name}, a mask of your own, failed: {type(error).__name__}: {error}") from error


def _as_plane(given: Any, name: str) -> Plane:
    pixels = np.asarray(given.detach().cpu() if isinstance(given, torch.Tensor) else given)
    if pixels.ndim != 2 or pixels.dtype.kind not in "biuf":
        raise UsageError(
            f"{name}, a mask of your own, is of shape {list(pixels.shape)} and type {pixels.dtype}; one is of numbers, "
            f"[height, width], 0 to 1"
        )
    plane = torch.from_numpy(np.ascontiguousarray(pixels / np.float32(_limit(pixels)), np.float32))
    if not plane.isfinite().all():
        raise UsageError(f"{name}, a mask of your own, has numbers that are not finite; they are 0 to 1")
    return plane


def _limit(pixels: np.ndarray) -> int:
    """The number that stands for 1."""
    return np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1


def _noise(source: str, rng: torch.Generator) -> Image:
    parts = source.removeprefix("noise:").split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"{source!r} is not a noise; one is spelt noise:HEIGHTxWIDTH, as in noise:480x640")
    height, width = map(int, parts)
    if height * width > imagefile.MAX_PIXELS:
        raise UsageError(f"{source!r} is too large: noise may have {imagefile.MAX_PIXELS / 1e6:.0f} megapixels")
    return (0.5 + 0.1 * torch.randn(3, height, width, generator=rng)).clamp(0, 1)


def _from_array(pixels: np.ndarray) -> torch.Tensor:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        several = "; several photographs are for dream_each" if pixels.ndim == 1 and len(pixels) else ""
        raise UsageError(f"an array of shape {pixels.shape} is not an image; one is [height, width, 3]{several}")
    return torch.from_numpy(np.ascontiguousarray(pixels[:, :, :3]) / np.float32(_limit(pixels))).permute(2, 0, 1)
