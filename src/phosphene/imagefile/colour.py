"""From samples to sRGB: their depth, their alpha, their colour profile."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import PIL.Image
from PIL import ImageCms

from phosphene.imagefile.decode import upright
from phosphene.imagefile.raw import Array, Raw

SRGB = ImageCms.createProfile("sRGB")
STRIP = 128
"""Rows that are worked on at a time."""

_INTENT, _FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION


@dataclass(frozen=True)
class Colours:
    """What the samples of a `Raw` mean: applied to a part of them, it gives sRGB and alpha.

    A part of a picture means what it means in the whole, so that one that is read in strips comes out the same.
    """

    raw: Raw
    white: float
    managed: Callable[[Array], Array] | None

    def __call__(self, samples: Array) -> tuple[Array, Array | None]:
        """Return [rows, columns, 3] and [rows, columns] or None, float32 in 0..1."""
        raw, alpha = self.raw, None
        if raw.alpha:
            samples, alpha = samples[..., :-1], self._unit(samples[..., -1])
        if raw.palette is not None:
            colour: Array = raw.palette[np.minimum(samples[..., 0], len(raw.palette) - 1)] / np.float32(65535)
        elif self._is_plain:
            colour = samples
        else:
            colour = self._unit(samples)
        if alpha is not None and raw.premultiplied:
            colour = (_scaled(colour) / np.where(alpha > 0, alpha, 1)[..., None]).clip(0, 1)
        if raw.inverted:
            colour = 1 - _scaled(colour)
        return (self.managed or plain)(colour), alpha

    @property
    def _is_plain(self) -> bool:
        return self.raw.samples.dtype == np.uint8 and self.white == 255

    def _unit(self, samples: Array) -> Array:
        unit: Array = np.nan_to_num(samples.astype(np.float32), nan=0, posinf=0, neginf=0).clip(0)
        unit /= np.float32(self.white)
        return unit


def colours_of(raw: Raw, name: str, notes: list[str]) -> Colours:
    """Find out what a picture's samples mean; floats beyond 1 are divided by their greatest."""
    white = raw.white
    if raw.samples.dtype.kind == "f":
        greatest = max(_greatest(part) for part in strips(raw.samples))
        white = max(1.0, greatest)
        if greatest > 1:
            notes.append(f"{name} holds numbers up to {greatest:g} where 1 is white: they were divided by that")
    return Colours(raw, white, _managed_by(raw, name, notes))


def strips(samples: Array) -> Iterator[Array]:
    """Cut [height, ...] into strips."""
    return (samples[top : top + STRIP] for top in range(0, len(samples), STRIP))


def srgb_parts(raw: Raw, name: str, notes: list[str]) -> Iterator[tuple[slice, Array, Array | None]]:
    """Yield rows, colour and alpha of a picture from top to bottom, upright."""
    colours, samples = colours_of(raw, name, notes), upright(raw.samples, raw.orientation)
    for top in range(0, len(samples), STRIP):
        yield slice(top, min(top + STRIP, len(samples))), *colours(samples[top : top + STRIP])


def plain(colour: Array) -> Array:
    """Colour without a profile as sRGB [rows, columns, 3], float32, 0..1."""
    if colour.shape[2] == 4:
        levels = colour if colour.dtype == np.uint8 else np.rint(colour * 255).astype(np.uint8)
        colour = np.asarray(_picture(levels).convert("RGB"))
    return _scaled(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def _managed_by(raw: Raw, name: str, notes: list[str]) -> Callable[[Array], Array] | None:
    """The way from a picture's profile to sRGB; None where it has none, or one that changes nothing."""
    if not raw.icc:
        return None
    channels = 3 if raw.palette is not None else raw.samples.shape[2] - raw.alpha
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(raw.icc))
        managed, probe = _transform(profile, channels), _probe(channels)
        if np.abs(managed(probe) - plain(probe)).max() < 1.5 / 255:
            return None  # sRGB by another name: keep the exact values
        description = ImageCms.getProfileDescription(profile).strip()
    except (ImageCms.PyCMSError, OSError, ValueError, RuntimeError):
        notes.append(f"{name} has a colour profile that is broken or does not fit it: it is read as sRGB")
        return None
    notes.append(f"{name} was in the colours of {description!r}: they are now sRGB")
    return managed


def _transform(profile: ImageCms.ImageCmsProfile, channels: int) -> Callable[[Array], Array]:
    """Colour through a profile to sRGB [rows, columns, 3], float32; with 16 bits unless it is uint8."""
    space = profile.profile.xcolor_space.strip()
    rgb_of_grey = space == "RGB" and channels == 1
    if {"GRAY": 1, "RGB": 3, "CMYK": 4}.get(space) != (3 if rgb_of_grey else channels):
        raise ValueError(f"a {space} profile does not fit {channels} channels")
    mode = {"GRAY": "L"}.get(space, space)
    shallow = ImageCms.buildTransform(profile, SRGB, mode, "RGB", _INTENT, _FLAGS)
    icc = profile.tobytes()

    def managed(colour: Array) -> Array:
        if rgb_of_grey:
            colour = np.broadcast_to(colour, (*colour.shape[:2], 3))
        if colour.dtype == np.uint8:
            found = ImageCms.applyTransform(_picture(colour), shallow)
            return _scaled(np.asarray(found))
        return _deep(colour, icc, space.lower())

    return managed


def _deep(colour: Array, icc: bytes, space: str) -> Array:
    from imagecodecs import cms_transform

    samples = np.rint((colour[..., 0] if colour.shape[2] == 1 else colour) * 65535).astype(np.uint16)
    deep: Array = cms_transform(
        np.ascontiguousarray(samples),
        icc,
        srgb_icc(),
        colorspace=space,
        outcolorspace="rgb",
        intent=_INTENT,
        flags=_FLAGS,
    )
    return deep.reshape(*colour.shape[:2], 3) / np.float32(65535)


def _probe(channels: int) -> Array:
    """A lattice of colours, [1, colours, channels] uint8, on which two ways are compared."""
    levels = np.linspace(0, 255, 256 if channels == 1 else 9).astype(np.uint8)
    return np.stack(np.meshgrid(*[levels] * channels), -1).reshape(1, -1, channels)


def _scaled(samples: Array) -> Array:
    """Samples as float32 in 0..1, whether they are uint8 or that already."""
    return samples / np.float32(255) if samples.dtype == np.uint8 else samples


def _greatest(part: Array) -> float:
    return float(np.nan_to_num(part.astype(np.float32), nan=0, posinf=0, neginf=0).max(initial=0))


def _picture(pixels: Array) -> PIL.Image.Image:
    height, width, channels = pixels.shape
    return PIL.Image.frombytes({1: "L", 3: "RGB", 4: "CMYK"}[channels], (width, height), pixels.tobytes())


def srgb_icc() -> bytes:
    """The sRGB profile to embed, always the same bytes."""
    icc = ImageCms.ImageCmsProfile(SRGB).tobytes()
    return icc[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + icc[36:]  # a fixed date: same picture, same bytes
