"""Seconds a megapixel and peak memory of a step, from 1 to 400 megapixels: whole, in memory in stages, and by disk.

Two steps of one octave of a look, each dream a process of its own with one thread, as the command line's. The second
step is measured: processor seconds (user and system), which depend less on what else runs than the clock does. The peak
is the process's (VmHWM), with Python, PyTorch, decoding and encoding in it; beside it stands what was allowed, and what
was foretold for the step besides what was held before. Photographs are scikit-image's coffee, enlarged, as TIFF.

    python benchmarks/size.py docs/size.json                                   (all of ROWS: an hour)
    python benchmarks/size.py docs/size.json LOOK WAY MEGAPIXELS ...           (some)
    python benchmarks/size.py --show docs/size.json docs/size.svg              (prints the table, and plots)

Measurements are added to those of the file; of the same row the median counts.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from peak import peak

LOOKS: dict[str, dict] = {
    "default": {"model": "efficientnet_lite0"},
    "creatures": {"model": "efficientnet_lite0", "look": "creatures"},
    "blocks.1.1": {"model": "efficientnet_lite0", "layers": ("blocks.1.1",)},
    "inception_v3": {"model": "inception_v3", "weights": "untrained", "layers": ("Mixed_5d",)},
    "resnet50": {"model": "resnet50", "weights": "untrained", "layers": ("layer3.2",)},
    "vgg19": {"model": "vgg19", "weights": "untrained", "layers": ("block4_conv2",)},
}
"""Of `efficientnet_lite0` the default look, the deepest, and the cheapest layer; of the others, untrained, a layer."""

DISK = "2GB by disk"

WAYS: dict[str, tuple[str | None, str]] = {
    "whole": (None, "none"),
    "4GB": ("4GB", "auto"),
    "2GB": ("2GB", "auto"),
    "1.5GB": ("1.5GB", "auto"),
    DISK: ("2GB", "auto"),
}
"""What is allowed, and `--tile`. By disk is asked for; the other rows go the way that the program chooses."""

ROWS = [
    *(("default", way, size) for way in ("whole", "4GB", "2GB", "1.5GB", DISK) for size in (1, 4)),
    *(("default", way, 16) for way in ("whole", "4GB", "2GB", "1.5GB", DISK)),
    *(("default", "2GB", size) for size in (24, 100, 400)),
    *((look, "whole", size) for look in list(LOOKS)[1:] for size in (1, 4)),
    *((look, "2GB", size) for look in list(LOOKS)[1:] for size in (4, 16)),
]  # fmt: skip


def photograph(megapixels: float, folder: str) -> str:
    import pyvips
    import skimage

    path = Path(folder) / "in.tif"
    coffee = pyvips.Image.new_from_file(str(Path(skimage.__file__).parent / "data" / "coffee.png"))
    length = round((megapixels * 1e6) ** 0.5)
    larger = coffee.resize(length / coffee.width, vscale=length / coffee.height, kernel="cubic")
    larger.crop(0, 0, length, length).tiffsave(str(path), compression="deflate", bigtiff=True)
    return str(path)


def processor_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def measure(look: str, way: str, source: str) -> None:
    """Dream in this process, and print what it took."""
    from phosphene.malloc import begin_again, keep_freed

    begin_again()
    import torch

    from phosphene import job as jobs
    from phosphene.recipe.spelling import choose

    torch.set_num_threads(1)
    keep_freed()
    (memory, tile), times = WAYS[way], []
    settings = {"octaves": 1, "steps": 2, "size": "full", "tile": tile} | LOOKS[look]
    recipe = choose(settings, settings.pop("look", None))
    with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as folder:
        output = Path(folder) / ("out.dzi" if way == DISK else "out.tif")  # a pyramid is written by way of the disk
        job = jobs.prepare(source, recipe, "cpu", memory, output=output)
        jobs.run(job, lambda _: times.append(processor_seconds())).save()
    print(json.dumps({"processor": times[1] - times[0], "peak": round(peak() * 1e9), "said": list(job.notes)}))


def collect(path: Path, rows: list[tuple[str, str, float]]) -> None:
    found = json.loads(path.read_text()) if path.exists() else []
    for look, way, megapixels in rows:
        with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as folder:
            source = photograph(megapixels, folder)
            command = [sys.executable, __file__, "--measure", look, way, source]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = {"look": look, "way": way, "megapixels": megapixels} | json.loads(done.stdout)
        found.append(row)
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{look}, {way}, {megapixels:g}: {row}", flush=True)


def medians(rows: list[dict]) -> Iterator[tuple[str, str, float, float, float]]:
    """Of each row its look, way, megapixels, seconds a megapixel and peak in GB."""
    for look, way, size in dict.fromkeys((row["look"], row["way"], row["megapixels"]) for row in rows):
        alike = [row for row in rows if (row["look"], row["way"], row["megapixels"]) == (look, way, size)]
        seconds, most = (statistics.median(row[column] for row in alike) for column in ("processor", "peak"))
        yield look, way, size, seconds / size, most / 1e9


def show(path: Path, target: Path) -> None:
    import matplotlib.pyplot as plt

    rows = list(medians(json.loads(path.read_text())))
    whole = {(look, size): seconds for look, way, size, seconds, _ in rows if way == "whole"}
    print(
        "| look | way | megapixels | seconds a megapixel | against whole | peak, GB |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for look, way, size, seconds, most in rows:
        largest = max((s for name, s in whole if name == look), default=None)
        against = f"{seconds / whole[look, min(size, largest)]:.2f}" if largest else ""
        print(f"| {look} | {way} | {size:g} | {seconds:.2f} | {against} | {most:.2f} |")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
    for way in WAYS:
        points = sorted(
            (size, seconds, most) for look, name, size, seconds, most in rows if (look, name) == ("default", way)
        )
        if points:
            sizes, seconds, most = zip(*points, strict=True)
            left.plot(sizes, seconds, "o-", label=way)
            right.plot(sizes, most, "o-", label=way)
    for axes, label in ((left, "processor seconds a megapixel and step"), (right, "peak memory, GB")):
        axes.set(xscale="log", xlabel="megapixels, the default look", ylabel=label, ylim=(0, None))
        axes.set_xticks((1, 4, 16, 100, 400), map("{:g}".format, (1, 4, 16, 100, 400)), minor=False)
        axes.minorticks_off()
        axes.legend()
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        measure(*sys.argv[2:])
    elif sys.argv[1] == "--show":
        show(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        chosen = [(sys.argv[2], sys.argv[3], float(size)) for size in sys.argv[4:]]
        collect(Path(sys.argv[1]), chosen or ROWS)
