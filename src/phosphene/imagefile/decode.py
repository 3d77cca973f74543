"""Bytes to samples. Pillow holds colours in 8 bits, so imagecodecs, pi_heif and `tiff` decode what is deeper."""

from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import PIL.Image

from phosphene.imagefile import headers
from phosphene.imagefile.headers import LZW, Shape
from phosphene.imagefile.raw import Array, Empty, Raw

PILLOWS = ("WEBP", "AVIF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "QOI", "ICO", "PSD", "TIFF")
"""What else is read, by Pillow's names: none that asks another program, and none that is known by its ending alone."""


RUNS = 128
"""Pixels that a byte can mean in a BMP: a run of 255 takes two."""

PER_BYTE = {"BMP": RUNS, "DIB": RUNS, "GIF": LZW}
"""Pixels that a byte can mean at most, by Pillow's name of a format."""


_HDR = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of ITU-T H.273 that are not near sRGB's."""


def shape_of(file: BinaryIO) -> Shape:
    """What a picture file declares. Raises what a decoder raises where it is broken or no picture."""
    kind = kind_of(file)
    if kind == "TIFF":
        from phosphene.imagefile import tiff

        return tiff.shape(file)
    return {"PNG": headers.png_shape, "JPEG": headers.jpeg_shape, "JXL": _jxl_shape, "HEIF": _heif_shape}.get(
        kind, _pillow_shape
    )(file)


def decode(file: BinaryIO, name: str, notes: list[str], empty: Empty = np.empty) -> Raw:
    """Decode a picture; a TIFF's samples go into what `empty` makes."""
    kind = kind_of(file)
    if kind == "TIFF":
        from phosphene.imagefile import tiff

        return tiff.decode(file, name, notes, empty) or _pillow(file, name, notes)
    return {"PNG": _png, "JPEG": _jpeg, "JXL": _jxl, "HEIF": _heif}.get(kind, _pillow)(file, name, notes)


def kind_of(file: BinaryIO) -> str:
    """Name the kind of a file, as `headers.kind_of` does."""
    file.seek(0)
    kind = headers.kind_of(file.read(64))
    file.seek(0)
    return kind


def _png(file: BinaryIO, name: str, notes: list[str]) -> Raw:
    said, pixels = headers.png_said(file), headers.png_pixels(file)
    with PIL.Image.open(BytesIO(pixels), formats=["PNG"]) as picture:
        if pixels[24] != 16:
            return _of_pillow(picture, name, notes, said)
        picture.verify()  # checksums; what is left of a broken one stays in memory behind imagecodecs
    headers.check_png(file)
    from imagecodecs import png_decode

    samples = np.atleast_3d(png_decode(pixels))
    return Raw(samples, 65535, samples.shape[2] in (2, 4), said.icc, said.orientation)


def _jpeg(file: BinaryIO, name: str, notes: list[str]) -> Raw:
    said, pixels = headers.jpeg_said(file), headers.jpeg_pixels(file)
    marker, bits, _ = headers.jpeg_frame(pixels)
    if bits == 8 and marker != 0xC3:
        with PIL.Image.open(BytesIO(pixels), formats=["JPEG"]) as picture:
            return _of_pillow(picture, name, notes, said)
    from imagecodecs import jpeg_decode  # 12 bits, and lossless

    return Raw(np.atleast_3d(jpeg_decode(pixels)), 2**bits - 1, False, said.icc, said.orientation)


def _jxl_shape(file: BinaryIO) -> Shape:
    import pylibjxl

    said = pylibjxl.probe(file.read())
    pixel = said["channels"] * (1 if said["bits_per_sample"] <= 8 else 4)
    return Shape(said["width"], said["height"], pixel, said["has_alpha"])


def _jxl(file: BinaryIO, name: str, notes: list[str]) -> Raw:
    """Decode JPEG XL: libjxl turns it upright. One library tells its profile, the other has more than 8 bits."""
    import pylibjxl
    from imagecodecs import jpegxl_decode

    data = file.read()
    said = pylibjxl.probe(data)
    samples, told = pylibjxl.decode(data, metadata=True)
    if said["have_animation"]:
        notes.append(f"{name} is animated: its first frame is dreamed")
    if said["have_animation"] or said["bits_per_sample"] > 8:
        samples = jpegxl_decode(data, index=0)
    white = 1.0 if samples.dtype.kind == "f" else 2.0 ** said["bits_per_sample"] - 1
    samples = _without_extras(np.atleast_3d(samples), said["has_alpha"])
    return Raw(samples, white, said["has_alpha"], told.get("icc"))


def _without_extras(samples: Array, alpha: bool) -> Array:
    """Drop what comes after colours and alpha, such as depth."""
    colours = 3 if samples.shape[2] >= 3 else 1
    return samples[..., : colours + alpha]


def _heif_shape(file: BinaryIO) -> Shape:
    import pi_heif

    picture = pi_heif.open_heif(file, convert_hdr_to_8bit=False)
    width, height = picture.size
    return Shape(width, height, 8 if ";16" in picture.mode else 4, "a" in picture.mode.lower())


def _heif(file: BinaryIO, name: str, notes: list[str]) -> Raw:
    """Decode HEIC: libheif turns it upright, and 10 bits come as 16."""
    import pi_heif

    picture = pi_heif.open_heif(file, convert_hdr_to_8bit=False)
    if len(picture) > 1:
        notes.append(f"{name} holds {len(picture)} pictures: its main one is dreamed")
    rows = np.array(picture)  # a copy: theirs lives as long as `picture`, and its rows may be longer
    samples, deep = np.atleast_3d(rows)[:, : picture.size[0]], ";16" in picture.mode
    nclx = picture.info.get("nclx_profile") or {}
    icc = picture.info.get("icc_profile") or _display_p3(nclx)
    if (curve := _HDR.get(int(nclx.get("transfer_characteristics", 0)))) and not picture.info.get("icc_profile"):
        notes.append(f"{name} is in HDR ({curve}), which is not read: its tones come out flat")
    white = 65535 - 2 ** (16 - picture.info["bit_depth"]) + 1 if deep else 255
    samples = np.minimum(samples, white)  # of a damaged one, whose planes have other depths
    alpha = "a" in picture.mode.lower()
    return Raw(samples, white, alpha, icc, premultiplied=bool(picture.premultiplied_alpha))


def _display_p3(nclx: dict[str, Any]) -> bytes | None:
    """Make the profile of Display P3, which has sRGB's curve, where a file names its primaries (12 in ITU-T H.273)."""
    if nclx.get("color_primaries") != 12:
        return None
    from imagecodecs import cms_profile

    primaries = [0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1]
    level = np.linspace(0, 1, 4096)
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    curve = np.rint(linear * 65535).astype(np.uint16)
    return bytes(cms_profile("rgb", whitepoint=[0.3127, 0.329, 1], primaries=primaries, transferfunction=curve))


def _pillow_shape(file: BinaryIO) -> Shape:
    with PIL.Image.open(file, formats=PILLOWS) as picture:
        width, height = picture.size
        per_byte = PER_BYTE.get(str(picture.format), headers.FLAT)
        return Shape(width, height, 4, picture.has_transparency_data, _orientation(picture), per_byte)


def _pillow(file: BinaryIO, name: str, notes: list[str]) -> Raw:
    file.seek(0)
    with PIL.Image.open(file, formats=PILLOWS) as picture:
        return _of_pillow(picture, name, notes)


def _of_pillow(picture: PIL.Image.Image, name: str, notes: list[str], said: headers.Said | None = None) -> Raw:
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format in ("GIF", "PNG", "WEBP", "AVIF"):
        notes.append(f"{name} is animated ({frames} frames): its first frame is dreamed")
    picture.load()
    said = said or headers.Said(picture.info.get("icc_profile"), _orientation(picture))
    if picture.mode.startswith(("I", "F")):
        return _deep_grey(picture, said)
    samples, alpha = _split(picture)
    return Raw(samples, 255, alpha, said.icc, said.orientation)


def _split(picture: PIL.Image.Image) -> tuple[Array, bool]:
    """Colours as grey, RGB or CMYK, and alpha if there is one, all uint8; colour under clear pixels is kept."""
    grey, alpha = picture.mode in ("1", "L", "LA", "La"), picture.has_transparency_data
    if alpha:
        picture = picture.convert("LA" if grey else "RGBA")
    elif picture.mode != "CMYK":
        picture = picture.convert("L" if grey else "RGB")
    return np.atleast_3d(np.asarray(picture)), alpha


def _deep_grey(picture: PIL.Image.Image, said: headers.Said) -> Raw:
    """Pillow's modes of more than 8 bits, all grey. Those of 32 hold 16, and floats what they hold."""
    samples = np.asarray(picture)[..., None]
    if picture.mode == "I":
        samples = samples.clip(0, 65535).astype(np.uint16)
    return Raw(samples, 1 if picture.mode == "F" else 65535, False, said.icc, said.orientation)


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        return int(picture.getexif().get(274, 1))
    except Exception:  # broken EXIF turns nothing
        return 1


def upright(plane: Array, orientation: int) -> Array:
    """Turn [height, width, ...] as EXIF orientations 2 to 8 ask; any other number turns nothing."""
    if orientation in (5, 6, 7, 8):
        plane = plane.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    return plane
