"""Every error that Phosphene raises on purpose.

    PhospheneError                    exit code 1
    ├── UsageError                    what was asked cannot be done: exit code 2
    │   ├── UnknownNameError          no such model, layer, class, look, sample or setting
    │   ├── SettingsError             a value outside its range, or settings that exclude each other
    │   └── OutputExistsError         the output is there already, and --overwrite was not given
    ├── ImageError                    a file that cannot be read, or is not an image or a film
    │   └── BrokenFilmError           a film that breaks off: what came before can be had
    ├── StoreError                    a dream's folder on disk that is damaged, full, in use or gone
    ├── WeightsError
    │   ├── WeightsUnavailableError   not on this machine, and the download failed
    │   └── WeightsMismatchError      a file that does not fit the network
    └── NonFiniteGradientError        the network answered with infinities or NaN

Each message is one sentence that names what was given, what would be right and, for names, the nearest match.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the names that are most like one: those that have it as a word (tiger cat), then by spelling."""
    names = list(dict.fromkeys(known))
    word = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
    having = sorted((each for each in names if " " in each and word.search(each)), key=len)
    return list(dict.fromkeys([*having, *difflib.get_close_matches(name, names, most, cutoff=0.5)]))[:most]


def shown(value: Any) -> str:
    """Spell what was given, in one line and 200 characters at most; an array by its shape."""
    try:
        shape = getattr(value, "shape", ())
        text = f"something of type {type(value).__name__} and shape {tuple(shape)}" if shape else repr(value)
    except Exception:  # it is other people's code, or a number of thousands of digits
        text = f"something of type {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:200]}..."


class PhospheneError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(PhospheneError):
    """What was asked cannot be done as asked."""

    exit_code = 2


class UnknownNameError(UsageError):
    """No such model, layer, class, look, sample or setting."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        near = nearest(name, known)
        guess = f"; did you mean {' or '.join(near)}?" if near else "."
        super().__init__(f"there is no {kind} called {shown(name)}{guess}{' ' + hint if hint else ''}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Say it as it is: another process sends it here, without all names that are known."""
        return _again, (type(self), str(self))


class SettingsError(UsageError):
    """A value outside its range, or settings that exclude each other."""


class OutputExistsError(UsageError):
    """The output is there already, and overwriting was not asked for."""


class ImageError(PhospheneError):
    """A file that cannot be read, or is not an image."""


class BrokenFilmError(ImageError):
    """A film that breaks off: what came before can be had."""


class StoreError(PhospheneError):
    """A dream's folder on disk that is damaged, full, in use or gone."""


class WeightsError(PhospheneError):
    """Base of what can go wrong with a model's weights."""


class WeightsUnavailableError(WeightsError):
    """The weights are not on this machine, and could not be downloaded."""


class WeightsMismatchError(WeightsError):
    """A weights file that does not fit the network."""


class NonFiniteGradientError(PhospheneError):
    """The network answered with infinities or NaN."""


def _again(kind: type[PhospheneError], sentence: str) -> PhospheneError:
    error = kind.__new__(kind)
    Exception.__init__(error, sentence)
    return error
