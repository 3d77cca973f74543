"""Seconds of a step by way of the disk, over workers of a Ray cluster on this machine, and what the driver does alone.

    python benchmarks/cluster.py MEGAPIXELS [WORKERS ...]        (0 workers: one process, one thread, no cluster)

Steps of one octave of efficientnet_lite0's blocks.1.1 with the default norm and tiles of 512 px. The first step, in
which the workers load the network, is left out. "commit" is what no worker shares: the flush to the disk and the
journal. "driver" is the processor time of the driver, which hands out strips and tiles and sums what comes back.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from size import photograph, processor_seconds

from phosphene.cluster import cluster_map
from phosphene.disk import run as streaming
from phosphene.disk.run import DiskJob
from phosphene.job import prepare, run
from phosphene.malloc import keep_freed
from phosphene.recipe.settings import Recipe

STEPS = 4


def measure(source: str, folder: Path, workers: int) -> list[tuple[float, float, float]]:
    """Seconds of each step after the first: by the clock, in the commit, and of the driver's processor."""
    recipe = Recipe(layers=("blocks.1.1",), octaves=1, steps=STEPS, size="full", tile=512)
    marks, commits, commit = [], [], streaming._commit

    def timed(*arguments: object) -> None:
        begun = time.perf_counter()
        commit(*arguments)
        commits.append(time.perf_counter() - begun)

    streaming._commit = timed
    try:
        job = prepare(source, recipe, "cpu", "1B", output=folder / f"{workers}.tif")
        assert isinstance(job, DiskJob)
        if workers:
            job = replace(job, workers=partial(cluster_map, "local", "cpu", workers))
        run(job, lambda _: marks.append((time.perf_counter(), processor_seconds()))).save()
    finally:
        streaming._commit = commit
    return [
        (now[0] - before[0], committed, now[1] - before[1])
        for (before, now), committed in zip(pairwise(marks), commits[1:], strict=True)
    ]


def main(megapixels: float, *counts: int) -> None:
    torch.set_num_threads(1)
    keep_freed()
    print("| workers | a step | spread | commit | driver |\n|" + " --- |" * 5)
    with tempfile.TemporaryDirectory() as folder:
        source = photograph(megapixels, folder)
        for workers in counts or (0, 1, 2):
            steps = measure(source, Path(folder), workers)
            seconds = [step[0] for step in steps]
            columns = [statistics.median(column) for column in zip(*steps, strict=True)]
            print(
                f"| {workers or 'none'} | {columns[0]:.1f} s | {min(seconds):.1f} to {max(seconds):.1f} s | "
                f"{columns[1]:.2f} s | {columns[2]:.2f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(int, sys.argv[2:]))
