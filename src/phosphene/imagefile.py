"""Picture files: a file becomes an `Image`, and an `Image` becomes a file.

The only user of Pillow. Pillow holds colours in 8 bits, so tifffile and imagecodecs decode what is deeper.
"""

import difflib
import hashlib
import os
import secrets
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from PIL import ImageCms, features
from torch.nn import functional as F

from phosphene.errors import ImageError, OutputExistsError, SettingsError, UnknownNameError
from phosphene.types import Image, Plane, Size

Array = NDArray[Any]

MAX_PIXELS = 2**28
"""Most pixels read: 16384 x 16384, 3.2 GB as an `Image`. A file that declares more is refused undecoded."""

SAMPLES = {
    "astronaut": "Eileen Collins in her flight suit; NASA, public domain",
    "chelsea": "a tabby cat's face; Stefan van der Walt, CC0",
    "coffee": "a cup of espresso on a wooden table; Rachel Michetti, CC0",
    "hubble_deep_field": "thousands of far galaxies; NASA, public domain",
    "retina": "the back of a left eye; Mikael Häggström, CC0",
    "rocket": "a Falcon 9 lifting off with DSCOVR; SpaceX, public domain",
}
"""The copyright-free colour photographs inside scikit-image: name -> what it shows, and its licence."""

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
"""Endings that can be written -> Pillow's name of the format."""
if features.check("avif"):
    FORMATS[".avif"] = "AVIF"

_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}
_LOSSY: dict[str, dict[str, Any]] = {
    # Dreams are full of fine colour, so it keeps its full resolution; lossy WebP has no such choice.
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RECIPE = "{urn:phosphene:}recipe"
_SRGB = ImageCms.createProfile("sRGB")
_pillow_lock = threading.RLock()


@dataclass(frozen=True)
class Photo:
    """A picture as it was read.

    `image` is upright, sRGB, 0..1, not premultiplied; `alpha` is 0 (clear) to 1 (opaque), or None where the
    file has none; `source` is what was asked for; `sha256` is of the file's bytes; `notes` are sentences for
    the user.
    """

    image: Image
    alpha: Plane | None
    source: str
    sha256: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Raw:
    """What a decoder found: arrays of uint8, or of float32 in 0..1 where the file is deeper.

    `colour` is [height, width, channels]: 1 is grey, 3 is RGB, 4 is CMYK. `alpha` is [height, width].
    """

    colour: Array
    alpha: Array | None
    icc: bytes | None
    orientation: int


def read(source: str | Path) -> Photo:
    """Read a picture file, or with `sample:NAME` one of `SAMPLES`.

    The 16 bits of a PNG or TIFF are kept; the picture is turned as its EXIF orientation says, and converted
    from its colour profile to sRGB. Raises ImageError for what is not a readable picture of at most
    `MAX_PIXELS`, and UnknownNameError for an unknown sample.
    """
    path, notes = _locate(str(source)), list[str]()
    with _opened(path) as file:
        raw = _decode_deep_tiff(file, path.name, notes) or _decode(file, path.name, notes)
        colour = _upright(_to_srgb(raw, path.name, notes), raw.orientation)
        alpha = None if raw.alpha is None else _upright(_scaled(raw.alpha), raw.orientation)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    image = torch.from_numpy(colour.transpose(2, 0, 1).copy())
    plane = None if alpha is None else torch.from_numpy(alpha.copy())
    return Photo(image, plane, str(source), sha256, tuple(notes))


def read_mask(path: str | Path, size: Size) -> Plane:
    """Read a picture as a mask of `size` (height, width): its Rec. 709 luma, times its alpha, 0..1.

    It is stretched to `size` with antialiased bilinear resampling. Raises what `read` raises.
    """
    photo = read(path)
    luma = torch.einsum("chw,c->hw", photo.image, torch.tensor([0.2126, 0.7152, 0.0722]))
    mask = luma if photo.alpha is None else luma * photo.alpha
    return F.interpolate(mask[None, None], size, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)


def check_output(path: str | Path, overwrite: bool, *, bits: Literal[8, 16] = 8, size: Size | None = None) -> None:
    """Raise now what `write` would raise later: to be called before the work starts.

    SettingsError for an ending that cannot be written, or cannot hold `bits` or a picture of `size`;
    OutputExistsError for a file that is there already, unless `overwrite`; ImageError for a folder that is
    missing or cannot be written to.
    """
    path = Path(path)
    _format_of(path, bits, size)
    if not path.parent.is_dir():
        raise ImageError(f"there is no folder {str(path.parent)!r} to write {path.name!r} in: make it first")
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a folder: give the name of a file to write")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"you may not write in {str(path.parent)!r}: choose another folder for {path.name!r}")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{str(path)!r} exists already: choose another name, or ask to overwrite it")


