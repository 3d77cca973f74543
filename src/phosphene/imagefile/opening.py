"""Finding and opening picture files, with their failures as one sentence each."""

import difflib
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import PIL.Image
import psutil

from phosphene.errors import ImageError, PhospheneError, UnknownNameError
from phosphene.imagefile.headers import Shape, UndevelopedError, brands
from phosphene.places import check_name, kind_of_file
from phosphene.types import Size

MAX_PIXELS = 2**28
"""Most pixels read: 16384 x 16384, 3.2 GB as an `Image`. A file that declares more is refused undecoded."""

FREE = 2**22
"""Pixels that any file may declare, however few bytes it has."""

MOST_WORK = 2**33
"""Most pixels times passes over them: a progressive JPEG may ask for thousands of passes."""

IMAGE = 4 * 4
"""Bytes of a pixel as an `Image` with alpha."""

ENDINGS = "PNG, JPEG, WebP, AVIF, HEIC, JPEG XL, TIFF or GIF"

_FILM = "a film: `phosphene animate` takes those; here, give a still from it, as a PNG or JPEG"
_RAW = "a camera's raw file: develop it into a TIFF or JPEG first (with darktable, RawTherapee or the camera's program)"
_NO_PICTURES = {
    b"%PDF": "a PDF: save the page that you mean as a PNG or JPEG",
    b"\0\5\x16\7": "a Mac's metadata beside a picture, and not the picture: give the file without ._ before its name",
    b"FUJIFILMCCD-RAW": _RAW,
    b"IIU\0": _RAW,
    b"IIRO": _RAW,
    b"IIRS": _RAW,
    b"MMOR": _RAW,
    b"FOVb": _RAW,
    b"\x1a\x45\xdf\xa3": _FILM,
}
"""First bytes of what is known, and is no picture -> what to do. Of raw files: Fujifilm, Panasonic, Olympus, Sigma."""
_FILM_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ", b"3gp4", b"3gp5")

SAMPLES = {
    "astronaut": "Eileen Collins in her flight suit; NASA, public domain",
    "chelsea": "a tabby cat's face; Stefan van der Walt, CC0",
    "coffee": "a cup of espresso on a wooden table; Rachel Michetti, CC0",
    "hubble_deep_field": "thousands of far galaxies; NASA, public domain",
    "retina": "the back of a left eye; Mikael Häggström, CC0",
    "rocket": "a Falcon 9 lifting off with DSCOVR; SpaceX, public domain",
}
"""The copyright-free colour photographs inside scikit-image: name -> what it shows, and its licence."""

for _library in ("PIL", "tifffile", "imagecodecs"):  # what is wrong with a file is said once, in our sentence
    logging.getLogger(_library).addHandler(logging.NullHandler())

_pillow_lock = threading.RLock()


def locate(source: str) -> Path:
    """Return the path of a picture, or of `sample:NAME`; `UnknownNameError` gives the nearest sample."""
    kind, _, name = source.partition(":")
    if kind != "sample":
        return Path(source)
    if name not in SAMPLES:
        raise UnknownNameError("sample", name, SAMPLES, f"The samples are {', '.join(SAMPLES)}.")
    import skimage

    return next((Path(skimage.__file__).parent / "data").glob(f"{name}.*"))


@contextmanager
def opened(path: Path, limited: bool = True) -> Iterator[BufferedReader]:
    """The file, with Pillow silent and under our size limit; whatever goes wrong in it becomes an ImageError.

    The limit and the warning filters belong to the whole process, so one file is decoded at a time. Headers may be read
    without it.
    """
    with _open(path) as file, _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PIL.Image.MAX_IMAGE_PIXELS
        # Pillow warns above this, and refuses above twice this
        PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2 if limited else None
        try:
            yield file
        except (PhospheneError, ImportError):
            raise
        except MemoryError:
            raise ImageError(f"{str(path)!r} takes more memory to read than there is: make it smaller first") from None
        except UndevelopedError:
            raise ImageError(f"{str(path)!r} is {_RAW}") from None
        except PIL.UnidentifiedImageError:
            raise ImageError(f"{str(path)!r} is not a picture that can be read: give a {ENDINGS}") from None
        except PIL.Image.DecompressionBombError:
            most = f"{MAX_PIXELS:,} pixels"
            raise ImageError(f"{str(path)!r} is larger than {most}: make it smaller first") from None
        except Exception as error:  # decoders meet broken bytes with whatever they stumble over
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"{str(path)!r} is broken or cut off: give a whole picture ({reason})") from error
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = theirs


