"""What a dream may be made of: files, samples, arrays, tensors, and seeded noise."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phosphene import imagefile
from phosphene.errors import UsageError
from phosphene.imagefile import Photo
from phosphene.types import Image

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


def _noise(source: str, rng: torch.Generator) -> Image:
    parts = source.removeprefix("noise:").split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"{source!r} is not a noise; one is spelt noise:HEIGHTxWIDTH, as in noise:480x640")
    height, width = map(int, parts)
    return (0.5 + 0.1 * torch.randn(3, height, width, generator=rng)).clamp(0, 1)


def _from_array(pixels: np.ndarray) -> torch.Tensor:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise UsageError(f"an array of shape {pixels.shape} is not an image; one is [height, width, 3]")
    limit = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    return torch.from_numpy(np.ascontiguousarray(pixels[:, :, :3]) / np.float32(limit)).permute(2, 0, 1)
