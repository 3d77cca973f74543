"""The studio's folder: the only place that it reads from and writes to.

FOLDER/             the dreams, which carry their recipes
FOLDER/photographs/ what was dropped on the page: photographs, guides, masks, by name and checksum
FOLDER/.cache/      small copies and thumbnails; may be deleted at any time
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from phosphene import imagefile
from phosphene.errors import UnknownNameError
from phosphene.imagefile import Photo
from phosphene.resample import resize

CHECKSUM_LETTERS = 12
WEIGHTS = {".safetensors", ".pth", ".pt"}


@dataclass(frozen=True)
class Folder:
    """A folder of dreams; it is made if it is not there."""

    root: Path

    def __post_init__(self) -> None:
        for folder in (self.photographs, self.cache):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def photographs(self) -> Path:
        """Where dropped files are kept."""
        return self.root / "photographs"

    @property
    def cache(self) -> Path:
        """Where small copies are kept."""
        return self.root / ".cache"

    def pictures(self) -> list[Path]:
        """Return the folder's pictures, newest first."""
        found = [path for path in self.root.iterdir() if path.suffix.lower() in imagefile.FORMATS and _is_plain(path)]
        return sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name))

    def picture(self, name: str) -> Path:
        """Return a dream by its name. Raises `UnknownNameError`, also for a name that leads elsewhere."""
        return _inside(self.root, name, "picture")

    def weights(self, name: str) -> Path:
        """Return a weights file that lies in the folder. Raises `UnknownNameError`."""
        path = _inside(self.root, name, "weights file")
        if path.suffix not in WEIGHTS:
            raise UnknownNameError("weights file", name, [])
        return path

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

    def keep(self, data: bytes, name: str) -> tuple[Path, Photo]:
        """Keep a dropped file if it is a picture. Raises `ImageError`; then nothing is kept."""
        checksum = hashlib.sha256(data).hexdigest()[:CHECKSUM_LETTERS]
        given = Path(name.replace("\\", "/"))
        stem = re.sub(r"[^A-Za-z0-9]+", "-", given.stem).strip("-")[:40] or "photograph"
        ending = re.sub(r"[^a-z0-9]", "", given.suffix.lower())[:5] or "picture"
        path = self.photographs / f"{stem}-{checksum}.{ending}"
        if twin := self.with_checksum(checksum):
            path = self.photographs / twin
            return path, imagefile.read(path)
        arriving = self.cache / f"{secrets.token_hex(8)}.{ending}"
        try:
            arriving.write_bytes(data)
            photo = imagefile.read(arriving)
            arriving.replace(path)
        finally:
            arriving.unlink(missing_ok=True)
        return path, photo

    def view(self, source: str, side: int) -> Path:
        """Return a copy of a picture, made once, whose long side is at most `side` px; nothing is enlarged."""
        path = None if source.startswith("sample:") else Path(source)
        identity = f"{source} {path.stat().st_mtime_ns if path else ''} {side}"
        copy = self.cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.webp"
        if not copy.exists():
            photo = imagefile.read(source)
            size = fitted(photo.image.shape[1], photo.image.shape[2], side)
            alpha = None if photo.alpha is None else resize(photo.alpha[None], size)[0]
            imagefile.write(copy, resize(photo.image, size), alpha=alpha)
        return copy

    def free_name(self, stem: str) -> Path:
        """Return a path for a new dream that nothing has yet."""
        stem = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")
        number = 1
        while (path := self.root / f"{stem}-{number}.png").exists():
            number += 1
        return path


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Return height and width of a picture within `side` px; a smaller one keeps its own."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _inside(folder: Path, name: str, kind: str) -> Path:
    path = folder / name
    if Path(name).name != name or name.startswith(".") or not _is_plain(path):
        raise UnknownNameError(kind, name, [other.name for other in folder.iterdir() if _is_plain(other)])
    return path


def _is_plain(path: Path) -> bool:
    """Whether this is a file and no link to somewhere else."""
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")
