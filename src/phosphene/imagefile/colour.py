"""Colour profiles: whatever the file's colours are, to sRGB."""

import struct
from io import BytesIO

import numpy as np
import PIL.Image
from PIL import ImageCms

from phosphene.imagefile.decode import Array, Raw, scaled

SRGB = ImageCms.createProfile("sRGB")


def to_srgb(raw: Raw, name: str, notes: list[str]) -> Array:
    """The colour as sRGB [height, width, 3], float32, 0..1."""
    cmyk = raw.colour.shape[2] == 4
    rgb = np.asarray(_picture(raw.colour).convert("RGB")) if cmyk else raw.colour
    rgb = np.broadcast_to(rgb, (*rgb.shape[:2], 3))
    plain = scaled(rgb)
    if not raw.icc:
        return plain
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(raw.icc))
        space = profile.profile.xcolor_space.strip()
        managed = _managed(rgb if space == "RGB" else raw.colour, profile, space)
        description = ImageCms.getProfileDescription(profile).strip()
    except (ImageCms.PyCMSError, OSError, ValueError, RuntimeError):
        notes.append(f"{name} has a colour profile that is broken or does not fit it: it is read as sRGB")
        return plain
    if np.abs(managed - plain).max() < 1.5 / 255:  # sRGB by another name: keep the exact values
        return plain
    notes.append(f"{name} was in the colours of {description!r}: they are now sRGB")
    return managed


def _managed(colour: Array, profile: ImageCms.ImageCmsProfile, space: str) -> Array:
    """Colour through its profile to sRGB [height, width, 3], float32; with 16 bits unless it is uint8."""
    if colour.shape[2] != {"GRAY": 1, "RGB": 3, "CMYK": 4}.get(space):
        raise ValueError(f"a {space} profile does not fit {colour.shape[2]} channels")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    if colour.dtype == np.uint8:
        managed = ImageCms.profileToProfile(_picture(colour), profile, SRGB, intent, "RGB", flags=flags)
        return scaled(np.asarray(managed))
    from imagecodecs import cms_transform

    samples = np.rint((colour[..., 0] if colour.shape[2] == 1 else colour) * 65535).astype(np.uint16)
    deep = cms_transform(
        samples,
        profile.tobytes(),
        srgb_icc(),
        colorspace=space.lower(),
        outcolorspace="rgb",
        intent=intent,
        flags=flags,
    )
    return deep / np.float32(65535)


def _picture(pixels: Array) -> PIL.Image.Image:
    height, width, channels = pixels.shape
    return PIL.Image.frombytes({1: "L", 3: "RGB", 4: "CMYK"}[channels], (width, height), pixels.tobytes())


def srgb_icc() -> bytes:
    """The sRGB profile to embed, always the same bytes."""
    icc = ImageCms.ImageCmsProfile(SRGB).tobytes()
    return icc[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + icc[36:]  # a fixed date: same picture, same bytes
