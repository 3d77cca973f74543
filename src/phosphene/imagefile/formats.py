"""The formats that can be written, in one table: by memory, from a whole `Image`, and by way of the disk, in strips."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import features

from phosphene.errors import SettingsError
from phosphene.types import Size


@dataclass(frozen=True)
class Format:
    """A format by Pillow's name for it. It holds sides of `longest` px at most, and a recipe of `recipe` bytes.

    `whole` are the options with which an `Image` is written, `strips` those of libvips, which writes what is larger
    than memory; None where a format is not written so.
    """

    name: str
    bits: tuple[int, ...] = (8,)
    longest: int | None = None
    recipe: int | None = None
    alpha: bool = True
    whole: Mapping[str, Any] | None = field(default_factory=dict)
    strips: Mapping[str, Any] | None = None


PNG = Format("PNG", bits=(8, 16), strips={"compression": 6})
TIFF = Format(
    "TIFF",
    bits=(8, 16),
    strips={"compression": "deflate", "predictor": "horizontal", "tile": True, "pyramid": True, "bigtiff": True},
)
# Dreams are full of fine colour, so it keeps its full resolution; lossy WebP has no such choice.
JPEG = Format(
    "JPEG",
    longest=65500,
    recipe=65000,  # a segment of 64 kB, less what stands around it
    alpha=False,
    whole={"quality": 95, "subsampling": "4:4:4"},
    strips={"Q": 95, "subsample_mode": "off"},
)
WEBP = Format("WEBP", longest=16383, whole={"quality": 95})
AVIF = Format("AVIF", longest=65535, whole={"quality": 90, "subsampling": "4:4:4"})
DEEP_ZOOM = Format("DZI", alpha=False, whole=None, strips={})

FORMATS = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".webp": WEBP, ".tif": TIFF, ".tiff": TIFF, ".dzi": DEEP_ZOOM}
"""Endings that can be written."""
if features.check("avif"):
    FORMATS[".avif"] = AVIF


def format_of(path: Path, bits: int = 8, size: Size | None = None) -> Format:
    """Return the format of a file's ending; `SettingsError` where it cannot hold `bits`, or a picture of `size`."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise SettingsError(f"{path.name!r} cannot be written: its ending must be one of {', '.join(FORMATS)}")
    if bits not in kind.bits:
        raise SettingsError(f"{path.name!r} cannot hold {bits} bits: use .png or .tif, or ask for 8 bits")
    if size and kind.longest and max(size) > kind.longest:
        given = f"{size[1]} x {size[0]} pixels"
        raise SettingsError(f"{path.name!r} cannot hold {given}, only {kind.longest} a side: use .png or .tif")
    return kind


def beside(path: Path) -> tuple[Path, ...]:
    """Return what is written beside a file: of a Deep Zoom pyramid's .dzi the folder of its tiles, and its page."""
    if FORMATS.get(path.suffix.lower()) is not DEEP_ZOOM:
        return ()
    return path.with_name(f"{path.stem}_files"), path.with_name(f"{path.stem}.html")


def endings(strips: bool) -> str:
    """Spell the endings that are written whole, or in strips."""
    written = {end: kind.strips if strips else kind.whole for end, kind in FORMATS.items()}
    return ", ".join(end for end, options in written.items() if options is not None)