def refuse_no_picture(file: BufferedReader, path: Path) -> None:
    """Raise ImageError for what is known, and is no picture: drawings, documents, films, cameras' raw files."""
    file.seek(0)
    head = file.read(1024)
    kind = next((what for start, what in _NO_PICTURES.items() if head.startswith(start)), None)
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        kind = _RAW
    elif head[4:8] == b"ftyp":
        names = brands(head)
        kind = _RAW if b"crx " in names else _FILM if names[0] in _FILM_BRANDS else None
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        kind = _FILM
    elif b"<svg" in head.lower():
        kind = "a drawing (SVG): save it as a PNG, as large as you want it"
    if kind:
        raise ImageError(f"{str(path)!r} is {kind}")


def check_shape(shape: Shape, path: Path, needed: int, room: int | None, most: float) -> None:
    """Raise ImageError where a file declares more than it can hold, than `most` pixels, or than there is room for.

    `needed` is the bytes a pixel that decoding takes, and `room` those that it may, or else what is free.
    """
    pixels, given = shape.width * shape.height, f"{shape.width} x {shape.height} pixels"
    if pixels > most:
        raise PIL.Image.DecompressionBombError
    if pixels <= 0:
        raise ImageError(f"{str(path)!r} says that it has {given}: it is broken")
    stored = path.stat().st_size
    if pixels > FREE + shape.per_byte * stored:
        raise ImageError(
            f"{str(path)!r} says that it has {given}, and its {stored} bytes cannot hold them: it is broken"
        )
    if pixels * shape.scans > MOST_WORK:
        raise ImageError(f"{str(path)!r} has {given} in {shape.scans} passes: save it again without so many")
    free = psutil.virtual_memory().available if room is None else room
    if needed and pixels * needed > free:
        raise ImageError(
            f"{str(path)!r} has {given} and takes {pixels * needed / 1e6:.0f} MB to read, and "
            f"{max(free, 0) / 1e6:.0f} MB are free: make it smaller first, or allow more --memory"
        )


def check_decoded(size: Size, declared: Size, path: Path) -> None:
    """Raise ImageError where what came out of a decoder, upright, is not of the size that the file declares."""
    if size != declared:
        came, said = (f"{width} x {height}" for height, width in (size, declared))
        raise ImageError(f"{str(path)!r} says that it has {said} pixels, and {came} came out of it: it is broken")


def is_beside(path: Path) -> bool:
    """Whether a name is of what a Mac keeps beside a file, on disks that are not its own: ._IMG_0001.jpg."""
    return path.name.startswith("._")


def _open(path: Path) -> BufferedReader:
    check_name(path)
    kind = kind_of_file(path)
    if kind == "a folder":
        raise ImageError(f"{str(path)!r} is a folder: give one picture in it")
    if kind not in ("", "a file"):
        raise ImageError(f"{str(path)!r} is {kind}: give a file")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
        guess = f"did you mean {near[0]!r}?" if near else "give the path of a picture"
        raise ImageError(f"there is no file {str(path)!r}: {guess}") from None
    except OSError as error:
        raise ImageError(f"{str(path)!r} cannot be opened: give a file you may read ({error.strerror})") from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise ImageError(f"{str(path)!r} is an empty file: give a picture")
    return file
