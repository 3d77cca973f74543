"""The memory that a gradient takes, foretold and measured, each window in a process of its own with one thread.

Measured is the height of the resident set (VmHWM, reset before) over what was resident before. Prints a table.

    python benchmarks/memory.py
"""

import subprocess
import sys
from pathlib import Path

CASES = [
    ("efficientnet_lite0", "blocks.4.2", 512), ("efficientnet_lite0", "blocks.4.2", 1024),
    ("inception_v3", "Mixed_6c", 512), ("inception_v3", "Mixed_6c", 1024),
    ("resnet50", "layer1.2", 700), ("resnet50", "layer3.5", 512), ("resnet50", "layer3.5", 1024),
    ("vgg19", "block2_conv2", 768), ("vgg19", "block4_conv4", 384), ("vgg19", "block4_conv4", 768),
]  # fmt: skip


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure(model: str, layer: str, side: int) -> None:
    from phosphene.malloc import begin_again, give_back, keep_freed

    begin_again()
    import torch

    from phosphene.dreaming.objective import Energy, Scoring
    from phosphene.dreaming.stages import whole_image_gradient
    from phosphene.recipe.settings import Eye
    from phosphene.setup.memory import gradient_bytes
    from phosphene.setup.session import load_network

    torch.set_num_threads(1)
    keep_freed()
    network = load_network(Eye(model=model, weights="pretrained" if model == "efficientnet_lite0" else "untrained"))
    scoring = Scoring((Energy(*network.resolve(layer)),))
    features = network.features(scoring.layers)
    gradient_of = whole_image_gradient(features, scoring)
    gradient_of(torch.rand(3, 128, 128), (0, 0))
    foretold, image = gradient_bytes(features, scoring, (side, side)), torch.rand(3, side, side)
    give_back()  # as before a dream is planned
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    gradient_of(image, (0, 0))
    measured = status("VmHWM") - before
    print(f"| {model} | {layer} | {side} | {foretold / 1e6:.0f} | {measured / 1e6:.0f} | {foretold / measured:.2f} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        for case in CASES:
            subprocess.run([sys.executable, __file__, *map(str, case)], check=True)
