"""What a dream may be made of: files, samples, arrays, tensors, and seeded noise."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.errors import UsageError, shown
from phosphene.imagefile import Photo
from phosphene.recipe.own import as_array, is_own, own_mask
from phosphene.setup.memory import PIXEL
from phosphene.types import Image, Plane, Size

Source = Any
"""A path, `sample:NAME`, `noise:HEIGHTxWIDTH`, a `Photo`, an `Image`, or anything that NumPy takes for a picture."""

BEYOND = 0.5
"""How far beyond 0..1 numbers may be: resizing rings by less, and -1..1 or 0..255 is more."""

NUMBERS = "biuf"
"""Kinds of NumPy's types whose numbers may be colours: bool, int, uint and float."""


def read(source: Source, rng: torch.Generator) -> Photo:
    """Read a photograph from a file, a sample, an array, or seeded noise; one that was read already stays as it is."""
    if isinstance(source, Photo):
        return source
    if isinstance(source, str) and source.startswith("noise:"):
        return Photo(_noise(source, rng), None, source, "", ())
    if isinstance(source, str | Path):
        return imagefile.read(source)
    pixels = source if isinstance(source, torch.Tensor) else _from_array(_numbers(source))
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.is_floating_point() or not _has_numbers(pixels):
        raise UsageError(
            f"a tensor of shape {tuple(pixels.shape)} and type {pixels.dtype}, {pixels.layout} on {pixels.device}, is "
            f"not an image; one is dense, float, [3, height, width], 0 to 1"
        )
    pixels = _clamped(pixels.detach().cpu().float(), "an image")
    return Photo(pixels, None, "array", hashlib.sha256(pixels.numpy().tobytes()).hexdigest(), ())


def read_mask(mask: str, size: Size) -> Plane:
    """Read a mask from a file, or have it from a custom array or function, 0..1 at `size` (height, width)."""
    if not is_own(mask):
        return imagefile.as_mask(imagefile.read(mask), size)
    given = own_mask(mask)
    plane = _as_plane(_asked(given, mask, size) if callable(given) else given, mask)
    if callable(given) and plane.shape != size:
        raise UsageError(f"{mask} gave a mask {list(plane.shape)} for a picture {list(size)}")
    return resize(plane[None], size)[0].clamp(0, 1)


def mask_checksum(mask: str | None, size: Size) -> str | None:
    """Return the SHA-256 of a mask's file, or of the pixels of a custom one."""
    if mask is None:
        return None
    if is_own(mask):
        return hashlib.sha256(read_mask(mask, size).numpy().data).hexdigest()
    return imagefile.checksum(mask)


def own_mask_bytes(mask: str | None, size: Size) -> int:
    """Estimate the bytes of a custom mask, which is whole even by way of the disk."""
    return PIXEL * size[0] * size[1] if is_own(mask) else 0


def _asked(function: Callable[[int, int], Any], name: str, size: Size) -> Any:
    try:
        return function(*size)
    except Exception as error:  # it is other people's code
        raise UsageError(f"{name}, a mask of your own, failed: {type(error).__name__}: {error}") from error


def _as_plane(given: Any, name: str) -> Plane:
    pixels = as_array(given)
    if pixels.ndim != 2 or 0 in pixels.shape or pixels.dtype.kind not in NUMBERS:
        raise UsageError(
            f"{name}, a mask of your own, is of shape {list(pixels.shape)} and type {pixels.dtype}; one is of numbers, "
            f"[height, width], 0 to 1"
        )
    if pixels.dtype in (np.uint8, np.uint16) and pixels.max() == 1:
        raise UsageError(
            f"{name}, a mask of your own, has only 0 and 1 of {np.iinfo(pixels.dtype).max}: give it as bool or float"
        )
    return _clamped(_floats(pixels), f"{name}, a mask of your own,")


def _floats(pixels: np.ndarray) -> torch.Tensor:
    """Have numbers as floats. Of uint8 and uint16 the largest is 1; other whole numbers may be of any range."""
    largest = {"u1": 255, "u2": 65535}.get(pixels.dtype.str[1:], 1)
    return torch.from_numpy(np.ascontiguousarray(pixels / np.float32(largest), np.float32))


def _has_numbers(tensor: torch.Tensor) -> bool:
    """Whether a tensor has a number at each place: not on paper, not sparse, not empty."""
    return bool(tensor.numel()) and not tensor.is_meta and tensor.layout == torch.strided


def _clamped(pixels: torch.Tensor, what: str) -> torch.Tensor:
    """Clamp numbers to 0..1, which resizing may have led a little beyond; `UsageError` where another range is meant."""
    low, high = map(float, pixels.aminmax())
    if not (low >= -BEYOND and high <= 1 + BEYOND):  # as where there is a NaN
        raise UsageError(f"{what} has numbers from {low:g} to {high:g}; they are 0 to 1, or of uint8 or uint16")
    return pixels.clamp(0, 1)


def _noise(source: str, rng: torch.Generator) -> Image:
    parts = source.removeprefix("noise:").split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"{source!r} is not a noise; one is spelt noise:HEIGHTxWIDTH, as in noise:480x640")
    height, width = map(int, parts)
    if height * width > imagefile.MAX_PIXELS:
        raise UsageError(f"{source!r} is too large: noise may have {imagefile.MAX_PIXELS / 1e6:.0f} megapixels")
    return (0.5 + 0.1 * torch.randn(3, height, width, generator=rng)).clamp(0, 1)


def _numbers(source: Source) -> np.ndarray:
    found: np.ndarray = as_array(imagefile.in_colours(source))
    if found.ndim == 0:
        given = shown(source)
        raise UsageError(f"{given} is no image; one is a path, sample:NAME, noise:HEIGHTxWIDTH, an array or a tensor")
    return found


def _from_array(pixels: np.ndarray) -> torch.Tensor:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or 0 in pixels.shape:
        several = "; several photographs are for dream_each and survey" if pixels.ndim == 1 and len(pixels) else ""
        raise UsageError(f"an array of shape {pixels.shape} is not an image; one is [height, width, 3]{several}")
    if pixels.dtype.kind not in NUMBERS:
        raise UsageError(f"an array of {pixels.dtype} is not an image; one is float, 0 to 1, or uint8 or uint16")
    return _floats(pixels[:, :, :3]).permute(2, 0, 1)
