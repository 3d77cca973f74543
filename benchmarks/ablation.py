"""What each part of the engine is worth: a step without it, beside the whole engine's, in turns in one run.

A part is a pass over the graph, an algorithm of a convolution, the zeros that are passed over, or the memory that is
kept. Above 1 the step is slower, or takes more memory, without it. Prints a table of those without which the gradient's
bits are others, or more than three quarters of the steps slower, or faster. What it finds of parts that a network does
not have is the noise.

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
    lines = []
    for name in names[1:]:
        low, middle, high = quartiles(found[name]["seconds"], found["ours"]["seconds"])
        if low <= 1 <= high and np.array_equal(gradients[name], gradients["ours"]):
            continue
        peaks = found[name]["gigabytes"] / found["ours"]["gigabytes"]
        part = name.removeprefix("without-")
        lines.append(f"| {model} | {part} | {middle:.2f}x | {low:.2f}x to {high:.2f}x | {peaks:.2f}x |")
    return lines


def quartiles(seconds: list[float], ours: list[float]) -> list[float]:
    """Of the ratios of steps that were taken in the same turn, so that a clock that drifts meets both alike."""
    return statistics.quantiles(np.divide(seconds, ours).tolist(), n=4)


if __name__ == "__main__":
    print("| network | without | time | half of the steps | peak |\n| --- | --- | --- | --- | --- |")
    for model in MODELS:
        size = (512, 512) if model == "efficientnet_lite0" else (375, 500)
        for first in range(0, len(PARTS), TOGETHER):
            print(*compare(model, size, PARTS[first : first + TOGETHER]), sep="\n", flush=True)