def write(
    path: str | Path,
    image: Image,
    *,
    alpha: Plane | None = None,
    recipe: str = "",
    bits: Literal[8, 16] = 8,
) -> None:
    """Write an sRGB image (0..1, clamped) in the format of its ending, whole or not at all.

    An existing file is replaced. PNG and TIFF are lossless and hold 8 or 16 bits; JPEG and WebP have quality
    95, AVIF 90. JPEG has no alpha: the picture is laid on white, as viewers show it. `recipe` is embedded for
    `read_recipe`; the photograph's own metadata (place, camera) is not passed on. Raises SettingsError for
    what the format cannot hold, ImageError where writing fails.
    """
    path = Path(path)
    kind = _format_of(path, bits, (image.shape[1], image.shape[2]))
    try:
        _replace(path, _encode(_quantise(image, alpha, kind, bits), kind, recipe))
    except (OSError, ValueError) as error:
        raise ImageError(f"{str(path)!r} could not be written: {error}") from error


def encode(image: Image, kind: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """The image (sRGB, 0..1, clamped) as the bytes of an 8 bit file, for notebooks and live views."""
    return _encode(_quantise(image, None, kind, 8), kind, "")


def read_recipe(path: str | Path) -> str:
    """The recipe that `write` embedded. Raises ImageError where there is none, or no picture."""
    path = Path(path)
    with _opened(path) as file, PIL.Image.open(file) as picture:
        recipe = picture.info.get("phosphene") or _recipe_in(picture.info.get("xmp", b""))
    if not recipe:
        raise ImageError(f"{str(path)!r} carries no recipe: give a picture as Phosphene wrote it, not a copy")
    return str(recipe)


# --- finding and opening


def _locate(source: str) -> Path:
    kind, _, name = source.partition(":")
    if kind != "sample":
        return Path(source)
    if name not in SAMPLES:
        raise UnknownNameError("sample", name, SAMPLES, f"The samples are {', '.join(SAMPLES)}.")
    import skimage

    return next((Path(skimage.__file__).parent / "data").glob(f"{name}.*"))


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """The file, with Pillow silent and under our size limit; whatever goes wrong in it becomes an ImageError.

    That limit and the warning filters belong to the whole process, so one file is decoded at a time.
    """
    with _open(path) as file, _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PIL.Image.MAX_IMAGE_PIXELS
        PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this, and refuses above twice this
        try:
            yield file
        except (ImageError, ImportError, MemoryError):
            raise
        except PIL.UnidentifiedImageError:
            known = "PNG, JPEG, WebP, AVIF, TIFF or GIF"
            raise ImageError(f"{str(path)!r} is not a picture that can be read: give a {known}") from None
        except PIL.Image.DecompressionBombError:
            most = f"{MAX_PIXELS:,} pixels"
            raise ImageError(f"{str(path)!r} is larger than {most}: make it smaller first") from None
        except Exception as error:  # decoders meet broken bytes with whatever they stumble over
            raise ImageError(f"{str(path)!r} is broken or cut off: give a whole picture ({error})") from error
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = theirs


def _open(path: Path) -> BufferedReader:
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a folder: give one picture in it")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
        guess = f"did you mean {near[0]!r}?" if near else "give the path of a picture"
        raise ImageError(f"there is no file {str(path)!r}: {guess}") from None
    except OSError as error:
        raise ImageError(f"{str(path)!r} cannot be opened: give a file you may read ({error.strerror})") from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise ImageError(f"{str(path)!r} is an empty file: give a picture")
    return file


# --- decoding


def _decode(file: BufferedReader, name: str, notes: list[str]) -> _Raw:
    file.seek(0)
    with PIL.Image.open(file) as picture:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format in ("GIF", "PNG", "WEBP", "AVIF"):
            notes.append(f"{name} is animated ({frames} frames): its first frame is dreamed")
        elif frames > 1 and picture.format == "TIFF":
            notes.append(f"{name} has {frames} pages: its first page is dreamed")
        picture.load()
        colour, alpha = _deep_png(file, name, notes) or _deep_grey(picture, name, notes) or _split(picture)
        return _Raw(colour, alpha, picture.info.get("icc_profile"), _orientation(picture))


def _split(picture: PIL.Image.Image) -> tuple[Array, Array | None]:
    """Colour as grey, RGB or CMYK, and alpha, both uint8; colour under clear pixels is kept as it is."""
    grey, alpha = picture.mode in ("1", "L", "LA", "La"), None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = np.asarray(picture.getchannel("A"))
    colour = np.asarray(picture if picture.mode == "CMYK" else picture.convert("RGB"))
    return (colour[..., :1] if grey else colour), alpha


def _deep_grey(picture: PIL.Image.Image, name: str, notes: list[str]) -> tuple[Array, None] | None:
    """Pillow's modes of more than 8 bits, all grey; None for the others."""
    if not picture.mode.startswith(("I", "F")):
        return None
    samples = np.asarray(picture)[..., None]
    if picture.mode == "I":  # 32 bits wide, but what Pillow puts there has 16
        samples = samples.clip(0, 65535).astype(np.uint16)
    return _unit(samples, 16, name, notes), None


def _deep_png(file: BufferedReader, name: str, notes: list[str]) -> tuple[Array, Array | None] | None:
    """Colour and alpha of a PNG of 16 bits, which Pillow would cut to 8; None for other files."""
    file.seek(0)
    head = file.read(25)
    if head[:8] != _PNG or head[24] != 16:
        return None
    from imagecodecs import png_decode

    samples = _unit(np.atleast_3d(png_decode(head + file.read())), 16, name, notes)
    if samples.shape[2] in (1, 3):
        return samples, None
    return samples[..., :-1], samples[..., -1]


def _decode_deep_tiff(file: BufferedReader, name: str, notes: list[str]) -> _Raw | None:
    """A grey or RGB TIFF of more than 8 bits, which Pillow would cut or refuse; None for other files."""
    if file.read(4) not in _TIFF:
        return None
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page, pages = tiff.pages.first, len(tiff.pages)
        if page.photometric not in (0, 1, 2) or page.dtype is None or page.dtype.itemsize == 1:
            return None
        if page.imagewidth * page.imagelength > MAX_PIXELS:
            raise PIL.Image.DecompressionBombError
        samples = page.asarray()
    if pages > 1:
        notes.append(f"{name} has {pages} pages: its first page is dreamed")
    samples = np.moveaxis(samples, 0, -1) if page.axes.startswith("S") else samples
    samples = samples.reshape(page.imagelength, page.imagewidth, -1)
    channels, extra = (3 if page.photometric == 2 else 1), page.extrasamples[:1]
    colour, alpha = _unit(samples[..., :channels], page.bitspersample, name, notes), None
    if extra in ((1,), (2,)):
        alpha = _unit(samples[..., channels], page.bitspersample, name, notes)
    if alpha is not None and extra == (1,):  # premultiplied
        colour = (colour / np.where(alpha > 0, alpha, 1)[..., None]).clip(0, 1)
    if page.photometric == 0:  # white is zero
        colour = 1 - colour
    return _Raw(colour, alpha, page.iccprofile, page.tags.valueof(274, 1))


def _unit(samples: Array, bits: int, name: str, notes: list[str]) -> Array:
    """Samples as float32 in 0..1. Floats are there already, or else are divided by their greatest."""
    unit: Array = np.nan_to_num(samples.astype(np.float32), nan=0, posinf=0, neginf=0).clip(0)
    if samples.dtype.kind in "iu":
        unit /= 2 ** (bits - (samples.dtype.kind == "i")) - 1
        return unit
    greatest = float(unit.max())
    if greatest <= 1:
        return unit
    notes.append(f"{name} holds numbers up to {greatest:g} where 1 is white: they were divided by that")
    return unit / greatest


def _scaled(samples: Array) -> Array:
    return samples / np.float32(255) if samples.dtype == np.uint8 else samples


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        return int(picture.getexif().get(274, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):  # broken EXIF turns nothing
        return 1


def _upright(plane: Array, orientation: int) -> Array:
    """Turn [height, width, ...] as EXIF orientations 2 to 8 ask; any other number turns nothing."""
    if orientation in (5, 6, 7, 8):
        plane = plane.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    return plane


# --- colour profiles


def _to_srgb(raw: _Raw, name: str, notes: list[str]) -> Array:
    """The colour as sRGB [height, width, 3], float32, 0..1."""
    cmyk = raw.colour.shape[2] == 4
    rgb = np.asarray(_picture(raw.colour).convert("RGB")) if cmyk else raw.colour
    rgb = np.broadcast_to(rgb, (*rgb.shape[:2], 3))
    plain = _scaled(rgb)
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
        managed = ImageCms.profileToProfile(_picture(colour), profile, _SRGB, intent, "RGB", flags=flags)
        return _scaled(np.asarray(managed))
    from imagecodecs import cms_transform

    samples = np.rint((colour[..., 0] if colour.shape[2] == 1 else colour) * 65535).astype(np.uint16)
    deep = cms_transform(
        samples,
        profile.tobytes(),
        _srgb_icc(),
        colorspace=space.lower(),
        outcolorspace="rgb",
        intent=intent,
        flags=flags,
    )
    return deep / np.float32(65535)


def _picture(pixels: Array) -> PIL.Image.Image:
    height, width, channels = pixels.shape
    return PIL.Image.frombytes({1: "L", 3: "RGB", 4: "CMYK"}[channels], (width, height), pixels.tobytes())


def _srgb_icc() -> bytes:
    icc = ImageCms.ImageCmsProfile(_SRGB).tobytes()
    return icc[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + icc[36:]  # a fixed date: same picture, same bytes


# --- encoding


def _format_of(path: Path, bits: int, size: Size | None) -> str:
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise SettingsError(f"{path.name!r} cannot be written: its ending must be one of {', '.join(FORMATS)}")
    if bits == 16 and kind not in ("PNG", "TIFF"):
        raise SettingsError(f"{path.name!r} cannot hold 16 bits: use .png or .tif, or ask for 8 bits")
    longest = _LONGEST_SIDE.get(kind)
    if size and longest and max(size) > longest:
        given = f"{size[1]} x {size[0]} pixels"
        raise SettingsError(f"{path.name!r} cannot hold {given}, only {longest} a side: use .png or .tif")
    return kind


def _quantise(image: Image, alpha: Plane | None, kind: str, bits: int) -> Array:
    """[height, width, 3 or 4], uint8 or uint16, rounded; laid on white where the format has no alpha."""
    pixels = image.detach().float().cpu().clamp(0, 1)
    if alpha is not None:
        opacity = alpha.detach().float().cpu().clamp(0, 1)
        pixels = 1 - opacity * (1 - pixels) if kind == "JPEG" else torch.cat([pixels, opacity[None]])
    levels: Array = (pixels * (2**bits - 1)).round().permute(1, 2, 0).contiguous().numpy()
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def _encode(pixels: Array, kind: str, recipe: str) -> bytes:
    if kind == "PNG":
        return _encode_png(pixels, recipe)
    xmp = _xmp(recipe) if recipe else b""
    if kind == "TIFF":
        return _encode_tiff(pixels, xmp)
    out = BytesIO()
    PIL.Image.fromarray(pixels).save(out, kind, icc_profile=_srgb_icc(), xmp=xmp, **_LOSSY[kind])
    return out.getvalue()


def _encode_png(pixels: Array, recipe: str) -> bytes:
    """An 8 or 16 bit PNG, which Pillow cannot write in colour; rows are stored as differences (filter 1)."""
    height, width, channels = pixels.shape
    depth = pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    lines = np.concatenate([np.ones((height, 1), np.uint8), rows], axis=1)
    lines[:, 1 + depth * channels :] -= rows[:, : -depth * channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, {3: 2, 4: 6}[channels], 0, 0, 0)
    text = [(b"iTXt", b"phosphene\0\0\0\0\0" + recipe.encode())] if recipe else []
    data = (b"IDAT", zlib.compress(lines.tobytes()))
    chunks = [(b"IHDR", header), (b"sRGB", b"\0"), *text, data, (b"IEND", b"")]
    return _PNG + b"".join(
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)) for tag, body in chunks
    )


def _encode_tiff(pixels: Array, xmp: bytes) -> bytes:
    import tifffile

    out = BytesIO()
    tifffile.imwrite(
        out,
        pixels,
        photometric="rgb",
        extrasamples=["unassalpha"] if pixels.shape[2] == 4 else None,
        compression="zlib",
        predictor=True,
        iccprofile=_srgb_icc(),
        software="Phosphene",
        metadata=None,
        extratags=[(700, "B", len(xmp), xmp, True)] if xmp else [],  # 700 is the tag of XMP
    )
    return out.getvalue()


def _xmp(recipe: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:phosphene="urn:phosphene:"><phosphene:recipe>'
        + escape(recipe, {"\r": "&#13;"})
        + "</phosphene:recipe></rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def _recipe_in(xmp: bytes) -> str | None:
    try:
        nodes = ElementTree.fromstring(xmp).iter()
    except ElementTree.ParseError:
        return None
    # an editor that saves XMP again may turn the element into an attribute
    return next((text for node in nodes if (text := node.text if node.tag == _RECIPE else node.get(_RECIPE))), None)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".phosphene-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
