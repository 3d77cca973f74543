"""Seconds and memory of a gradient step, ours beside those of others, in turns in one run.

Each contestant is a process of its own that stays ready; they step in turns, after a pause in which the threads of the
one before come to rest, so that noise meets all alike. In a dream steps follow each other, so of a turn of short ones
the first, which finds the caches and the threads cold, is not counted. Ratios are of medians. The Keras tutorial's step
runs in an environment of its own, which this makes. Writes a JSON file after each size, then a table and a plot.

    python benchmarks/speed.py docs/performance
"""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from phosphene.malloc import TUNABLES

HERE = Path(__file__).parent
KERAS = HERE.parent / ".venv-keras"
MODELS = ("inception_v3", "resnet50", "vgg19", "efficientnet_lite0")
ROUNDS = {(375, 500): 7, (512, 512): 7, (1024, 1024): 5, (2048, 2048): 3}
STEPS = {(375, 500): 4, (512, 512): 4, (1024, 1024): 1, (2048, 2048): 1}
"""Of a turn; of several the first is not counted."""

OURS = ("ours", "without-", "folded", "tiled")
"""Those that have the memory as `phosphene`'s own processes have it."""

CONTESTANTS = ("ours", "folded", "plain", "keras-whole", "keras-original", "tiled", "keras-tiled", "floor")


class Contestant:
    """A process that takes a step when it is told to."""

    def __init__(self, name: str, model: str, size: tuple[int, int], folder: Path) -> None:
        keras = name.startswith("keras-")
        python = KERAS / "bin/python" if keras else sys.executable
        script = "speed_keras.py" if keras else "speed_step.py"
        command = [python, HERE / script, name.removeprefix("keras-"), model, *size, *([] if keras else [folder])]
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | ({"GLIBC_TUNABLES": TUNABLES} if name.startswith(OURS) else {}),
        )  # fmt: skip
        self.steps = STEPS[size]
        self.seconds: list[float] = []
        self.peak = 0.0
        if self._line() != "ready":
            raise SystemExit(f"{name} does not start for {model} at {size}")

    def turn(self) -> None:
        time.sleep(0.1)
        taken = [self._step() for _ in range(self.steps)]
        self.seconds += taken[1:] or taken

    def _step(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, self.peak = map(float, self._line().split())
        return seconds

    def _line(self) -> str:
        return self.process.stdout.readline().strip()

    def end(self) -> dict:
        self.process.kill()
        self.process.wait()
        return {"seconds": self.seconds, "gigabytes": self.peak}


def names_for(model: str, size: tuple[int, int]) -> list[str]:
    """The contestants for a model and size: at the largest, tiles too, and no whole vgg19, which would not fit."""
    largest, keras = size == (2048, 2048), model != "efficientnet_lite0"
    names = ["tiled"] if largest else ["folded", "plain"]
    if keras:
        names.append("keras-tiled" if largest else "keras-whole")
    if model == "resnet50" and not largest:
        names.append("keras-original")
    if not largest or model != "vgg19":
        names.insert(0, "ours")
    return [*names, "floor"]


def compare(model: str, size: tuple[int, int]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        contestants = {name: Contestant(name, model, size, Path(folder)) for name in names_for(model, size)}
        for _ in range(ROUNDS[size]):
            for contestant in contestants.values():
                contestant.turn()
        found = {name: contestant.end() for name, contestant in contestants.items()}
        if "plain" in found:
            ours, plain = (np.load(f"{folder}/{name}.npy") for name in ("ours", "plain"))
            found["plain"]["difference"] = float(np.linalg.norm(ours - plain) / np.linalg.norm(plain))
    rate = 2 * 2048**3 / statistics.median(found["floor"]["seconds"])
    found["floor"] = {"seconds": [operations(model, size) / rate], "rate": rate, "gigabytes": None}
    return found


def operations(model: str, size: tuple[int, int]) -> int:
    """Multiplications and additions of a step by direct convolution."""
    from operations import Operations
    from speed_step import LAYERS

    from phosphene.engine.rewrite import fold_batch_norms
    from phosphene.networks.graph import cut
    from phosphene.recipe.settings import Eye
    from phosphene.setup.session import load_network

    network = load_network(Eye(model=model, weights="untrained"))
    nodes = [network.resolve(layer)[0] for layer in LAYERS[model]]
    body = cut(network.module, network.graph, {name: network.nodes[name] for name in nodes})
    fold_batch_norms(body)
    small = (size[0] // 4, size[1] // 4)
    with Operations() as counted:
        image = torch.rand(1, 3, *small, requires_grad=True)
        sum(value.square().mean() for value in body.requires_grad_(False)(image).values()).backward()
    return round(counted.total * size[0] * size[1] / (small[0] * small[1]))


def table(results: dict) -> str:
    lines = ["| network | size | contestant | seconds a step | spread | time of ours | peak, GB |", "|" + " --- |" * 7]
    for key, found in results.items():
        model, size = key.split(" ")
        best = statistics.median(found["ours" if "ours" in found else "tiled"]["seconds"])
        for name in (name for name in CONTESTANTS if name in found):
            seconds = found[name]["seconds"]
            median = statistics.median(seconds)
            spread = "" if name == "floor" else f"{min(seconds):.3f} to {max(seconds):.3f}"
            peak = "" if name == "floor" else f"{found[name]['gigabytes']:.2f}"
            lines.append(f"| {model} | {size} | {name} | {median:.3f} | {spread} | {median / best:.2f}x | {peak} |")
    return "\n".join(lines)


def plot(results: dict, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(MODELS), 1, figsize=(8, 9), layout="constrained")
    for model, axis in zip(MODELS, axes, strict=True):
        bars = [
            (f"{name}, {key.split(' ')[1]}", found[name])
            for key, found in results.items() if key.startswith(model + " ")
            for name in CONTESTANTS if name in found and name != "folded"
        ]  # fmt: skip
        pixels = [math.prod(map(int, label.split(", ")[1].split("x"))) / 1e6 for label, _ in bars]
        costs = [statistics.median(f["seconds"]) / area for (_, f), area in zip(bars, pixels, strict=True)]
        colours = ["#c2410c" if label.startswith(("ours", "tiled")) else "#94a3b8" for label, _ in bars]
        axis.barh([label for label, _ in bars][::-1], costs[::-1], color=colours[::-1])
        axis.set_title(model, loc="left")
        axis.tick_params(labelsize=7)
    axes[-1].set_xlabel("seconds a step and megapixel (median)")
    figure.savefig(path)


def main(stem: Path) -> None:
    if not KERAS.exists():
        subprocess.run([sys.executable, "-m", "venv", KERAS], check=True)
        subprocess.run([KERAS / "bin/pip", "install", "--quiet", "tensorflow-cpu"], check=True)
    results: dict = {}
    for size in ROUNDS:
        for model in MODELS:
            if (size == (512, 512)) == (model == "efficientnet_lite0") or size[0] > 512:
                results[f"{model} {size[1]}x{size[0]}"] = compare(model, size)
                stem.with_suffix(".json").write_text(json.dumps(results, indent=1))
                print(model, size, flush=True)
    plot(results, stem.with_suffix(".svg"))
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    )
    print(table(results))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main(Path(sys.argv[1]))
