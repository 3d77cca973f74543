"""Writing files whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write under; it takes the place of `path` when all went well.

    What was there is kept until then; a symbolic link stays, and what it points to is written. Both the file and its
    name are on the disk itself before this ends.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".phosphene-{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(data)


def sync(path: Path) -> None:
    """Have a file or a folder written to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
