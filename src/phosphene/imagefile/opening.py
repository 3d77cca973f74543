"""Finding and opening picture files, with their failures as one sentence each."""

import difflib
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import PIL.Image

from phosphene.errors import ImageError, UnknownNameError

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
