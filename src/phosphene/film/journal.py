"""What is there of a film already: each frame on the disk, and then in the journal."""

from pathlib import Path

import torch

from phosphene.disk import journal
from phosphene.film.carry import Carried
from phosphene.film.frames import Frame
from phosphene.film.sink import FRAME, get_picture, put_picture
from phosphene.recipe.settings import Settings
from phosphene.types import Image

ENTRY = "journal.json"


class Entry(Settings):
    """`frames` frames are done; `strength` is that of the scene that the last one belongs to."""

    frames: int = 0
    strength: float = 0.0


def keep(folder: Path, frame: Frame, first: int = 1) -> None:
    """Put a frame on the disk, and then into the journal of its stretch. Its alpha is where it is settled."""
    put_picture(folder / FRAME.format(frame.index), frame.image, frame.carried.settled)
    entry = Entry(frames=frame.index, strength=frame.carried.strength)
    journal.put(_entry(folder, first), entry.model_dump_json())


def read(folder: Path, index: int, frame: Image, strength: float) -> Carried:
    """Read what `keep` has kept of a frame."""
    photo = get_picture(folder / FRAME.format(index))
    settled = torch.ones(frame.shape[1:]) if photo.alpha is None else photo.alpha
    return Carried(frame, photo.image, settled, strength)


def last(folder: Path, first: int = 1) -> Entry:
    """Return the last entry of the journal of the stretch that begins with a frame: the whole film, or a part of it."""
    text = journal.get(_entry(folder, first))
    return Entry() if text is None else Entry.model_validate_json(text)


def _entry(folder: Path, first: int) -> Path:
    return folder / (ENTRY if first == 1 else f"journal-{first}.json")
