"""What people's cameras, telephones and programs write: read as it was meant, the same whatever its size, or refused.

The pictures are encoded here; those that nothing here can encode are put together byte by byte.
"""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pillow_heif
import psutil
import pylibjxl
import pytest
import pyvips
import tifffile
import torch
from imagecodecs import cms_profile

from phosphene import imagefile
from phosphene.cli.dreaming import paired
from phosphene.errors import ImageError
from phosphene.imagefile import streaming
from soak.mutate import with_checksums
from soak.pictures import corpus
from test_imagefile import UPRIGHT, adobe_to_srgb, chunk, deep, encoded, levels, png16, save, tensor

RAMP = np.linspace(0, 255, 64 * 48 * 3).astype(np.uint8).reshape(48, 64, 3)
NUMBERS = np.arange(6).reshape(2, 3).repeat(16, 0).repeat(16, 1).astype(np.uint8) * 40


def heic(path: Path, samples, mode: str, **options) -> Path:
    height, width = samples.shape[:2]
    coder = pillow_heif.from_bytes(mode, (width, height), samples.tobytes())
    coder.save(path, quality=-1, chroma=444, **options)
    return path


def jxl(path: Path, samples, **options) -> Path:
    path.write_bytes(imagecodecs.jpegxl_encode(samples, lossless=True, **options))
    return path


def exif(orientation):
    data = PIL.Image.Exif()
    data[274] = orientation
    return data


def streamed(path, scratch):
    """What the way by disk makes of a file: colours, alpha and notes."""
    photo, notes = streaming.look(path), []
    parts = list(photo.parts(scratch, notes))
    assert sum(rows.stop - rows.start for rows, _, _ in parts) == photo.size[0]
    image = np.concatenate([colour for _, colour, _ in parts]).transpose(2, 0, 1)
    assert image.shape[1:] == photo.size
    assert photo.has_alpha == (parts[0][2] is not None)
    alpha = np.concatenate([alpha for _, _, alpha in parts]) if photo.has_alpha else None
    return torch.from_numpy(image.copy()), None if alpha is None else torch.from_numpy(alpha), tuple(notes)


# --- HEIC and JPEG XL


def test_heic_as_a_telephone_writes_it(tmp_path):
    photo = imagefile.read(heic(tmp_path / "a.heic", RAMP, "RGB"))
    assert (photo.image - tensor(RAMP)).abs().max() <= 1.5 / 255
    assert (photo.alpha, photo.notes) == (None, ())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(tmp_path, orientation):
    picture = PIL.Image.fromarray(np.repeat(NUMBERS[..., None], 3, 2))
    coder = pillow_heif.from_pillow(picture)
    coder.info["exif"] = exif(orientation).tobytes()
    coder.save(tmp_path / "a.heic", quality=-1)
    middle = levels(imagefile.read(tmp_path / "a.heic").image)[8::16, 8::16, 0]
    assert np.abs(middle - np.array(UPRIGHT[orientation]) * 40).max() <= 2


def test_heic_of_10_bits_with_alpha(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 1024, 4, dtype=np.uint16)[None, :, None] << 6, (16, 256, 4)).copy()
    ramp[..., 3] = np.linspace(0, 1023, 16).astype(np.uint16)[:, None] << 6
    photo = imagefile.read(heic(tmp_path / "a.heic", ramp, "RGBA;16"))
    assert len(photo.image[1, 8].unique()) == 256
    assert (photo.image[0, 3] - torch.arange(0, 1024, 4) / 1023).abs().max() < 1.5 / 1023
    assert (photo.alpha[:, 5] - torch.linspace(0, 1, 16)).abs().max() < 2 / 1023


def test_heic_that_names_display_p3_has_srgbs_curve(tmp_path):
    """Greys are the same in both; a red of P3 is beyond sRGB's."""
    greys = np.arange(256, dtype=np.uint8).repeat(8 * 3).reshape(1, -1, 3).repeat(16, 0)
    named = {"color_primaries": 12, "transfer_characteristics": 13}
    found = levels(imagefile.read(heic(tmp_path / "a.heic", greys, "RGB", **named)).image)
    assert np.abs(found[8, :, 0].astype(int) - greys[8, :, 0]).max() <= 1
    red = np.zeros((16, 16, 3), np.uint8) + np.uint8([200, 40, 40])
    found = levels(imagefile.read(heic(tmp_path / "a.heic", red, "RGB", **named)).image)[8, 8]
    assert found[0] > 210
    assert found[1] < 30


def test_heic_in_hdr_is_said(tmp_path):
    path = heic(tmp_path / "a.heic", RAMP, "RGB", color_primaries=9, transfer_characteristics=16)
    assert any("HDR (PQ)" in note for note in imagefile.read(path).notes)


