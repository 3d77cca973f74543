"""What a dream on disk has reached: an entry after each whole step, which replaces the one before it at one blow."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import ValidationError

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
    """Write a text whole or not at all; `StoreError` where it cannot be."""
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error}") from error


def last(folder: Path) -> Entry | None:
    """Return the last entry, or None where no step was finished."""
    try:
        return Entry.model_validate_json((folder / ENTRY).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise StoreError(f"the journal in {folder} cannot be read: {error}") from error


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
    try:
        with (folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise StoreError(f"{folder} is in use by another run: wait for it, or stop it") from error
    except OSError as error:
        raise StoreError(f"{folder} could not be used: {error}") from error
