"""Many dreams, one after the other, of every kind that ends well or badly, in one process."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import torch

import phosphene
from phosphene.errors import PhospheneError
from soak import Attempt
from soak.pictures import corpus

DREAMS = 10
"""In a try."""


@contextmanager
def dreams(scratch: Path) -> Iterator[Attempt]:
    """What a process holds, its megabytes, threads and descriptors, is watched from outside."""
    pictures = corpus()
    options: list[dict[str, object]] = [
        {}, {"tile": 64}, {"memory": "1B"}, {"memory": "1B", "tile": 64}, {"layers": "nonsense"},
        {"layers": "blocks.4.2", "colour": "original"}, {"classes": ("tabby",)}, {"guide": "sample:coffee"},
        {"model": "squeezenet1_1", "weights": "untrained", "layers": "features.3"},
    ]  # fmt: skip

    def attempt(chance: Random) -> Counter[str]:
        out = Counter[str]()
        for number in range(DREAMS):
            source = scratch / "a"
            data = pictures[chance.choice(list(pictures))]
            source.write_bytes(data[: chance.choice((len(data), len(data), 200))])
            given = {"layers": "blocks.1.1", "octaves": 1, "steps": 1, "device": "cpu"} | chance.choice(options)
            try:
                dream = phosphene.dream(source, **given)
                dream.save(scratch / f"{number}.png", overwrite=True)
                dream.look(20)
                out["dreams"] += 1
            except PhospheneError:
                out["refused"] += 1
        stop = None
        for step in phosphene.steps(torch.rand(3, 40, 40), layers="blocks.1.1", steps=5):
            stop = step
            break
        assert stop is not None
        return out

    yield attempt