@pytest.mark.parametrize("kind", ["heic", "jxl", "lossy jxl"])
def test_profiles_of_heic_and_jpeg_xl(tmp_path, kind):
    colour, icc, path = np.full((32, 32, 3), (150, 110, 90), np.uint8), cms_profile("adobergb"), tmp_path / "a"
    if kind == "heic":
        heic(path, colour, "RGB", icc_profile=icc)
    else:
        path.write_bytes(pylibjxl.encode(colour, lossless=kind == "jxl", icc=icc))
    photo = imagefile.read(path)
    assert np.allclose(levels(photo.image), adobe_to_srgb(colour[0, 0] / 255) * 255, atol=2)
    assert "they are now sRGB" in photo.notes[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_jpeg_xl_is_exact(tmp_path, dtype, channels):
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    samples = (deep(40, 50, channels) / 65535 * top).astype(dtype)
    photo = imagefile.read(jxl(tmp_path / "a.jxl", samples))
    colours = 3 if channels > 2 else 1
    assert torch.allclose(photo.image, tensor(samples, top)[:colours].expand(3, -1, -1), atol=1e-6)
    assert (photo.alpha is None) == (channels in (1, 3))
    assert channels in (1, 3) or torch.allclose(photo.alpha, tensor(samples, top)[-1], atol=1e-6)


def test_jpeg_xl_of_10_bits(tmp_path):
    samples = (deep(9, 7, 3) >> 6).astype(np.uint16)
    photo = imagefile.read(jxl(tmp_path / "a.jxl", samples, bitspersample=10))
    assert (levels(photo.image, 1023) == samples).all()


def test_jpeg_xl_is_turned_once(tmp_path):
    jpeg = io.BytesIO()
    PIL.Image.fromarray(np.repeat(NUMBERS[..., None], 3, 2)).save(jpeg, "JPEG", quality=95, exif=exif(6))
    (tmp_path / "a.jxl").write_bytes(pylibjxl.jpeg_to_jxl(jpeg.getvalue()))
    middle = levels(imagefile.read(tmp_path / "a.jxl").image)[8::16, 8::16, 0]
    assert np.abs(middle - np.array(UPRIGHT[6]) * 40).max() <= 3


def test_jpeg_xl_that_moves(tmp_path):
    frames = np.stack([np.full((9, 7, 3), level, np.uint8) for level in (10, 200, 30)])
    photo = imagefile.read(jxl(tmp_path / "a.jxl", frames, photometric="rgb"))
    assert (levels(photo.image) == 10).all()
    assert photo.notes == ("a.jxl is animated: its first frame is dreamed",)


# --- what is no picture


def box(brand, *more):
    names = brand + bytes(4) + b"".join(more)
    return struct.pack(">I4s", 8 + len(names), b"ftyp") + names


def dng(path):
    """A thumbnail, as a camera puts it first, and the mosaic inside its page."""
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            RAMP[:30, :40], photometric="rgb", subifds=1, subfiletype=1, extratags=[(50706, "B", 4, b"\1\4\0\0")]
        )
        tiff.write(deep(60, 80), photometric=32803, subfiletype=0, extratags=[(33421, "H", 2, (2, 2))])


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (b"%PDF-1.7\n", "is a PDF: save the page that you mean as a PNG or JPEG"),
        (
            b'<?xml version="1.0"?>\n<svg width="9"/>',
            r"is a drawing \(SVG\): save it as a PNG, as large as you want it",
        ),
        (
            b"\0\5\x16\7\0\2\0\0Mac OS X",
            "a Mac's metadata beside a picture, and not the picture: give the file without ._",
        ),
        (b"FUJIFILMCCD-RAW 0201", "is a camera's raw file: develop it"),
        (b"II*\0\x10\0\0\0CR\2\0", "is a camera's raw file: develop it"),
        (box(b"crx ", b"crx ", b"isom"), "is a camera's raw file: develop it"),
        (box(b"isom", b"mp42"), "is a film: `phosphene animate` takes those; here, give a still from it"),
        (box(b"qt  "), "is a film: `phosphene animate` takes those; here, give a still from it"),
        (b"RIFF\0\0\0\0AVI LIST", "is a film: `phosphene animate` takes those; here, give a still from it"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture that can be read: give a PNG, JPEG"),
    ],
)
@pytest.mark.parametrize("way", [imagefile.read, imagefile.look, streaming.look])
def test_what_is_no_picture_is_told(tmp_path, way, head, sentence):
    (tmp_path / "a.jpg").write_bytes(head + bytes(2000))
    with pytest.raises(ImageError, match=rf"a\.jpg' {sentence}" if sentence.startswith("is") else sentence):
        way(tmp_path / "a.jpg")


@pytest.mark.parametrize("way", [imagefile.read, imagefile.look, streaming.look])
def test_a_raw_file_is_not_its_thumbnail(tmp_path, way):
    dng(tmp_path / "a.dng")
    with pytest.raises(ImageError, match=r"a\.dng' is a camera's raw file: develop it into a TIFF or JPEG first"):
        way(tmp_path / "a.dng")


def test_what_a_mac_leaves_in_a_folder_is_passed_over(tmp_path):
    save(tmp_path / "IMG_0001.jpg", RAMP)
    (tmp_path / "._IMG_0001.jpg").write_bytes(b"\0\5\x16\7")
    assert [Path(source).name for source, _ in paired([str(tmp_path)], tmp_path / "out")] == ["IMG_0001.jpg"]


