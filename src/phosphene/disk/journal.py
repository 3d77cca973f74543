"""What a dream on disk has reached: an entry after each whole step, which replaces the one before it at one blow."""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from phosphene.errors import StoreError
from phosphene.imagefile.replacing import sync, write_atomically
from phosphene.recipe.settings import Settings

ENTRY, LOCK = "journal.json", "lock"


class Entry(Settings):
    """`step` whole steps of `octave` (counted from 1) have made the raster `dream`.

    `rng` is the state of the generator after them, in hexadecimal; `rows` are octave, step, score and seconds.
    """

    octave: int
    step: int
    dream: str
    rng: str
    rows: tuple[tuple[int, int, float, float], ...]

    def restore(self, rng: torch.Generator) -> None:
        """Put the generator where it was."""
        rng.set_state(torch.frombuffer(bytearray.fromhex(self.rng), dtype=torch.uint8))


def state_of(rng: torch.Generator) -> str:
    """Spell a generator's state."""
    return bytes(rng.get_state().tolist()).hex()


def commit(folder: Path, entry: Entry) -> None:
    """Make an entry, on the disk itself before this returns; `StoreError` where it cannot be."""
    put(folder / ENTRY, entry.model_dump_json())


def put(path: Path, text: str) -> None:
    """Write a text with its checksum, whole or not at all; `StoreError` where it cannot be."""
    try:
        write_atomically(path, f"{text}\n{_checksum(path, text)}\n".encode())
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error}") from error


def get(path: Path) -> str | None:
    """Read a text that `put` wrote; None where there is none. `StoreError` where it is not what was written there."""
    try:
        text, _, checksum = path.read_bytes().decode(errors="replace").removesuffix("\n").rpartition("\n")
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a zero byte in its name
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if checksum != _checksum(path, text):
        raise StoreError(
            f"{path} is damaged: its checksum is another one; the photograph and what else is in the folder may be "
            f"whole, but the dream cannot go on: remove the folder, and begin again"
        )
    return text


def _checksum(path: Path, text: str) -> str:
    """The SHA-256 of a text and of the name of its file, so that files that changed places are found out."""
    return hashlib.sha256(f"{path.name}\n{text}".encode()).hexdigest()


def last(folder: Path) -> Entry | None:
    """Return the last entry, or None where no step was finished."""
    text = get(folder / ENTRY)
    return None if text is None else Entry.model_validate_json(text)


def sync_tree(folder: Path) -> None:
    """Have all files below a folder written to the disk itself, so that they outlast a power failure."""
    try:
        for path in folder.rglob("*"):
            sync(path)
        sync(folder)
    except OSError as error:
        raise StoreError(f"{folder} could not be written: {error}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone; the system lets go of it when the process dies.

    `StoreError` where another process holds it.
    """
    with ExitStack() as held:
        try:
            file = held.enter_context((folder / LOCK).open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{folder} is in use by another run: wait for it, or stop it") from error
        except OSError as error:
            raise StoreError(f"{folder} could not be used: {error}") from error
        yield
