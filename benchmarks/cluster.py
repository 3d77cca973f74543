"""Seconds of a step by way of the disk, over workers of a Ray cluster on this machine, and what the driver does alone.

    python benchmarks/cluster.py MEGAPIXELS [WORKERS ...]        (0 workers: one process, one thread, no cluster)

Steps of one octave of the default look, in the stages that are chosen for so many workers of 2 GB each. The first step,
in which the workers load the network, is left out. "commit" is what no worker shares: the flush to the disk and the
journal. "driver" is the processor time of the driver, which hands out strips and tiles and sums what comes back;
without workers it is all.
"gradient" is how much of a step goes by before the gradient is there, "pixels" the norm and the step on the pixels.
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

from phosphene import cluster
from phosphene.disk import run as streaming
from phosphene.disk.run import DiskJob
from phosphene.disk.surface import Surface
from phosphene.job import prepare, run
from phosphene.malloc import keep_freed
from phosphene.recipe.spelling import choose

STEPS = 4


def measure(source: str, folder: Path, workers: int) -> list[tuple[float, ...]]:
    """Seconds of each step after the first: all, gradient, pixels, commit, and processor seconds of the driver."""
    recipe = choose({"octaves": 1, "steps": STEPS, "size": "full"})
    marks, commits, commit, pixels, step = [], [], streaming._commit, [], Surface.step

    def timed(*arguments: object) -> None:
        begun = time.perf_counter()
        commit(*arguments)
        commits.append(time.perf_counter() - begun)

    def timed_step(*arguments: object) -> object:
        begun = time.perf_counter()
        found = step(*arguments)
        pixels.append(time.perf_counter() - begun)
        return found

    streaming._commit, Surface.step = timed, timed_step
    cluster.crew = lambda address, device: (workers, 0)  # of which there are as many as this machine has processors
    try:
        output = folder / f"{workers}.dzi"  # which is written by way of the disk
        job = prepare(source, recipe, "cpu", "2GB", "local" if workers else None, output=output)
        assert isinstance(job, DiskJob)
        print(*job.notes, file=sys.stderr)
        if workers:
            job = replace(job, workers=partial(cluster.cluster_map, "local", "cpu", workers))
        run(job, lambda _: marks.append((time.perf_counter(), processor_seconds()))).save()
    finally:
        streaming._commit, Surface.step = commit, step
    return [
        (now[0] - before[0], now[0] - before[0] - on_pixels - committed, on_pixels, committed, now[1] - before[1])
        for (before, now), on_pixels, committed in zip(pairwise(marks), pixels[1:], commits[1:], strict=True)
    ]


def main(megapixels: float, *counts: int) -> None:
    torch.set_num_threads(1)
    keep_freed()
    print("| workers | a step | spread | gradient | pixels | commit | driver |\n|" + " --- |" * 7)
    with tempfile.TemporaryDirectory() as folder:
        source = photograph(megapixels, folder)
        for workers in counts or (0, 1, 2):
            steps = measure(source, Path(folder), workers)
            seconds = [step[0] for step in steps]
            columns = [statistics.median(column) for column in zip(*steps, strict=True)]
            whole, *parts = (f"{column:.2f} s" for column in columns)
            spread = f"{min(seconds):.1f} to {max(seconds):.1f} s"
            print("|", " | ".join([str(workers or "none"), whole, spread, *parts]), "|", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(int, sys.argv[2:]))
