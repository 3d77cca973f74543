"""Names and places that people give: looked at before anything is read, computed or written."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from phosphene.errors import ImageError, OutputExistsError, UsageError

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes that the file systems in use allow."""

RESERVED = len(".phosphene-0123456789abcdef.part")
"""Bytes that are added to a name while its file is being written."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_name(path: str | Path) -> None:
    """Raise UsageError for what cannot be the name of a file that is read or written here, ImageError for one in a
    folder that may not be entered.

    A recipe names its photograph, in UTF-8, and a photograph is read several times: so a name that is no text and `-`
    for standard input or output are refused.
    """
    name = str(path)
    if name == "-":
        raise UsageError("'-' would be standard input or output, which cannot be read twice: give the name of a file")
    if not name or name == "." or "\0" in name:
        raise UsageError(f"{name!r} is no name of a file")
    try:
        parts = [len(part.encode()) for part in Path(name).parts]
    except UnicodeEncodeError:
        spelt = os.fsencode(name)
        raise UsageError(f"{spelt!r} is no name in UTF-8, and a recipe could not hold it: rename the file") from None
    if max(parts) > LONGEST_NAME or len(name.encode()) > LONGEST_PATH:
        raise UsageError(f"{name[:40] + '...'!r} has {len(name)} characters, too many for a name: give a shorter one")
    _check_way(name)


def _check_way(name: str) -> None:
    """Raise ImageError where a folder that leads to a name may not be entered, so that nothing is known about it."""
    try:
        os.stat(name)
    except PermissionError:
        raise ImageError(f"you may not look at {name!r}: give one in a folder that you may enter") from None
    except OSError:  # there may be nothing yet
        pass


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder, by name. UsageError for what is no name, ImageError where it cannot be read."""
    check_folder(folder)
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"the folder {str(folder)!r} cannot be read: {error.strerror}") from error


def check_writable(folder: Path) -> None:
    """Raise ImageError for a folder that is there and cannot be written in."""
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"you may not write in {str(folder)!r}: choose another folder")


def check_folder(path: str | Path) -> None:
    """As `check_name`, for what may be a folder: the one that we are in too."""
    check_name(Path(path).absolute() if str(path) else "")


def seen_from(place: str, name: str) -> str:
    """Name a file that was named from the folder `place`, so that it is found from anywhere; what is no file, as
    sample:coffee, keeps its name."""
    path = Path(place, name)
    return str(path) if path.exists() else name


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is in. Raises UsageError for what is no name, ImageError where it cannot be
    made or written to."""
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"the folder {str(path)!r} cannot be made: {error.strerror}") from error
    check_writable(path)


def check_told(told: Mapping[str, Path | None], *others: str | Path | None) -> None:
    """Raise now what would be in the way of writing what tells of a dream: flags, and the files that they name.

    They replace what is there, but for `others`, the output and the input, and each other: UsageError. Else as
    `check_place`.
    """
    names = [str(other) for other in others if other]
    for name in names:
        check_name(name)
    taken = {os.path.realpath(name): name for name in names}
    for flag, path in told.items():
        if path is None:
            continue
        check_place(path, overwrite=True)
        real = os.path.realpath(path)
        if real in taken:
            raise UsageError(f"{flag} would be written over {taken[real]!r}: give it a name of its own")
        taken[real] = str(path)


def kind_of_file(path: Path) -> str:
    """Say what is at a path: a folder, a file, a pipe, a device, or nothing (an empty text)."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "no file")
    except (OSError, ValueError):  # too long, or with a zero byte in it
        return ""


def check_place(path: Path, overwrite: bool) -> None:
    """Raise now what would be in the way of writing a file later.

    UsageError for what is no name, OutputExistsError for a file that is there already, unless `overwrite`; ImageError
    for a folder, and for a place in a folder that is missing or cannot be written to. A symbolic link stands for what
    it points to.
    """
    check_name(path)
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise ImageError(f"{str(path)!r} is a link to itself: give the name of a file to write")
    check_name(target.with_name(f"{'x' * RESERVED}{target.suffix}"))
    if not target.parent.is_dir():
        raise ImageError(f"there is no folder {str(target.parent)!r} to write {path.name!r} in: make it first")
    kind = kind_of_file(target)
    if kind not in ("", "a file"):
        raise ImageError(f"{str(path)!r} is {kind}: give the name of a file to write")
    if not os.access(target.parent, os.W_OK):
        raise ImageError(f"you may not write in {str(target.parent)!r}: choose another folder for {path.name!r}")
    if kind and not overwrite:
        raise OutputExistsError(
            f"{str(path)!r} exists already: choose another name, or --overwrite it (in Python overwrite=True)"
        )
