"""Start-up: seconds of a whole `phosphene dream` of one step, of its imports, and of each further picture of a folder.

Medians of commands run one after the other. The picture is 128 px and has one octave and one step, so nearly all of
the first command is start-up. "network" is its set-up after the weights are read: traced, cut, folded and frozen.

    python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = Path(sys.executable).with_name("phosphene")
QUICK = ("--size", "128", "--octaves", "1", "--steps", "1", "--overwrite")
TIMES, PICTURES = 3, 5
LIBRARIES = ("torch", "torch; import torchvision", "torch; import torchvision, timm", "torch; import phosphene.job")
SETUP = """
import time, torch
from phosphene.networks import registry, weights
from phosphene.networks.network import Network
card = registry.card("efficientnet_lite0")
module, identity = weights.load(card, "pretrained", 0)
begun = time.perf_counter()
network = Network(card, module, identity)
network.features(network.resolve("blocks.4.2"))
print(time.perf_counter() - begun)
"""


def seconds(*command: str | Path) -> float:
    def once() -> float:
        begun = time.perf_counter()
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        return time.perf_counter() - begun

    return statistics.median(once() for _ in range(TIMES))


def main() -> None:
    empty = seconds(sys.executable, "-c", "")
    for library in LIBRARIES:
        print(f"| import {library} | {seconds(sys.executable, '-c', f'import {library}') - empty:.2f} |", flush=True)
    setup = [float(subprocess.check_output([sys.executable, "-c", SETUP])) for _ in range(TIMES)]
    print(f"| network | {statistics.median(setup):.2f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        one = seconds(COMMAND, "dream", "sample:coffee", "-o", f"{folder}/dream.png", *QUICK)
        (photographs := Path(folder, "photographs")).mkdir()
        for number in range(PICTURES):
            subprocess.run([COMMAND, "dream", "sample:coffee", "-o", photographs / f"{number}.png", *QUICK], check=True)
        many = seconds(COMMAND, "dream", photographs, "-o", f"{folder}/dreams", *QUICK)
    print(f"| one picture | {one:.2f} |\n| each further picture | {(many - one) / (PICTURES - 1):.2f} |")


if __name__ == "__main__":
    main()
