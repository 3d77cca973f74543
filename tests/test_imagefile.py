"""Files made here with Pillow, tifffile and struct; expected values are worked out by hand or by formula."""

import errno
import hashlib
import io
import os
import re
import struct
import tomllib
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from imagecodecs import cms_profile
from PIL import ImageCms

from phosphene import imagefile
from phosphene.errors import ImageError, OutputExistsError, SettingsError, UnknownNameError

WRITTEN = [ending for ending, kind in imagefile.FORMATS.items() if kind.whole is not None]
RECIPE = 'title = "Träume, 夢, 🐕 & <b>"\r\nsteps = 20\n'
RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [40, 50, 60], [70, 80, 90]]], np.uint8)


def save(path: Path, pixels, **options) -> Path:
    picture = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def tensor(pixels, top=255):
    return torch.from_numpy(np.asarray(pixels, np.float32).transpose(2, 0, 1) / np.float32(top))


def levels(image, top=255):
    return (image.movedim(0, -1) if image.ndim == 3 else image).mul(top).round().int().numpy()


def chunk(tag, body):
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))


def png16(samples, *extra):
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep(*shape):
    return np.random.default_rng(7).integers(0, 65536, shape).astype(np.uint16)


def encoded(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def adobe_to_srgb(values):
    """IEC 61966-2-1 and Adobe RGB (1998): gamma 563/256, same white, so only red and blue mix."""
    matrix = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]])
    return encoded(np.asarray(values, float) ** (563 / 256) @ matrix.T)


