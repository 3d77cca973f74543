"""The short form of `make soak`: a few tries of what is quick, and proof that findings are found."""

import os
from collections import Counter
from contextlib import contextmanager

import pytest

from soak import FindingError, Part
from soak.parts import PARTS
from soak.running import soak

TRIES = {"damaged folders": 6, "pictures in memory": 100, "pictures streamed": 80, "absurd headers": 15,
         "recipes' texts": 2, "weights": 15}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in PARTS if part.name in TRIES], ids=lambda part: part.name)
def test_a_short_soak_finds_nothing(part, tmp_path):
    tally = soak(part, 0, tmp_path, tries=TRIES[part.name])
    assert tally.tried == TRIES[part.name]
    assert not tally.findings
    assert tally.out


@contextmanager
def faulty(scratch):
    def attempt(chance):
        fault = chance.randrange(4)
        if fault == 0:
            raise FindingError("found")
        if fault == 1:
            os.abort()
        return Counter(["well" + (b"x" * 300_000_000)[:0].decode()]) if fault == 2 else Counter(["well"])

    yield attempt


def test_findings_are_found(tmp_path):
    """What is raised, what ends its process, and what takes too much memory; and it goes on behind each."""
    tally = soak(Part("faulty", faulty, megabytes=100), 0, tmp_path, tries=12)
    said = " ".join(tally.findings)
    assert tally.tried == 12
    assert "FindingError: found" in said
    assert "the process ended with -6" in said
    assert "MB: {" in said
    assert tally.out["well"] + len(tally.findings) >= 12


def test_a_seed_tries_the_same_again(tmp_path):
    part = next(part for part in PARTS if part.name == "pictures in memory")
    first, again, other = (soak(part, seed, tmp_path / str(n), tries=40) for n, seed in enumerate((3, 3, 4)))
    assert first.out == again.out
    assert first.out != other.out
