"""Faults on purpose, again and again, from a seed: `make soak` tries for hours, the tests for seconds.

A part of it is a `Part`: in a folder of its own it makes ready what it needs, and gives a function that tries once. The
random numbers that it is given say what it tries, and it says what came out in a few words, each with a count. Anything
that is raised is a finding, and so is a try that takes too long, too much memory, or its process with it.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random

Attempt = Callable[[Random], Counter[str]]


@dataclass(frozen=True)
class Part:
    """A kind of fault; `seconds` and `megabytes` are what one try may take."""

    name: str
    ready: Callable[[Path], AbstractContextManager[Attempt]]
    seconds: float = 60
    megabytes: int = 2000
    share: float = 1
    may_grow: int = 200
    """Megabytes that the process may have grown by, from its fifth try to its last."""


class FindingError(AssertionError):
    """What should not have come out."""