def cmyk_profile():
    """A press whose full cyan prints L* = 50 grey, whose other inks print black, on white paper."""
    grid = [(0 if m or y or k else (128 if c else 255)) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    lut = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    )
    lut += bytes(range(256)) * 4 + b"".join(bytes([v, 128, 128]) for v in grid) + bytes(range(256)) * 3
    text = b"Test press\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    body, table = b"", b""
    for tag, data in ((b"desc", desc), (b"wtpt", white), (b"A2B0", lut)):
        table += tag + struct.pack(">II", 128 + 4 + 36 + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", 168 + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + table + body


# --- what is in the file


def test_read_gives_source_checksum_and_exact_values(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    photo = imagefile.read(path)
    assert torch.equal(photo.image, tensor(RGB))
    assert photo.image.dtype == torch.float32
    assert (photo.alpha, photo.notes, photo.source) == (None, (), str(path))
    assert photo.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# What a 2 x 3 picture of the numbers 0..5 must look like once upright, from the EXIF standard's row/column table.
UPRIGHT = {
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[3, 0], [4, 1], [5, 2]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],
    9: [[0, 1, 2], [3, 4, 5]],
}


@pytest.mark.parametrize("kind", ["png", "tiff", "png16", "tiff16", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_once(tmp_path, kind, orientation):
    numbers = np.arange(6).reshape(2, 3)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{kind[:4].rstrip('1')}"
    if kind == "png16":
        path.write_bytes(png16((numbers * 257 * 40).astype(np.uint16)[..., None], chunk(b"eXIf", exif.tobytes()[6:])))
    elif kind == "tiff16":
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, (numbers * 257 * 40).astype(np.uint16), photometric="minisblack", extratags=tag)
    else:
        pixels = np.repeat((numbers * 40).astype(np.uint8)[..., None], 3, axis=2)
        save(path, pixels, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    assert (levels(imagefile.read(path).image)[..., 0] == np.array(UPRIGHT[orientation]) * 40).all()


def test_jpeg_orientation_turns_alpha_free_photographs(tmp_path):
    exif = PIL.Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "a.jpg", np.zeros((8, 24, 3), np.uint8), exif=exif)
    assert imagefile.read(path).image.shape == (3, 24, 8)


def test_orientation_turns_alpha_too(tmp_path):
    exif = PIL.Image.Exif()
    exif[274] = 8
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = 1, 2, 3
    photo = imagefile.read(save(tmp_path / "a.png", pixels, exif=exif))
    assert levels(photo.alpha).tolist() == [[3], [2], [1]]


def test_broken_exif_turns_nothing(tmp_path):
    path = save(tmp_path / "a.jpg", RGB, exif=b"Exif\0\0garbage")
    assert imagefile.read(path).image.shape == (3, 2, 3)


def test_alpha_keeps_the_colour_under_clear_pixels(tmp_path):
    pixels = np.array([[[200, 100, 50, 0], [200, 100, 50, 128], [1, 2, 3, 255]]], np.uint8)
    photo = imagefile.read(save(tmp_path / "a.png", pixels))
    assert (levels(photo.image) == pixels[..., :3]).all()
    assert levels(photo.alpha).tolist() == [[0, 128, 255]]


def test_grey_with_alpha(tmp_path):
    picture = PIL.Image.fromarray(np.array([[[7, 9], [200, 255]]], np.uint8), "LA")
    photo = imagefile.read(save(tmp_path / "a.png", picture))
    assert levels(photo.image).tolist() == [[[7] * 3, [200] * 3]]
    assert levels(photo.alpha).tolist() == [[9, 255]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency(tmp_path, transparency):
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    photo = imagefile.read(save(tmp_path / "a.png", picture, transparency=transparency))
    assert levels(photo.image).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert levels(photo.alpha).tolist() == [[255, 0]]


def test_premultiplied_tiff_is_divided_out(tmp_path):
    half = np.array([[[50, 100, 64, 128]]], np.uint8)
    tifffile.imwrite(tmp_path / "8.tif", half, photometric="rgb", extrasamples=["assocalpha"])
    wide = np.array([[[10000, 20000, 0, 40000], [0, 0, 0, 0]]], np.uint16)
    tifffile.imwrite(tmp_path / "16.tif", wide, photometric="rgb", extrasamples=["assocalpha"])
    assert np.allclose(levels(imagefile.read(tmp_path / "8.tif").image)[0, 0], [100, 199, 128], atol=1)
    photo = imagefile.read(tmp_path / "16.tif")
    assert torch.allclose(photo.image[:, 0], torch.tensor([[0.25, 0], [0.5, 0], [0, 0]]), atol=1e-6)
    assert levels(photo.alpha, 65535).tolist() == [[40000, 0]]


@pytest.mark.parametrize(("mode", "value", "expected"), [("1", 1, 255), ("L", 77, 77), ("P", 0, 9)])
def test_grey_palette_and_one_bit(tmp_path, mode, value, expected):
    picture = PIL.Image.new(mode, (5, 1), value)
    if mode == "P":
        picture.putpalette([9, 9, 9])
    photo = imagefile.read(save(tmp_path / "a.png", picture))
    assert photo.image.shape == (3, 1, 5)
    assert (levels(photo.image) == expected).all()
    assert photo.alpha is None


def test_adobe_cmyk_jpeg_is_not_inverted(tmp_path):
    picture = PIL.Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    path = save(tmp_path / "a.jpg", picture, quality=100)
    assert b"Adobe" in path.read_bytes()
    assert np.allclose(levels(imagefile.read(path).image), [0, 255, 255], atol=3)


def test_cmyk_tiff_with_key(tmp_path):
    path = save(tmp_path / "a.tif", PIL.Image.new("CMYK", (2, 1), (0, 0, 0, 255)))
    assert imagefile.read(path).image.max() == 0


def test_cmyk_goes_through_its_profile(tmp_path):
    picture = PIL.Image.new("CMYK", (2, 1), (255, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    photo = imagefile.read(save(tmp_path / "a.tif", picture, icc_profile=cmyk_profile()))
    assert np.allclose(levels(photo.image)[0], [[119] * 3, [255] * 3], atol=2)  # L* = 50 is 119 in sRGB
    assert photo.notes == ("a.tif was in the colours of 'Test press': they are now sRGB",)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_profile_is_converted_to_srgb(tmp_path, kind):
    colour = [150, 110, 90]
    pixels = np.full((8, 8, 3), colour, np.uint8)
    options = {"quality": 100, "subsampling": 0} if kind == "jpg" else {}
    path = save(tmp_path / f"a.{kind}", pixels, icc_profile=cms_profile("adobergb"), **options)
    photo = imagefile.read(path)
    assert np.allclose(levels(photo.image), adobe_to_srgb(np.array(colour) / 255) * 255, atol=3)
    assert re.fullmatch(rf"a\.{kind} was in the colours of '.+': they are now sRGB", photo.notes[0])


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_profile_is_converted_with_16_bits(tmp_path, kind):
    samples = np.linspace([0.3, 0.2, 0.2], [0.31, 0.21, 0.21], 40)[None]
    icc, wide = cms_profile("adobergb"), np.rint(samples * 65535).astype(np.uint16)
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        path.write_bytes(png16(wide, chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc))))
    else:
        tifffile.imwrite(path, wide, photometric="rgb", iccprofile=icc)
    image = imagefile.read(path).image
    assert len(image[1].unique()) == 40  # 8 bits would leave 4
    assert np.allclose(image.movedim(0, -1), adobe_to_srgb(samples), atol=3e-4)


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_profile(tmp_path, depth):
    icc = cms_profile("gray", whitepoint=[0.3457, 0.3585, 1.0], gamma=1.0)
    grey = np.full((3, 4), (2**depth - 1) // 2, np.uint8 if depth == 8 else np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="minisblack", iccprofile=icc)
    assert np.allclose(imagefile.read(tmp_path / "a.tif").image, encoded(np.float64(0.5)), atol=0.004)


def test_srgb_profile_changes_no_value(tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    photo = imagefile.read(save(tmp_path / "a.png", pixels, icc_profile=icc))
    assert torch.equal(photo.image, tensor(pixels))
    assert photo.notes == ()


@pytest.mark.parametrize("icc", [b"not a profile", cms_profile("gray", whitepoint=[0.3127, 0.329, 1], gamma=2.2)])
@pytest.mark.parametrize("depth", [8, 16])
def test_broken_or_wrong_profile_is_a_note(tmp_path, icc, depth):
    pixels = RGB if depth == 8 else RGB.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=icc)
    photo = imagefile.read(tmp_path / "a.tif")
    assert torch.equal(photo.image, tensor(RGB))
    assert photo.notes == ("a.tif has a colour profile that is broken or does not fit it: it is read as sRGB",)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_16_bits(tmp_path, channels):
    samples = deep(5, 7, channels)
    (tmp_path / "a.png").write_bytes(png16(samples))
    photo = imagefile.read(tmp_path / "a.png")
    colours = 3 if channels > 2 else 1
    assert (levels(photo.image, 65535) == samples[..., :colours]).all()
    assert (photo.alpha is None) == (channels in (1, 3))
    assert channels in (1, 3) or (levels(photo.alpha, 65535) == samples[..., -1]).all()


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_keeps_16_bits(tmp_path, compression, channels, byteorder):
    samples = deep(5, 7, channels)
    tifffile.imwrite(
        tmp_path / "a.tif",
        samples[..., 0] if channels == 1 else samples,
        photometric="minisblack" if channels == 1 else "rgb",
        extrasamples=["unassalpha"] if channels == 4 else None,
        compression=compression,
        byteorder=byteorder,
    )
    photo = imagefile.read(tmp_path / "a.tif")
    assert (levels(photo.image, 65535) == samples[..., : min(channels, 3)]).all()
    assert channels != 4 or (levels(photo.alpha, 65535) == samples[..., 3]).all()


def test_tiff_with_separate_planes(tmp_path):
    samples = deep(3, 5, 7)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", planarconfig="separate")
    assert (levels(imagefile.read(tmp_path / "a.tif").image, 65535) == samples.transpose(1, 2, 0)).all()


def test_tiff_where_white_is_zero(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 65535]], np.uint16), photometric="miniswhite")
    assert imagefile.read(tmp_path / "a.tif").image[0].tolist() == [[1, 0]]


def test_portable_greymap_of_16_bits(tmp_path):
    samples = deep(4, 6)
    (tmp_path / "a.pgm").write_bytes(b"P5 6 4 65535\n" + samples.astype(">u2").tobytes())
    assert (levels(imagefile.read(tmp_path / "a.pgm").image, 65535) == samples[..., None]).all()


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_float_tiff(tmp_path, photometric):
    samples = np.random.default_rng(1).random((4, 5, 3) if photometric == "rgb" else (4, 5)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric=photometric)
    photo = imagefile.read(tmp_path / "a.tif")
    assert np.array_equal(photo.image[0], samples[..., 0] if photometric == "rgb" else samples)
    assert photo.notes == ()


def test_float_tiff_beyond_one_is_scaled_with_a_note(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[-1, 16384, 65536, np.nan, np.inf]], np.float32))
    photo = imagefile.read(tmp_path / "a.tif")
    assert photo.image[0].tolist() == [[0, 0.25, 1, 0, 0]]
    assert photo.notes == ("a.tif holds numbers up to 65536 where 1 is white: they were divided by that",)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_animations_give_their_first_frame_and_a_note(tmp_path, kind):
    frames = [PIL.Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    path = save(tmp_path / f"cat.{kind}", frames[0], save_all=True, append_images=frames[1:], duration=50)
    photo = imagefile.read(path)
    assert np.allclose(levels(photo.image), [255, 0, 0], atol=3)
    assert photo.notes == (f"cat.{kind} is animated (3 frames): its first frame is dreamed",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_give_the_first_and_a_note(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 4, 5), dtype), photometric="minisblack", metadata=None)
    photo = imagefile.read(tmp_path / "a.tif")
    assert photo.image.shape == (3, 4, 5)
    assert photo.notes == ("a.tif has 3 pages: its first page is dreamed",)


