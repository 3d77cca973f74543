"""Seconds and peak memory a megapixel, from 0.25 to 100 megapixels: whole, in tiles, and streamed by way of the disk.

One step of one octave of efficientnet_lite0's blocks.1.1 with the default norm, and tiles of 512 px with their exact
halo. Each measurement is a process of its own with one thread. Its peak is the process's (VmHWM), with Python, PyTorch
and the network in it. Its times are the step's alone, with Numba loaded before: by the clock, and of the processors
(user and system), which depends less on what else runs. Streamed runs decode and encode a TIFF too: that is in their
peak, and not in their times. Photographs are scikit-image's coffee, enlarged.

    python benchmarks/size.py size.json [whole|tiled|streamed MEGAPIXELS ...]
    python benchmarks/size.py --plot size.json docs/size.svg      (needs matplotlib)

Measurements are added to those of the file, and plotted by their medians.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peak import peak

SIZES = {"whole": (0.25, 1, 4), "tiled": (0.25, 1, 4, 16), "streamed": (0.25, 1, 4, 16, 100)}
SETTINGS = {"layers": ("blocks.1.1",), "octaves": 1, "steps": 1, "size": "full"}


def side(megapixels: float) -> int:
    return round((megapixels * 1e6) ** 0.5)


def photograph(megapixels: float, folder: str) -> str:
    import pyvips
    import skimage

    path = Path(folder) / "in.tif"
    coffee = pyvips.Image.new_from_file(str(Path(skimage.__file__).parent / "data" / "coffee.png"))
    length = side(megapixels)
    larger = coffee.resize(length / coffee.width, vscale=length / coffee.height, kernel="cubic")
    larger.crop(0, 0, length, length).tiffsave(str(path), compression="deflate", bigtiff=True)
    return str(path)


def processor_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def measure(kind: str, megapixels: float) -> None:
    """Run in a process of its own, and print the result."""
    from phosphene.malloc import begin_again, keep_freed

    begin_again()
    import torch

    from phosphene.engine import prepare
    from phosphene.job import prepare as make
    from phosphene.job import run
    from phosphene.recipe.settings import Recipe

    torch.set_num_threads(1)
    keep_freed()
    prepare((1024, 1024), torch.device("cpu"))
    times: list[tuple[float, float]] = []

    with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as folder:
        source, recipe = sys.argv[4], Recipe(**SETTINGS, tile="none" if kind == "whole" else 512)
        if kind == "streamed":
            from phosphene.disk import run as streaming

            decode = streaming._decode
            started: list[float] = []

            def decoding(*arguments) -> None:
                decode(*arguments)
                started.append(processor_seconds())

            streaming._decode = decoding
            job = make(source, recipe, "cpu", "1B", output=Path(folder) / "out.tif")
            run(job, lambda step: times.append((step.seconds, processor_seconds() - started[0]))).save()
        else:
            job = make(source, recipe, "cpu")
            start = processor_seconds()
            run(job, lambda step: times.append((step.seconds, processor_seconds() - start)))
    (seconds, processor), load = times[0], os.getloadavg()[0]
    row = {"kind": kind, "megapixels": megapixels, "seconds": seconds, "processor": processor}
    print(json.dumps(row | {"peak": round(peak() * 1e9), "load": load}))


def collect(path: Path, chosen: dict[str, tuple[float, ...]]) -> None:
    rows = json.loads(path.read_text()) if path.exists() else []
    for kind, sizes in chosen.items():
        for megapixels in sizes:
            with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as folder:
                source = photograph(megapixels, folder)
                command = [sys.executable, __file__, "--measure", kind, str(megapixels), source]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout))
            path.write_text(json.dumps(rows, indent=1))
            row = rows[-1]
            print(
                f"| {kind} | {megapixels:g} | {row['seconds'] / megapixels:.2f} | "
                f"{row['processor'] / megapixels:.2f} | {row['peak'] / 1e9:.2f} | {row['load']:.1f} |",
                flush=True,
            )


def median(rows: list[dict], kind: str, megapixels: float, column: str) -> float:
    chosen = [row[column] for row in rows if (row["kind"], row["megapixels"]) == (kind, megapixels)]
    return statistics.median(chosen)


def plot(path: Path, target: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
    rows = json.loads(path.read_text())
    for kind in SIZES:
        sizes = sorted({row["megapixels"] for row in rows if row["kind"] == kind})
        left.plot(sizes, [median(rows, kind, size, "processor") / size for size in sizes], "o-", label=kind)
        right.plot(sizes, [median(rows, kind, size, "peak") / 1e9 for size in sizes], "o-", label=kind)
    for axes, label in ((left, "processor seconds a megapixel"), (right, "peak memory, GB")):
        axes.set(xscale="log", xlabel="megapixels", ylabel=label, ylim=(0, None))
        axes.set_xticks(SIZES["streamed"], map("{:g}".format, SIZES["streamed"]), minor=False)
        axes.minorticks_off()
        axes.legend()
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        measure(sys.argv[2], float(sys.argv[3]))
    elif sys.argv[1] == "--plot":
        plot(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        wanted = {sys.argv[2]: tuple(map(float, sys.argv[3:]))} if len(sys.argv) > 2 else SIZES
        collect(Path(sys.argv[1]), wanted)