@pytest.mark.parametrize("ending", ["heic", "HEIF", "jxl", "jfif", "avif"])
def test_new_endings_are_found_in_a_folder(tmp_path, ending):
    (tmp_path / f"a.{ending}").touch()
    assert imagefile.is_image(tmp_path / f"a.{ending}")


# --- what a file can hold


def said_to_be(data, was, now):
    """A file's bytes with another width and height; `was` and `now` are packed as the format has them."""
    assert data.count(was) == 1
    return data.replace(was, now)


def absurd(kind, path):
    """A small file of which the header says that it is 16,000 x 16,000 px."""
    side, large = 64, 16_000
    pixels = np.random.default_rng(3).integers(0, 256, (side, side, 3)).astype(np.uint8)
    options = {"JPEG": {}, "progressive": {"progressive": True}, "GIF": {}}.get(kind, {})
    if kind == "TIFF":
        tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", rowsperstrip=64)
        data = bytearray(path.read_bytes())
        for tag in (256, 257, 278):
            at = next(at for width in (3, 4) if (at := data.find(struct.pack("<HHI", tag, width, 1))) > 0) + 8
            data[at : at + 4] = struct.pack("<I", large)
        return path.write_bytes(data)
    save(path, pixels, format="JPEG" if kind == "progressive" else kind, **options)
    data = path.read_bytes()
    if kind == "PNG":
        data = said_to_be(data, struct.pack(">II", side, side), struct.pack(">II", large, large))
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    elif kind == "BMP":
        data = said_to_be(data, struct.pack("<II", side, side), struct.pack("<II", large, large))
    else:
        data = said_to_be(data, struct.pack(">HH", side, side) + b"\3", struct.pack(">HH", large, large) + b"\3")
    return path.write_bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "progressive", "TIFF", "BMP"])
@pytest.mark.parametrize("way", [imagefile.read, streaming.look])
def test_a_header_that_its_bytes_cannot_hold_is_refused_undecoded(tmp_path, monkeypatch, kind, way):
    absurd(kind, tmp_path / "a")
    PIL.Image.init()  # one of Pillow's plugins makes a picture while it is imported
    monkeypatch.setattr(PIL.Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=r"says that it has 16000 x 16000 pixels, and its \d+ bytes cannot hold them"):
        way(tmp_path / "a")


def in_strips(path, **tags):
    """A TIFF of eight compressed strips; each of `tags` is a number that changes one of its values, at a place."""
    tifffile.imwrite(path, np.full((64, 96), 200, np.uint8), compression="zlib", rowsperstrip=8)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for name, values in tags.items():
            tag = tiff.pages.first.tags[name]
            width = "H" if tag.dtype == 3 else "I"
            struct.pack_into(f"<{len(values)}{width}", data, tag.valueoffset, *values)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("tags", "there"),
    [
        ({"ImageLength": [72]}, "8 of its 9"),
        ({"StripByteCounts": [0] * 8}, "8 of its 8 strips or tiles are there, with 0"),
    ],
)
@pytest.mark.parametrize("way", [imagefile.look, imagefile.read, streaming.look])
def test_a_tiff_without_its_strips_is_broken(tmp_path, tags, there, way):
    in_strips(tmp_path / "a.tif", **tags)
    with pytest.raises(ImageError, match=rf"a\.tif' is broken or cut off: give a whole picture \({there}"):
        way(tmp_path / "a.tif")


def test_a_sparse_tiff_is_black_where_it_has_no_bytes(tmp_path):
    in_strips(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        counts = list(tiff.pages.first.databytecounts)
    in_strips(tmp_path / "a.tif", StripByteCounts=[*counts[:3], 0, *counts[4:]])
    image = imagefile.read(tmp_path / "a.tif").image
    assert (image[:, 24:32] == 0).all()
    assert (image[:, [*range(24), *range(32, 64)]] == 200 / 255).all()


def test_flat_pictures_are_no_absurdity(tmp_path):
    flat = PIL.Image.new("RGB", (5000, 3000), (9, 99, 199))
    for kind in ("PNG", "JPEG", "WEBP", "AVIF"):
        save(tmp_path / "a", flat, format=kind)
        assert imagefile.look(tmp_path / "a").size == (3000, 5000)
        streaming.look(tmp_path / "a")
    jxl(tmp_path / "a", np.asarray(flat))
    streaming.look(tmp_path / "a")


def test_a_large_flat_picture_is_no_absurdity(tmp_path):
    """Of what can be saved, it has the most pixels a byte that were seen."""
    save(tmp_path / "a", PIL.Image.new("RGB", (8000, 8000)), format="AVIF", quality=30, speed=9)
    assert 50_000 * (tmp_path / "a").stat().st_size < 8000**2
    assert streaming.look(tmp_path / "a").size == (8000, 8000)


def test_a_tiff_of_five_dimensions(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3, 4), np.uint8), volumetric=True, photometric="minisblack")
    with pytest.raises(ImageError, match=r"a\.tif' has 1 channels and a depth of 2: give a TIFF with grey or RGB"):
        imagefile.read(tmp_path / "a.tif")
    tifffile.imwrite(
        tmp_path / "b.tif", np.zeros((8, 8, 40), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(ImageError, match="has 40 channels and a depth of 1"):
        imagefile.read(tmp_path / "b.tif")


def test_thousands_of_passes(tmp_path):
    save(
        tmp_path / "a.jpg",
        np.random.default_rng(0).integers(0, 256, (3000, 3000, 3)).astype(np.uint8),
        progressive=True,
    )
    data = (tmp_path / "a.jpg").read_bytes()
    last = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:-2] + data[last:-2] * 0 + (b"\xff\xda" + data[last + 2 : last + 14]) * 2000)
    with pytest.raises(ImageError, match=r"has 3000 x 3000 pixels in 2010 passes: save it again without so many"):
        imagefile.read(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "heic", "jxl", "bmp"])