# --- samples


@pytest.mark.parametrize("name", imagefile.SAMPLES)
def test_every_sample_is_a_colour_photograph_on_disk(name):
    photo = imagefile.read(f"sample:{name}")
    assert min(photo.image.shape[1:]) >= 300
    assert not torch.equal(photo.image[0], photo.image[2])
    assert photo.source == f"sample:{name}"
    adobe = ("rocket.jpg was in the colours of 'Adobe RGB (1998)': they are now sRGB",)
    assert photo.notes == (adobe if name == "rocket" else ())


def test_sample_agrees_with_scikit_image():
    skdata = pytest.importorskip("skimage.data")
    assert torch.equal(imagefile.read("sample:coffee").image, tensor(skdata.coffee()))


def test_unknown_sample():
    with pytest.raises(
        UnknownNameError, match=r"no sample called 'cofee'; did you mean coffee or .*\? The samples are ast"
    ):
        imagefile.read("sample:cofee")


# --- what cannot be read


def test_missing_file_names_the_nearest(tmp_path):
    save(tmp_path / "holiday.png", RGB)
    with pytest.raises(ImageError, match=r"there is no file '.*holyday\.png': did you mean 'holiday\.png'\?"):
        imagefile.read(tmp_path / "holyday.png")
    with pytest.raises(ImageError, match=r"there is no file .*: give the path of a picture"):
        imagefile.read(tmp_path / "nowhere" / "a.png")


