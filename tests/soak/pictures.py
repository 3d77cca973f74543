"""Mutated pictures through every decoder, in memory and streamed."""

import io
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import imagecodecs
import numpy as np
import PIL.Image
import pillow_heif
import tifffile
import torch

from phosphene import imagefile
from phosphene.errors import ImageError
from phosphene.imagefile import streaming
from soak import Attempt, FindingError
from soak.mutate import mutated, with_checksums

SIZE = 72, 96


def by_pillow(mode: str, kind: str, **options: object) -> bytes:
    """A picture of a mode (all of Pillow's: L, P, RGBA, CMYK ...) in a format."""
    photograph = PIL.Image.fromarray(noise(3))
    file = io.BytesIO()
    photograph.convert(mode).save(file, kind, **options)
    return file.getvalue()


def noise(channels: int, dtype: type = np.uint8) -> np.ndarray:
    """A picture that is smooth on the left and random on the right."""
    pixels = np.random.default_rng(1).integers(0, 256, (*SIZE, channels))
    pixels[:, : SIZE[1] // 2] = np.arange(SIZE[0])[:, None, None] * 3
    return (pixels * (257 if dtype == np.uint16 else 1) / (255 if dtype == np.float32 else 1)).astype(dtype)


def tiff(samples: np.ndarray, **options: object) -> bytes:
    """A TIFF of samples."""
    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb" if samples.shape[2] > 2 else "minisblack", **options)
    return file.getvalue()


def heif(**options: object) -> bytes:
    """A HEIC."""
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB", SIZE[::-1], noise(3).tobytes()).save(file, **options)
    return file.getvalue()


def corpus() -> dict[str, bytes]:
    """Whole pictures of every kind that is read, by kind."""
    exif = PIL.Image.Exif()
    exif[274], exif[306] = 6, "2024:01:01 00:00:00"
    srgb = imagecodecs.cms_profile("srgb")
    exact = noise(4, np.uint16)
    pictures = {
        **{f"png {mode}": by_pillow(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
        "png profile": by_pillow("RGB", "PNG", icc_profile=srgb),
        **{f"png 16 bits, {n}": imagecodecs.png_encode(exact[..., :n].copy().squeeze()) for n in (1, 2, 3, 4)},
        **{f"jpeg {mode}": by_pillow(mode, "JPEG") for mode in ("L", "RGB", "CMYK")},
        "jpeg progressive": by_pillow("RGB", "JPEG", progressive=True),
        "jpeg grey progressive": by_pillow("L", "JPEG", progressive=True),
        "jpeg exif": by_pillow("RGB", "JPEG", exif=exif, icc_profile=srgb),
        "jpeg restarts": by_pillow("RGB", "JPEG", restart_marker_rows=1),
        "jpeg 12 bits": imagecodecs.jpeg_encode(noise(3).astype(np.uint16) * 16, bitspersample=12),
        "jpeg lossless": imagecodecs.ljpeg_encode(noise(1).squeeze()),
        "webp": by_pillow("RGB", "WEBP"),
        "webp lossless": by_pillow("RGBA", "WEBP", lossless=True),
        "avif": by_pillow("RGB", "AVIF"),
        "avif alpha": by_pillow("RGBA", "AVIF"),
        "gif": by_pillow("P", "GIF"),
        **{f"bmp {mode}": by_pillow(mode, "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")},
        "ppm": by_pillow("RGB", "PPM"),
        "ico": by_pillow("RGBA", "ICO"),
        "jpeg 2000": by_pillow("RGB", "JPEG2000"),
        "heic": heif(quality=80),
        "heic exact": heif(quality=-1, chroma=444),
        **{f"jpeg xl {n}": imagecodecs.jpegxl_encode(noise(n).squeeze(), lossless=True) for n in (1, 3, 4)},
        "jpeg xl lossy": imagecodecs.jpegxl_encode(noise(3)),
        "jpeg xl float": imagecodecs.jpegxl_encode(noise(3, np.float32), lossless=True),
        **{f"tiff {n}": tiff(noise(n)) for n in (1, 3, 4)},
        "tiff tiles": tiff(noise(3), tile=(32, 32), compression="zlib", predictor=True),
        "tiff strips": tiff(noise(3, np.uint16), rowsperstrip=8, compression="zstd"),
        "tiff float": tiff(noise(3, np.float32), compression="zlib"),
        **{f"tiff {c}": tiff(noise(3), compression=c) for c in ("lzw", "jpeg", "jpeg2000", "jpegxl", "webp", "lzma",
                                                                "packbits", "lerc")},
        "bigtiff": tiff(noise(3), bigtiff=True),
    }  # fmt: skip
    gif = io.BytesIO()
    frames = [PIL.Image.fromarray(np.roll(noise(3), shift, 0)).convert("P") for shift in (0, 9, 20)]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    return pictures | {"gif that moves": gif.getvalue()}


def damaged(whole: bytes, chance: Random) -> bytes:
    """A picture, mutated; a PNG with right checksums as often as with wrong ones."""
    data = mutated(whole, chance) or b"\0"
    return with_checksums(data) if data.startswith(b"\x89PNG") and chance.random() < 0.5 else data


def in_memory(path: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The picture as `read` gives it."""
    imagefile.look(path)
    photo = imagefile.read(path)
    return photo.image, photo.alpha


def streamed(path: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The picture as it comes by way of the disk."""
    photo = streaming.look(path)
    parts = list(photo.parts(path.parent, []))
    image = torch.from_numpy(np.concatenate([colour for _, colour, _ in parts]).transpose(2, 0, 1).copy())
    if image.shape[1:] != photo.size:
        raise FindingError(f"{photo.size} was said, and {tuple(image.shape)} came")
    if not photo.has_alpha:
        return image, None
    return image, torch.from_numpy(np.concatenate([alpha for _, _, alpha in parts if alpha is not None]))


def answer(read: object, path: Path) -> torch.Tensor | None:
    """What a way of reading makes of a file: its pixels, or None where it refuses it with one sentence."""
    try:
        image, alpha = read(path)  # type: ignore[operator]
    except ImageError as error:
        if "\n" in str(error) or path.name not in str(error):
            raise FindingError(f"no sentence about the file: {error}") from error
        return None
    planes = image if alpha is None else torch.cat([image, alpha[None]])
    if planes.numel() == 0 or not (planes.isfinite().all() and planes.min() >= 0 and planes.max() <= 1):
        raise FindingError(f"no pixels, or beyond 0 to 1: {planes.shape}")
    return planes


def tried(kind: str, path: Path, ways: Iterable[str]) -> Counter[str]:
    """What each way of reading makes of a file; a finding keeps the file."""
    try:
        return Counter("read" if answer(WAYS[way], path) is not None else "refused" for way in ways)
    except Exception as error:
        raise FindingError(f"{kind}: {path.read_bytes()!r}"[:20000]) from error


@contextmanager
def mutations(ways: tuple[str, ...], scratch: Path) -> Iterator[Attempt]:
    """A mutated picture, in memory, streamed, or both."""
    pictures = corpus()
    path = scratch / "a"
    for name, data in pictures.items():
        path.write_bytes(data)
        for way in ways:
            if answer(WAYS[way], path) is None:
                raise FindingError(f"{name} is whole, and is not read {way}")

    def attempt(chance: Random) -> Counter[str]:
        kind = chance.choice(list(pictures))
        path.write_bytes(damaged(pictures[kind], chance))
        return tried(kind, path, ways)

    yield attempt


WAYS = {"in memory": in_memory, "streamed": streamed}
pictures_in_memory = partial(mutations, ("in memory",))
pictures_streamed = partial(mutations, ("streamed",))


@contextmanager
def absurd_headers(scratch: Path) -> Iterator[Attempt]:
    """Small files that say that they are large: each number of two or four bytes near the size is made another."""
    pictures, path = corpus(), scratch / "a"
    sizes = [struct.pack(order, side) for order in (">H", "<H", ">I", "<I") for side in SIZE]

    def attempt(chance: Random) -> Counter[str]:
        kind = chance.choice(list(pictures))
        data = pictures[kind]
        was = chance.choice([size for size in sizes if size in data] or [data[:2]])
        large = min(chance.choice((300, 4000, 16000, 65000, 2**31 - 1)), 256 ** len(was) - 1)
        order = "little" if was[0] else "big"
        at = chance.choice([i for i in range(len(data)) if data.startswith(was, i)][:8])
        data = data[:at] + large.to_bytes(len(was), order) + data[at + len(was) :]
        path.write_bytes(with_checksums(data) if data.startswith(b"\x89PNG") else data)
        return tried(kind, path, WAYS)

    yield attempt