def test_a_picture_takes_no_more_than_it_may(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    heic(path, RAMP, "RGB") if kind == "heic" else jxl(path, RAMP) if kind == "jxl" else save(path, RAMP)
    with pytest.raises(
        ImageError, match=r"has 64 x 48 pixels and takes 0 MB to read, and 0 MB are free: make it smaller"
    ):
        imagefile.read(path, room=48 * 64 * 16)
    imagefile.read(path, room=48 * 64 * 24)
    in_strips = kind in ("png", "jpg", "tif")
    if in_strips:
        streaming.look(path, room=1000)
    else:
        with pytest.raises(ImageError, match="allow more --memory"):
            streaming.look(path, room=1000)


def test_memory_that_is_not_there_is_a_sentence(tmp_path, monkeypatch):
    def starve(*_):
        raise MemoryError

    path = save(tmp_path / "a.png", RAMP)
    monkeypatch.setattr(PIL.Image.Image, "load", starve)
    with pytest.raises(ImageError, match="takes more memory to read than there is: make it smaller first"):
        imagefile.read(path)


# --- one answer, whatever the size


def png_of(colour, *chunks):
    """An 8 bit RGB PNG of one colour, with chunks in front of its pixels."""
    header = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(colour) * 4) * 4)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IDAT", rows), chunk(b"IEND", b"")])


def grey(value=0.3, **options):
    return {"data": (np.full((20, 30), value * 65535)).astype(np.uint16), "photometric": "minisblack", **options}


ODD = {
    "jpeg": lambda path: save(path, RAMP, format="JPEG", quality=90),
    "turned jpeg": lambda path: save(path, RAMP, format="JPEG", exif=exif(6)),
    "transposed jpeg": lambda path: save(path, RAMP, format="JPEG", exif=exif(5)),
    "transversed jpeg": lambda path: save(path, RAMP, format="JPEG", exif=exif(7)),
    "progressive jpeg": lambda path: save(path, RAMP, format="JPEG", progressive=True),
    "grey jpeg": lambda path: save(path, RAMP[..., 0], format="JPEG"),
    "CMYK jpeg": lambda path: save(path, PIL.Image.fromarray(RAMP).convert("CMYK"), format="JPEG"),
    "adobe jpeg": lambda path: save(path, RAMP, format="JPEG", icc_profile=cms_profile("adobergb")),
    "12 bit jpeg": lambda path: path.write_bytes(imagecodecs.jpeg_encode(deep(16, 24) >> 4, level=99)),
    "png": lambda path: save(path, RAMP, format="PNG"),
    "alpha png": lambda path: save(path, np.concatenate([RAMP, RAMP[..., :1]], 2), format="PNG"),
    "turned png": lambda path: save(path, RAMP, format="PNG", exif=exif(8)),
    "grey alpha png": lambda path: save(path, PIL.Image.fromarray(RAMP[..., :2], "LA"), format="PNG"),
    "palette png": lambda path: save(path, PIL.Image.fromarray(RAMP).quantize(9), format="PNG", transparency=3),
    "1 bit png": lambda path: save(path, PIL.Image.fromarray(RAMP[..., 0] > 99), format="PNG"),
    "16 bit png": lambda path: path.write_bytes(png16(deep(9, 7, 4))),
    "gamma png": lambda path: path.write_bytes(png_of((100, 50, 9), chunk(b"gAMA", struct.pack(">I", 100_000)))),
    "webp": lambda path: save(path, RAMP, format="WEBP", lossless=True),
    "avif": lambda path: save(path, RAMP, format="AVIF"),
    "gif": lambda path: save(path, PIL.Image.fromarray(RAMP).quantize(9), format="GIF"),
    "bmp": lambda path: save(path, RAMP, format="BMP"),
    "heic": lambda path: heic(path, RAMP, "RGB"),
    "jpeg xl": lambda path: jxl(path, deep(9, 7, 4)),
    "float tiff": lambda path: tifffile.imwrite(path, deep(300, 20, 3) / np.float32(30_000), photometric="rgb"),
    "zstd tiff": lambda path: tifffile.imwrite(path, RAMP, photometric="rgb", compression="zstd", rowsperstrip=8),
    "tiled tiff": lambda path: tifffile.imwrite(path, deep(70, 90, 4), photometric="rgb", tile=(32, 32)),
    "planar tiff": lambda path: tifffile.imwrite(path, deep(3, 9, 7), photometric="rgb", planarconfig="separate"),
    "white zero tiff": lambda path: tifffile.imwrite(path, deep(9, 7), photometric="miniswhite"),
    "turned tiff": lambda path: tifffile.imwrite(path, **grey(), extratags=[(274, "H", 1, 6, True)]),
    "palette tiff": lambda path: save(path, PIL.Image.fromarray(RAMP).quantize(9), format="TIFF"),
    "CMYK tiff": lambda path: save(path, PIL.Image.fromarray(RAMP).convert("CMYK"), format="TIFF"),
    "1 bit tiff": lambda path: save(path, PIL.Image.fromarray(RAMP[..., 0] > 99), format="TIFF", compression="group4"),
    "jpeg tiff": lambda path: save(path, RAMP, format="TIFF", compression="jpeg"),
    "lab tiff": lambda path: save(path, PIL.Image.new("LAB", (9, 7), (120, 140, 100)), format="TIFF"),
}