def test_folder_empty_and_text(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("dear diary")
    for source, message in (
        (tmp_path, "is a folder: give one picture in it"),
        (tmp_path / "empty.png", r"empty\.png' is an empty file: give a picture"),
        (tmp_path / "notes.txt", r"notes\.txt' is not a picture that can be read: give a PNG, JPEG"),
    ):
        with pytest.raises(ImageError, match=message):
            imagefile.read(source)


def test_unreadable_file(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", RGB)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png' cannot be opened: give a file you may read \(Permission denied\)"):
        imagefile.read(path)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "tif", "png16", "tiff16", "lzw16"])
def test_truncated_files(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    path = tmp_path / f"a.{kind.removesuffix('16').replace('lzw', 'tif')}"
    if kind == "png16":
        path.write_bytes(png16(deep(40, 50, 3)))
    elif kind in ("tiff16", "lzw16"):
        tifffile.imwrite(path, deep(40, 50, 3), photometric="rgb", compression="lzw" if kind == "lzw16" else None)
    else:
        save(path, pixels)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"' is (broken or cut off: give a whole picture|not a picture)"):
        imagefile.read(path)


def bomb_tiff(path):
    tifffile.imwrite(path, np.zeros((1, 1, 3), np.uint16), photometric="rgb")
    data = bytearray(path.read_bytes())
    for tag in (256, 257):  # width and height
        at = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
        data[at : at + 4] = struct.pack("<I", 65535)
    path.write_bytes(data)


