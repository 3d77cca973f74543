"""Pictures that move: animated GIF, PNG and WebP, with the recipe inside."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from phosphene.errors import ImageError
from phosphene.imagefile.encode import quantise, xmp_of
from phosphene.imagefile.formats import PNG
from phosphene.imagefile.replacing import write_atomically
from phosphene.types import Image

TICKS = {".gif": 10, ".apng": 1, ".webp": 1}
"""Endings of pictures that move -> the unit of a frame's time in them, in ms."""

WEBP_QUALITY = 85


def write_moving(path: Path, images: Iterable[Image], seconds: Sequence[float], *, recipe: str = "") -> None:
    """Write a picture that moves, for ever, whole or not at all; each image (sRGB, 0..1) is shown for its `seconds`."""
    ending, out = path.suffix.lower(), BytesIO()
    first, *others = (_frame(image, ending) for image in images)
    times = whole_times(seconds, TICKS[ending])
    try:
        first.save(out, save_all=True, append_images=others, duration=times, loop=0, **_options(ending, recipe))
        write_atomically(path, out.getvalue())
    except (OSError, ValueError, RuntimeError) as error:  # of an encoder
        raise ImageError(f"{str(path)!r} could not be written: {error}") from error


def whole_times(seconds: Sequence[float], tick: int) -> list[int]:
    """Round times to whole ticks, in ms, so that their sum is never off by more than half a tick."""
    ends = [round(1000 * end / tick) * tick for end in accumulate(seconds)]
    return [max(tick, end - begin) for begin, end in zip([0, *ends], ends, strict=False)]


def _frame(image: Image, ending: str) -> PIL.Image.Image:
    frame = PIL.Image.fromarray(quantise(image, None, PNG, 8))
    if ending != ".gif":
        return frame
    return frame.quantize(palette=frame.quantize(256), dither=PIL.Image.Dither.FLOYDSTEINBERG)


def _options(ending: str, recipe: str) -> dict[str, Any]:
    if ending == ".gif":
        return {"format": "GIF", "comment": recipe.encode(), "disposal": 1}
    if ending == ".webp":
        return {"format": "WEBP", "quality": WEBP_QUALITY, "xmp": xmp_of(recipe)}
    text = PngInfo()
    text.add_itxt("phosphene", recipe)
    return {"format": "PNG", "pnginfo": text}
