"""What each part of the engine is worth: a step without it, beside the whole engine's, in turns in one run.

A part is a pass over the graph, an algorithm of a convolution, the zeros that are passed over, or the memory that is
kept. Above 1 the step is slower, or takes more memory, without it. Prints a table.

    python benchmarks/ablation.py
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
from speed import MODELS, ROUNDS, Contestant
from speed_step import PARTS

TOGETHER = 4
"""Parts that take turns with the whole engine in one run; each is a process of up to 2 GB."""


def compare(model: str, size: tuple[int, int], parts: tuple[str, ...]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        names = ["ours", *(f"without-{part}" for part in parts)]
        contestants = {name: Contestant(name, model, size, Path(folder)) for name in names}
        for _ in range(ROUNDS[size]):
            for contestant in contestants.values():
                contestant.turn()
        found = {name: contestant.end() for name, contestant in contestants.items()}
        gradients = {name: np.load(f"{folder}/{name}.npy") for name in names}
    best, whole = found["ours"], gradients["ours"]
    lines = []
    for name in names[1:]:
        if not differs(best, found[name]) and np.array_equal(gradients[name], whole):
            continue
        times = statistics.median(found[name]["seconds"]) / statistics.median(best["seconds"])
        peaks = found[name]["gigabytes"] / best["gigabytes"]
        lines.append(f"| {model} | {name.removeprefix('without-')} | {times:.2f}x | {peaks:.2f}x |")
    return lines


def differs(ours: dict, other: dict) -> bool:
    """Whether a step without a part takes another time or other memory, by more than the noise."""
    times = statistics.median(other["seconds"]) / statistics.median(ours["seconds"])
    return abs(times - 1) > 0.02 or abs(other["gigabytes"] / ours["gigabytes"] - 1) > 0.02


if __name__ == "__main__":
    print("| network | without | time | peak |\n| --- | --- | --- | --- |")
    for model in MODELS:
        size = (512, 512) if model == "efficientnet_lite0" else (375, 500)
        for first in range(0, len(PARTS), TOGETHER):
            print(*compare(model, size, PARTS[first : first + TOGETHER]), sep="\n", flush=True)