def test_a_bomb_is_refused_undecoded(tmp_path):
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    bomb_tiff(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        with pytest.raises(ImageError, match=rf"{name}' is larger than 268,435,456 pixels: make it smaller first"):
            imagefile.read(tmp_path / name)


def test_the_limit_is_ours_and_silent_below(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", RGB)  # six pixels
    monkeypatch.setattr(imagefile.opening, "MAX_PIXELS", 6)  # Pillow warns from half of it on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imagefile.read(path)
    monkeypatch.setattr(imagefile.opening, "MAX_PIXELS", 5)
    with pytest.raises(ImageError, match=r"a\.png' is larger than 5 pixels"):
        imagefile.read(path)


def test_pillow_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4)
    imagefile.read(save(tmp_path / "a.png", RGB))
    assert PIL.Image.MAX_IMAGE_PIXELS == 4
    with pytest.raises(ImageError):
        imagefile.read(__file__)
    assert PIL.Image.MAX_IMAGE_PIXELS == 4


# --- masks


def test_mask_is_luma_times_alpha(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 51]]], np.uint8)
    mask = imagefile.as_mask(imagefile.read(save(tmp_path / "a.png", pixels)), (1, 4))
    assert torch.allclose(mask, torch.tensor([[0.2126, 0.7152, 0.0722, 0.2]]), atol=1e-6)


def test_mask_is_resized_with_antialiasing(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (9, 18))[:, :35]  # 7 columns into 1
    path = save(tmp_path / "a.png", stripes)
    mask = imagefile.as_mask(imagefile.read(path), (3, 5))
    assert mask.shape == (3, 5)
    assert (mask[:, 1:-1] - 0.5).abs().max() < 0.03  # sampling points alone would give 0 or 1
    white = imagefile.as_mask(imagefile.read(save(tmp_path / "w.png", np.full((3, 4), 255, np.uint8))), (7, 9))
    assert white.max() <= 1
    assert torch.allclose(white, torch.ones(7, 9))


# --- writing


def picture(path):
    with PIL.Image.open(path) as opened:
        opened.load()
        return opened


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([3, 4]))))
@settings(max_examples=25, deadline=None)
def test_png_round_trip_is_exact(tmp_path_factory, pixels):
    path = tmp_path_factory.getbasetemp() / "round.png"
    alpha = tensor(pixels)[3] if pixels.shape[2] == 4 else None
    imagefile.write(path, tensor(pixels)[:3].contiguous(), alpha=alpha)
    photo = imagefile.read(path)
    assert torch.equal(photo.image, tensor(pixels)[:3])
    assert alpha is None if photo.alpha is None else torch.equal(photo.alpha, alpha)
    assert np.array_equal(np.asarray(picture(path)), pixels)  # Pillow's decoder is the independent answer


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([3, 4]))))
@settings(max_examples=12, deadline=None)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_round_trip_is_exact(tmp_path_factory, ending, samples):
    path = tmp_path_factory.getbasetemp() / f"deep.{ending}"
    alpha = tensor(samples, 65535)[3] if samples.shape[2] == 4 else None
    imagefile.write(path, tensor(samples, 65535)[:3].contiguous(), alpha=alpha, bits=16)
    photo = imagefile.read(path)
    assert torch.equal(photo.image, tensor(samples, 65535)[:3])
    assert alpha is None if photo.alpha is None else torch.equal(photo.alpha, alpha)
    if ending == "tif":
        assert np.array_equal(tifffile.imread(path), samples)


@pytest.mark.parametrize("ending", WRITTEN)
def test_every_ending_holds_its_format(tmp_path, ending):
    image = torch.full((3, 20, 30), 0.3)
    image[0] = 0.8
    path = tmp_path / f"a{ending.upper()}"
    imagefile.write(path, image)
    assert picture(path).format == imagefile.FORMATS[ending].name
    photo = imagefile.read(path)
    assert (photo.image - image).abs().max() < 0.02
    assert photo.notes == ()


