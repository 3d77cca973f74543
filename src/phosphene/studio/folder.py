"""The studio's folder: the only place that it reads from and writes to.

FOLDER/             the dreams, which carry their recipes
FOLDER/photographs/ what was dropped on the page: photographs, guides, masks, by name and checksum
FOLDER/comparisons/ a folder for each comparison, as `phosphene compare` writes it
FOLDER/.curves/     how the score of each dream rose, by the picture's checksum
FOLDER/.orders/     what waits to be dreamed
FOLDER/.cache/      small copies and thumbnails; may be deleted at any time
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from phosphene import imagefile
from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.resample import resize
from phosphene.errors import UnknownNameError
from phosphene.imagefile import Photo
from phosphene.places import kind_of_file, make_folder
from phosphene.studies.run.folder import Folder as StudyFolder
from phosphene.studio.films import FILMS, still_of

CHECKSUM_LETTERS = 12
WEIGHTS = {".safetensors", ".pth", ".pt"}


@dataclass(frozen=True)
class Folder:
    """A folder of dreams; it is made if it is not there. ImageError where it cannot be made or written in."""

    root: Path

    def __post_init__(self) -> None:
        for folder in (self.root, self.photographs, self._comparisons, self._curves, self.orders, self.cache):
            make_folder(folder)

    @property
    def photographs(self) -> Path:
        """Where dropped files are kept."""
        return self.root / "photographs"

    @property
    def cache(self) -> Path:
        """Where small copies are kept."""
        return self.root / ".cache"

    @property
    def orders(self) -> Path:
        """Where the queue keeps the orders that wait."""
        return self.root / ".orders"

    @property
    def _comparisons(self) -> Path:
        return self.root / "comparisons"

    @property
    def _curves(self) -> Path:
        return self.root / ".curves"

    def pictures(self) -> list[Path]:
        """Return the folder's pictures and films, newest first."""
        endings = {*imagefile.FORMATS, *FILMS}
        found = [path for path in self.root.iterdir() if path.suffix.lower() in endings and _is_plain(path)]
        return sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name))

    def picture(self, name: str) -> Path:
        """Return a dream by its name; one of a comparison is COMPARISON/NAME.

        Raises `UnknownNameError`, also for a name that leads elsewhere.
        """
        comparison, slash, own = name.rpartition("/")
        if slash:
            return _inside(self.comparison(comparison).path / "dreams", own, "picture")
        return _inside(self.root, name, "picture")

    def comparisons(self) -> list[str]:
        """Return the names of the folder's comparisons, newest first."""
        found = [path for path in self._comparisons.glob("*/study.json") if _is_plain_folder(path.parent)]
        return [path.parent.name for path in sorted(found, key=lambda path: -path.stat().st_mtime_ns)]

    def comparison(self, name: str) -> StudyFolder:
        """Return the folder of a comparison by its name. Raises `UnknownNameError`."""
        path = self._comparisons / name
        if not name or Path(name).name != name or not _is_plain_folder(path) or (path / "dreams").is_symlink():
            raise UnknownNameError("comparison", name, self.comparisons())
        return StudyFolder(path)

    def report(self, name: str) -> Path:
        """Return the report of a comparison. Raises `UnknownNameError` where there is none yet."""
        return _inside(self.comparison(name).path, "report.html", "report")

    def new_comparison(self, stem: str) -> str:
        """Make a folder for a new comparison, and return its name."""
        names = (f"{stem}-{number}" for number in count(1))
        name = next(name for name in names if not (self._comparisons / name).exists())
        (self._comparisons / name / "dreams").mkdir(parents=True)
        return name

    def weights(self, name: str) -> Path:
        """Return a weights file that lies in the folder. Raises `UnknownNameError`."""
        path = _inside(self.root, name, "weights file")
        if path.suffix not in WEIGHTS:
            raise UnknownNameError("weights file", name, [])
        return path

    def weights_of(self, weights: str) -> str:
        """Return what `phosphene.job` takes for weights: pretrained, untrained, or a file that lies in the folder."""
        return weights if weights in ("pretrained", "untrained") else str(self.weights(weights))

    def photograph(self, name: str) -> str:
        """Return what `phosphene.job` takes for a photograph: a sample by its name, or the path of a dropped file."""
        if name.startswith("sample:"):
            if name.removeprefix("sample:") not in imagefile.SAMPLES:
                raise UnknownNameError("sample", name, [f"sample:{sample}" for sample in imagefile.SAMPLES])
            return name
        return str(_inside(self.photographs, name, "photograph"))

    def with_checksum(self, sha256: str | None) -> str | None:
        """Return the name of the dropped file that has this checksum, if it is here."""
        found = self.photographs.glob(f"*-{sha256[:CHECKSUM_LETTERS]}.*") if sha256 else iter(())
        return next((path.name for path in found), None)

    @contextmanager
    def arriving(self, name: str) -> Iterator[Path]:
        """Give a path for a dropped file to be written to; at the end, what was not kept of it is gone."""
        given = Path(name.replace("\\", "/"))
        stem = re.sub(r"[^A-Za-z0-9]+", "-", given.stem).strip("-")[:40] or "photograph"
        ending = re.sub(r"[^a-z0-9]", "", given.suffix.lower())[:5] or "picture"
        with TemporaryDirectory(dir=self.cache) as place:
            yield Path(place, f"{stem}.{ending}")

    def keep(self, arrived: Path) -> tuple[Path, Photo]:
        """Keep a picture or a film that has arrived; return its path and (first) image. Raises `ImageError`."""
        photo = still_of(arrived)
        twin = self.with_checksum(photo.sha256)
        path = self.photographs / (twin or f"{arrived.stem}-{photo.sha256[:CHECKSUM_LETTERS]}{arrived.suffix}")
        if twin is None:
            arrived.replace(path)
        return path, photo

    def keep_curve(self, sha256: str, steps: Sequence[tuple[Any, ...]]) -> None:
        """Keep how the score of a picture rose: its steps as octave, step, score and whatever follows."""
        starts = [number for number, (_, step, *_) in enumerate(steps) if step == 1]
        curve = {"scores": [score for _, _, score, *_ in steps], "starts": starts}
        imagefile.write_atomically(self._curve(sha256), json.dumps(curve).encode())

    def curve(self, picture: Path) -> Any:
        """Return a picture's scores, and at which steps octaves start; None where that is not known."""
        path = self._curve(imagefile.checksum(picture))
        return json.loads(path.read_bytes()) if path.exists() else None

    def _curve(self, sha256: str) -> Path:
        return self._curves / f"{sha256}.json"

    def view(self, source: str, side: int) -> Path:
        """Return a copy of a picture, made once, whose long side is at most `side` px; nothing is enlarged."""
        path = None if source.startswith("sample:") else Path(source)
        identity = f"{source} {path.stat().st_mtime_ns if path else ''} {side}"
        copy = self.cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.webp"
        if not copy.exists():
            photo = still_of(source)
            size = fit_within((photo.image.shape[1], photo.image.shape[2]), side)
            alpha = None if photo.alpha is None else resize(photo.alpha[None], size)[0]
            imagefile.write(copy, resize(photo.image, size), alpha=alpha)
        return copy

    def free_name(self, stem: str, ending: str = ".png") -> Path:
        """Return a path for a new dream that nothing has yet, and no film that was not finished."""
        stem = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")
        number = 1
        while any(self.root.glob(f"{stem}-{number}{ending}*")):
            number += 1
        return self.root / f"{stem}-{number}{ending}"


def _inside(folder: Path, name: str, kind: str) -> Path:
    path = folder / name
    if Path(name).name != name or name.startswith(".") or not _is_plain(path):
        raise UnknownNameError(kind, name, [other.name for other in folder.iterdir() if _is_plain(other)])
    return path


def _is_plain(path: Path) -> bool:
    """Whether this is a file and no link to somewhere else."""
    return kind_of_file(path) == "a file" and not path.is_symlink() and not path.name.startswith(".")


def _is_plain_folder(path: Path) -> bool:
    """Whether this is a folder and no link to somewhere else."""
    return kind_of_file(path) == "a folder" and not path.is_symlink() and not path.name.startswith(".")