@pytest.mark.parametrize("kind", ODD)
def test_memory_and_disk_give_one_answer(tmp_path, kind):
    ODD[kind](tmp_path / "a")
    photo = imagefile.read(tmp_path / "a")
    image, alpha, notes = streamed(tmp_path / "a", tmp_path)
    assert torch.equal(image, photo.image)
    assert alpha is None if photo.alpha is None else torch.equal(alpha, photo.alpha)
    assert notes == photo.notes
    assert photo.image.shape[1:] == imagefile.look(tmp_path / "a").size
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["palette tiff", "CMYK tiff", "1 bit tiff", "jpeg tiff", "turned tiff", "lab tiff"])
def test_tiffs_are_what_pillow_says(tmp_path, kind):
    ODD[kind](tmp_path / "a")
    with PIL.Image.open(tmp_path / "a") as picture:
        upright = picture.transpose(PIL.Image.Transpose.ROTATE_270) if kind == "turned tiff" else picture
        expected = np.asarray(upright.convert("RGB") if picture.mode != "I;16" else upright)
    image = imagefile.read(tmp_path / "a").image
    if expected.dtype == np.uint16:
        assert (levels(image, 65535)[..., 0] == expected).all()
    else:
        assert np.abs(levels(image) - expected.astype(int)).max() <= 1


# --- metadata never costs the picture


def test_an_infinity_in_exif(tmp_path):
    data = PIL.Image.Exif()
    data[282], data[274] = float("inf"), 6
    ifd = (
        b"MM\0*\0\0\0\x08\0\2" + struct.pack(">HHIHH", 274, 3, 1, 6, 0) + struct.pack(">HHIf", 282, 11, 1, float("inf"))
    )
    path = save(tmp_path / "a.jpg", RAMP, exif=b"Exif\0\0" + ifd + bytes(4))
    assert imagefile.read(path).image.shape == (3, 64, 48)
    assert streamed(path, tmp_path)[0].shape == (3, 64, 48)