@pytest.mark.parametrize("bits", [8, 16])
def test_values_are_rounded_and_clamped(tmp_path, bits):
    top = 2**bits - 1
    values = torch.tensor([-1, 0.4 / top, 0.6 / top, 99.6 / top, 1 - 0.4 / top, 2])
    imagefile.write(tmp_path / "a.png", values.expand(3, 1, 6), bits=bits)
    assert levels(imagefile.read(tmp_path / "a.png").image, top)[0, :, 0].tolist() == [0, 0, 1, 100, top, top]


@pytest.mark.parametrize("ending", [".png", ".webp", ".tif", ".avif"])
def test_alpha_round_trip(tmp_path, ending):
    if ending not in WRITTEN:
        pytest.skip("this Pillow has no AVIF")
    alpha = torch.linspace(0.2, 1, 32).repeat(16, 1)
    imagefile.write(tmp_path / f"a{ending}", torch.full((3, 16, 32), 0.5), alpha=alpha)
    photo = imagefile.read(tmp_path / f"a{ending}")
    assert (photo.alpha - alpha).abs().max() < 0.02
    assert (photo.image - 0.5).abs().max() < 0.03


def test_jpeg_lays_alpha_on_white(tmp_path):
    alpha = torch.zeros(16, 16)
    alpha[:, 8:] = 1
    imagefile.write(tmp_path / "a.jpg", torch.zeros(3, 16, 16), alpha=alpha)
    photo = imagefile.read(tmp_path / "a.jpg")
    assert photo.alpha is None
    assert photo.image[:, :, :7].min() > 0.95
    assert photo.image[:, :, 9:].max() < 0.05


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    imagefile.write(tmp_path / "a.jpg", torch.zeros(3, 16, 16))
    assert [component[1:3] for component in picture(tmp_path / "a.jpg").layer] == [(1, 1)] * 3


@pytest.mark.parametrize("ending", WRITTEN)
def test_files_say_that_they_are_srgb(tmp_path, ending):
    imagefile.write(tmp_path / f"a{ending}", torch.zeros(3, 16, 16))
    info = picture(tmp_path / f"a{ending}").info
    assert info.get("srgb") == 0 or b"sRGB" in info["icc_profile"].replace(b"\0", b"")


@pytest.mark.parametrize("ending", WRITTEN)
def test_same_picture_same_bytes(tmp_path, ending, monkeypatch):
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    imagefile.write(tmp_path / f"a{ending}", image, recipe=RECIPE)
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    icc[24:36] = struct.pack(">6H", 1999, 12, 31, 1, 2, 3)  # the profile that another day would have made
    monkeypatch.setattr(imagefile.colour, "SRGB", ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile)
    imagefile.write(tmp_path / f"b{ending}", image, recipe=RECIPE)
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_encode_is_an_8_bit_png():
    with PIL.Image.open(io.BytesIO(imagefile.encode(tensor(RGB)))) as opened:
        assert opened.format == "PNG"
        assert np.array_equal(np.asarray(opened), RGB)


@pytest.mark.parametrize("ending", WRITTEN)
def test_recipe_round_trip(tmp_path, ending):
    long = tomli_w.dumps({"note": "Ünï 夢 " * 2000, "steps": 20})
    assert len(long.encode()) > 20_000
    for recipe in (RECIPE, long):
        imagefile.write(tmp_path / f"a{ending}", torch.zeros(3, 8, 8), recipe=recipe)
        assert imagefile.read_recipe(tmp_path / f"a{ending}") == recipe
        assert tomllib.loads(imagefile.read_recipe(tmp_path / f"a{ending}")) == tomllib.loads(recipe)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_recipe_beside_16_bits(tmp_path, ending):
    imagefile.write(tmp_path / f"a{ending}", torch.zeros(3, 8, 8), alpha=torch.ones(8, 8), recipe=RECIPE, bits=16)
    assert imagefile.read_recipe(tmp_path / f"a{ending}") == RECIPE


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_recipe_of_a_picture_that_is_too_large_to_be_read(tmp_path, monkeypatch, ending):
    imagefile.write(tmp_path / f"a{ending}", torch.zeros(3, 8, 8), recipe=RECIPE)
    monkeypatch.setattr(imagefile.opening, "MAX_PIXELS", 5)
    assert imagefile.read_recipe(tmp_path / f"a{ending}") == RECIPE
    with pytest.raises(ImageError, match="larger than 5 pixels"):
        imagefile.read(tmp_path / f"a{ending}")