@pytest.mark.parametrize("tag", [b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"pHYs", b"sBIT", b"quUx"])
def test_a_chunk_that_is_absurd(tmp_path, tag):
    bomb = zlib.compress(bytes(50_000_000))
    body = {b"iTXt": b"Comment\0\1\0\0\0" + bomb, b"tEXt": b"Comment\0" + b"x" * 2_000_000}.get(
        tag, b"Comment\0\0" + bomb
    )
    (tmp_path / "a.png").write_bytes(png_of((1, 2, 3), chunk(tag, body)))
    assert (levels(imagefile.read(tmp_path / "a.png").image) == (1, 2, 3)).all()
    assert (levels(streamed(tmp_path / "a.png", tmp_path)[0]) == (1, 2, 3)).all()


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xFE])
def test_a_segment_that_is_absurd(tmp_path, marker):
    data = save(tmp_path / "a.jpg", RAMP).read_bytes()
    for head in (b"Exif\0\0MM\0*", b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0<", b"MPF\0II*\0"):
        body = head + bytes(range(256)) * 100
        segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
        (tmp_path / "b.jpg").write_bytes(data[:2] + segment + data[2:])
        assert torch.equal(imagefile.read(tmp_path / "b.jpg").image, imagefile.read(tmp_path / "a.jpg").image)
        assert torch.equal(streamed(tmp_path / "b.jpg", tmp_path)[0], imagefile.read(tmp_path / "a.jpg").image)


def test_a_recipe_beside_a_chunk_that_is_absurd(tmp_path):
    imagefile.write(tmp_path / "a.png", torch.zeros(3, 4, 4), recipe="steps = 3\n")
    data = (tmp_path / "a.png").read_bytes()
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    (tmp_path / "a.png").write_bytes(data[:33] + bomb + data[33:])
    assert imagefile.read_recipe(tmp_path / "a.png") == "steps = 3\n"


# --- the largest picture of a file


def test_a_tiff_whose_first_page_is_a_thumbnail(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(RAMP[:6, :8], photometric="rgb", subfiletype=1, metadata=None)
        tiff.write(RAMP, photometric="rgb", metadata=None)
        tiff.write(RAMP[:12, :16], photometric="rgb", metadata=None)
    photo = imagefile.read(tmp_path / "a.tif")
    assert torch.equal(photo.image, tensor(RAMP))
    assert photo.notes == ("a.tif has 2 pages: its first page is dreamed",)


def test_the_largest_of_several_pages_is_told(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for size in ((6, 8), (48, 64), (12, 16)):
            tiff.write(RAMP[: size[0], : size[1]], photometric="rgb", metadata=None)
    photo = imagefile.read(tmp_path / "a.tif")
    assert torch.equal(photo.image, tensor(RAMP))
    assert photo.notes == ("a.tif has 3 pages: its largest, page 2, is dreamed",)


def test_a_picture_inside_a_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(RAMP[:6, :8], photometric="rgb", subifds=1, metadata=None)
        tiff.write(RAMP, photometric="rgb", metadata=None)
    photo = imagefile.read(tmp_path / "a.tif")
    assert torch.equal(photo.image, tensor(RAMP))
    assert photo.notes == ("a.tif has 2 pictures: its largest, of 64 x 48 pixels, is dreamed",)


def test_a_pyramid_is_one_picture(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(RAMP, photometric="rgb", metadata=None)
        tiff.write(RAMP[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    assert imagefile.read(tmp_path / "a.tif").notes == ()


# --- what was passed over


def test_gamma_of_a_png(tmp_path):
    """PNG (third edition), 11.3.2.2: light = sample ** (1 / gamma); here 1 / 1, so samples are light."""
    (tmp_path / "a.png").write_bytes(png_of((128, 55, 13), chunk(b"gAMA", struct.pack(">I", 100_000))))
    image = imagefile.read(tmp_path / "a.png").image
    assert np.allclose(image[:, 0, 0], encoded(np.array([128, 55, 13]) / 255), atol=0.006)
    (tmp_path / "b.png").write_bytes(png_of((128, 55, 13), chunk(b"gAMA", struct.pack(">I", 45455))))
    assert (levels(imagefile.read(tmp_path / "b.png").image) == (128, 55, 13)).all()


def test_srgb_and_profile_come_before_gamma(tmp_path):
    gamma, srgb = chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"sRGB", b"\0")
    profile = chunk(b"iCCP", b"icc\0\0" + zlib.compress(cms_profile("adobergb")))
    (tmp_path / "a.png").write_bytes(png_of((150, 110, 90), gamma, srgb))
    assert (levels(imagefile.read(tmp_path / "a.png").image) == (150, 110, 90)).all()
    (tmp_path / "b.png").write_bytes(png_of((150, 110, 90), profile, gamma))
    expected = adobe_to_srgb(np.array([150, 110, 90]) / 255) * 255
    assert np.allclose(levels(imagefile.read(tmp_path / "b.png").image), expected, atol=2)


def test_primaries_of_a_png(tmp_path):
    """cHRM with Adobe RGB's primaries, and its gamma of 2.2."""
    primaries = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    chunks = chunk(b"gAMA", struct.pack(">I", 45471)), chunk(b"cHRM", primaries)
    (tmp_path / "a.png").write_bytes(png_of((150, 110, 90), *chunks))
    expected = adobe_to_srgb(np.array([150, 110, 90]) / 255) * 255
    assert np.allclose(levels(imagefile.read(tmp_path / "a.png").image), expected, atol=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_of_12_bits(tmp_path, channels):
    samples = np.broadcast_to(np.linspace(100, 4000, 64).astype(np.uint16)[None, :, None], (16, 64, channels))
    data = imagecodecs.jpeg_encode(np.ascontiguousarray(samples.squeeze()), level=100, bitspersample=12)
    (tmp_path / "a.jpg").write_bytes(data)
    image = imagefile.read(tmp_path / "a.jpg").image
    assert len(image[0].unique()) > 60
    assert np.abs(levels(image, 4095)[..., :channels] - samples).max() < 6


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "webp", "lerc", "zstd", "lzma", "jpeg", "packbits"])
def test_tiffs_in_every_compression(tmp_path, compression):
    lossless = {"webp": {"lossless": True}, "jpegxl": {"lossless": True}, "jpeg": {"level": 95}}.get(compression, {})
    tifffile.imwrite(tmp_path / "a.tif", RAMP, photometric="rgb", compression=compression, compressionargs=lossless)
    image = imagefile.read(tmp_path / "a.tif").image
    assert np.abs(levels(image) - RAMP.astype(int)).max() <= (8 if compression == "jpeg" else 0)
    assert torch.equal(streamed(tmp_path / "a.tif", tmp_path)[0], image)


STREAMED = """
import re, sys
from pathlib import Path
from phosphene.imagefile import streaming
def most():
    return int(re.search(r"VmHWM:[ \\t]+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) * 1024
photo, scratch = streaming.look(sys.argv[1]), Path(sys.argv[1]).parent
next(streaming.look(sys.argv[2]).parts(scratch, []))  # loads what decodes
before = most()
total = sum(float(colour.sum()) for rows, colour, alpha in photo.parts(scratch, []))
print(total, most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_streamed_tiff_is_never_in_memory_as_a_whole(tmp_path, compression, planar):
    """Its samples lie in a file that is mapped, whose pages count as the process's as long as they are not let go."""
    side = 9000
    row = np.arange(side * 3, dtype=np.uint8).reshape(side, 3)
    picture = (
        np.broadcast_to(row, (side, side, 3))
        if planar == "contig"
        else np.broadcast_to(row.T[:, None], (3, side, side))
    )
    options = {"photometric": "rgb", "planarconfig": planar, "compression": compression, "rowsperstrip": 64}
    tifffile.imwrite(tmp_path / "large.tif", picture, **options)
    tifffile.imwrite(tmp_path / "small.tif", picture[:, :90] if planar == "separate" else picture[:90], **options)
    names = [str(tmp_path / name) for name in ("large.tif", "small.tif")]
    found = subprocess.run([sys.executable, "-c", STREAMED, *names], capture_output=True, text=True, check=True)
    total, grown = map(float, found.stdout.split())
    assert total == pytest.approx(row.sum() / 255 * side, rel=1e-5)
    assert grown < picture.size / 2


@pytest.mark.parametrize("way", [imagefile.read, lambda path: streamed(path, path.parent)])
def test_a_tiff_whose_size_is_no_whole_number(tmp_path, way):
    """Its height's type is changed to that of a double."""
    tifffile.imwrite(tmp_path / "a.tif", RAMP, photometric="rgb")
    data = (tmp_path / "a.tif").read_bytes()
    was = struct.pack("<HHI", 257, 4, 1)
    (tmp_path / "a.tif").write_bytes(said_to_be(data, was, struct.pack("<HHI", 257, 12, 1)))
    with pytest.raises(ImageError, match=r"a\.tif' (is broken|says that it has)"):
        way(tmp_path / "a.tif")


@pytest.mark.parametrize("way", [imagefile.read, lambda path: streamed(path, path.parent)])
def test_what_comes_out_is_as_large_as_was_said(tmp_path, monkeypatch, way):
    tifffile.imwrite(tmp_path / "a.tif", RAMP, photometric="rgb")
    monkeypatch.setattr("phosphene.imagefile.tiff._planes_last", lambda page, samples: samples[:-1])
    with pytest.raises(ImageError, match="says that it has 64 x 48 pixels, and 64 x 47 came out of it: it is broken"):
        way(tmp_path / "a.tif")


def test_libraries_say_nothing_of_their_own(tmp_path):
    """A real process: what tifffile logs would be on standard error."""
    tifffile.imwrite(tmp_path / "a.tif", RAMP, photometric="rgb")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[12:14] = b"\xff\xff"
    (tmp_path / "a.tif").write_bytes(data)
    script = f"from phosphene import imagefile; imagefile.read({str(tmp_path / 'a.tif')!r})"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stderr
    assert "TiffTag" not in said.partition("Traceback")[0]
    assert "ImageError" in said


def test_a_broken_png_of_16_bits_leaves_nothing_in_memory(tmp_path):
    whole = corpus()["png 16 bits, 4"]
    (tmp_path / "a.png").write_bytes(whole[: len(whole) * 2 // 3])
    process, held = psutil.Process(), []
    for _ in range(2):
        for _ in range(300):
            with pytest.raises(ImageError):
                imagefile.read(tmp_path / "a.png")
        held.append(process.memory_info().rss)
    assert held[1] - held[0] < 4_000_000  # 36 kB each, where they are left to the decoder


def test_a_heic_that_says_another_depth_stays_within_its_range(tmp_path):
    """Its header says 9 bits where its planes have 8, and its white is above the white of 9."""
    whole = corpus()["heic exact"]
    assert whole.count(b"\xfc\xff\xf8\xf8") == 1
    (tmp_path / "a.heic").write_bytes(whole.replace(b"\xfc\xff\xf8\xf8", b"\xfc\xff\xf9\xf8"))
    assert imagefile.read(tmp_path / "a.heic").image.max() == 1


@pytest.mark.parametrize("side", [8, 12])
def test_a_jpeg_2000_within_a_tiff_is_as_large_as_its_strip(tmp_path, side):
    """One of 13 kB that was a million rows high in itself took 2 GB, and came out as the 72 rows that the TIFF has."""
    data = bytearray(corpus()["tiff jpeg2000"])
    at = data.index(b"\xff\x4f\xff\x51") + side
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 2**20).to_bytes(4, "big")
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageError, match="strip or tile 1 of 1 is larger than 96 x 72"):
        imagefile.read(tmp_path / "a.tif")


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("pieces", [{}, {"rowsperstrip": 32}, {"tile": (64, 64)}, {"tile": (512, 512)}])
def test_a_tiff_in_jpeg_2000(tmp_path, pieces, planes):
    samples = np.random.default_rng(0).integers(0, 256, (300, 200, 3)).astype(np.uint8)
    given = samples if planes == "contig" else samples.transpose(2, 0, 1).copy()
    options = {"photometric": "rgb", "planarconfig": planes, "compression": "jpeg2000"}
    tifffile.imwrite(tmp_path / "a.tif", given, **options, **pieces)
    assert np.array_equal(levels(imagefile.read(tmp_path / "a.tif").image), samples)


def test_a_png_of_16_bits_that_says_it_is_larger_leaves_nothing_in_memory(tmp_path):
    """Its checksums are right, and its samples are too few: libpng keeps all rows that it has made."""
    whole = png16(deep(600, 500, 3))
    (tmp_path / "a.png").write_bytes(with_checksums(whole.replace(struct.pack(">I", 600), struct.pack(">I", 601), 1)))
    process, held = psutil.Process(), []
    for _ in range(2):
        for _ in range(20):
            with pytest.raises(ImageError, match=r"broken or cut off: give a whole picture .not enough image data"):
                imagefile.read(tmp_path / "a.png")
        held.append(process.memory_info().rss)
    assert held[1] - held[0] < 4_000_000  # 1.8 MB each, where they are left to the decoder


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (5, 4), (7, 1), (8, 8), (17, 13)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_interlaced_png_of_16_bits(tmp_path, size, channels):
    samples = deep(*size, channels)
    grey = "grey16" if channels < 3 else "rgb16"
    picture = pyvips.Image.new_from_array(samples).copy(interpretation=grey)
    picture.pngsave(str(tmp_path / "a.png"), interlace=True, bitdepth=16)
    photo, data = imagefile.read(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()
    assert data[28] == 1
    assert data[24] == 16
    colours = samples[..., : channels - (channels in (2, 4))]
    assert np.array_equal(levels(photo.image, 65535), np.broadcast_to(colours, (*size, 3)))


def test_a_gifs_canvas_is_as_large_as_its_codes_can_fill(tmp_path):
    """One of 19 kB that said 270 megapixels took 9 GB; one of a single colour has as many pixels a byte as can be."""
    file = io.BytesIO()
    PIL.Image.new("P", (4000, 4000)).save(file, "GIF")
    whole = file.getvalue()
    (tmp_path / "whole.gif").write_bytes(whole)
    assert imagefile.look(tmp_path / "whole.gif").size == (4000, 4000)
    (tmp_path / "absurd.gif").write_bytes(whole[:6] + struct.pack("<HH", 14000, 13000) + whole[10:])
    with pytest.raises(ImageError, match=r"says that it has 14000 x 13000 pixels, and its \d+ bytes cannot hold them"):
        imagefile.read(tmp_path / "absurd.gif")


# --- TIFFs with a piece that is cut short

FAX = ("group3", "group4", "tiff_ccitt")
CUT = ("lzw", "zlib", "zstd", "packbits", "lerc", "jpeg2000", "webp", "jpeg", "jpegxr", *FAX)
DOTS = np.random.default_rng(0).random((128, 128)) > 0.9


def shortened(path: Path, piece: int, keep: float) -> Path:
    """A copy of a TIFF whose strip or tile has only the first of its bytes, as its table says and in the file."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        counts = page.tags[279] if 279 in page.tags else page.tags[325]
        whole, start, form = page.databytecounts[piece], page.dataoffsets[piece], {3: "H", 4: "I"}[counts.dtype]
        left = int(whole * keep)
        place = counts.valueoffset + piece * struct.calcsize(form)
        struct.pack_into(tiff.byteorder + form, data, place, left)
        data[start + left : start + whole] = bytes(whole - left)
    cut = path.with_name("cut.tif")
    cut.write_bytes(data)
    return cut


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("compression", CUT)
def test_a_tiff_whose_strip_or_tile_is_cut_short(compression, tiled, tmp_path):
    path, samples = tmp_path / "a.tif", np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    if compression in FAX:  # which tifffile does not write
        if tiled:
            pytest.skip("Pillow writes strips")
        fax = PIL.Image.fromarray(DOTS)
        fax.save(path, compression=compression, strip_size=16 * 32)
    else:
        cut = {"tile": (64, 64)} if tiled else {"rowsperstrip": 32}
        tifffile.imwrite(path, samples, compression=compression, photometric="rgb", **cut)
    whole = imagefile.read(path).image
    assert torch.equal(streamed(path, tmp_path)[0], whole)
    with tifffile.TiffFile(path) as tiff:
        last = len(tiff.pages.first.dataoffsets) - 1
    assert last == 3
    for piece in (0, last):
        for keep in (0.1, 0.5, 0.8):
            shortened(path, piece, keep)
            with pytest.raises(ImageError, match="is broken or cut off: give a whole picture"):
                imagefile.read(tmp_path / "cut.tif")
            with pytest.raises(ImageError, match="is broken or cut off: give a whole picture"):
                streamed(tmp_path / "cut.tif", tmp_path)


def test_a_fax_with_its_bits_in_the_other_order(tmp_path):
    """It is whole, and then not."""
    path = tmp_path / "a.tif"
    PIL.Image.fromarray(DOTS).save(path, compression="group4", strip_size=16 * 32, tiffinfo={266: 1})
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            data[start : start + length] = imagecodecs.bitorder_encode(bytes(data[start : start + length]))
        place = page.tags[266].valueoffset
    struct.pack_into("<H", data, place, 2)
    path.write_bytes(data)
    assert ((imagefile.read(path).image[0] > 0.5).numpy() == DOTS).all()
    with pytest.raises(ImageError, match="is broken or cut off"):
        imagefile.read(shortened(path, 1, 0.5))