def test_recipe_survives_as_an_attribute(tmp_path):
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:p="urn:phosphene:" p:recipe="steps = 1&#10;"/></rdf:RDF></x:xmpmeta>'
    )
    path = save(tmp_path / "a.jpg", RGB, xmp=xmp.encode())
    assert imagefile.read_recipe(path) == "steps = 1\n"


@pytest.mark.parametrize("options", [{}, {"xmp": b"<broken"}, {"xmp": b"<x/>"}])
def test_no_recipe(tmp_path, options):
    path = save(tmp_path / "a.jpg", RGB, **options)
    with pytest.raises(ImageError, match=r"a\.jpg' carries no recipe: give a picture as Phosphene wrote it"):
        imagefile.read_recipe(path)


# --- what cannot be written


def test_check_output_accepts_a_new_file_and_an_overwrite(tmp_path):
    imagefile.check_output(tmp_path / "new.png", overwrite=False)
    imagefile.check_output(save(tmp_path / "old.png", RGB), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]


def test_check_output_refuses(tmp_path, monkeypatch):
    old = save(tmp_path / "old.png", RGB)
    (tmp_path / "folder.png").mkdir()
    for error, path, message in (
        (SettingsError, tmp_path / "a.bmp", r"'a\.bmp' cannot be written: its ending must be one of \.png, \.jpg"),
        (SettingsError, tmp_path / "a", r"'a' cannot be written"),
        (OutputExistsError, old, r"old\.png' exists already: choose another name, or --overwrite it"),
        (ImageError, tmp_path / "no" / "a.png", r"there is no folder '.*no' to write 'a\.png' in: make it first"),
        (ImageError, old / "a.png", r"there is no folder '.*old\.png' to write"),
        (ImageError, tmp_path / "folder.png", r"folder\.png' is a folder: give the name of a file"),
    ):
        with pytest.raises(error, match=message):
            imagefile.check_output(path, overwrite=False)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ImageError, match=r"you may not write in '.*': choose another folder for 'a\.png'"):
        imagefile.check_output(tmp_path / "a.png", overwrite=False)


def test_what_a_format_cannot_hold_is_known_before_and_at_writing(tmp_path):
    for name in ("a.jpg", "a.webp"):
        with pytest.raises(SettingsError, match=rf"'{name}' cannot hold 16 bits: use \.png or \.tif"):
            imagefile.check_output(tmp_path / name, overwrite=False, bits=16)
        with pytest.raises(SettingsError, match="cannot hold 16 bits"):
            imagefile.write(tmp_path / name, torch.zeros(3, 2, 2), bits=16)
    with pytest.raises(SettingsError, match=r"'a\.webp' cannot hold 20000 x 5 pixels, only 16383 a side: use \.png"):
        imagefile.check_output(tmp_path / "a.webp", overwrite=False, size=(5, 20000))
    imagefile.check_output(tmp_path / "a.png", overwrite=False, bits=16, size=(5, 20000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["os.replace", "os.fsync", "zlib.compress"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken, error):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(broken, fail)
    told = r"a\.png' could not be written: .*No space left on device"
    with pytest.raises(ImageError, match=told) if isinstance(error, OSError) else pytest.raises(KeyboardInterrupt):
        imagefile.write(path, torch.zeros(3, 2, 2))
    assert path.read_bytes() == b"old"
    assert [other.name for other in tmp_path.iterdir()] == ["a.png"]


def test_recipe_too_long_for_jpeg_is_told(tmp_path):
    with pytest.raises(SettingsError, match=r"a\.jpg' cannot hold a recipe of 70 kB, only 65: use \.png or \.tif"):
        imagefile.write(tmp_path / "a.jpg", torch.zeros(3, 2, 2), recipe="x" * 70_000)
    assert list(tmp_path.iterdir()) == []
