"""How far float32 gradients are from float64's: ours, ours without Winograd's filtering, and plain PyTorch.

The norm of the difference over the norm of the unchanged network's gradient in float64, on a photograph of 192x256.
"score" is the same of the score. Weights are trained where a package has them, and seeded random numbers elsewhere.

    python benchmarks/rounding.py
"""

import copy

from speed_step import LAYERS, plain

from phosphene import imagefile
from phosphene.gradient import whole_image_gradient
from phosphene.job import load_network
from phosphene.models.network import Network
from phosphene.objective import Energy, Scoring
from phosphene.resample import resize
from phosphene.types import GradientFn


def ours(network: Network, layers: tuple[str, ...]) -> GradientFn:
    scoring = Scoring(tuple(Energy(*network.resolve(layer)) for layer in layers))
    return whole_image_gradient(network.features(scoring.layers), scoring)


def main() -> None:
    image = resize(imagefile.read("sample:coffee").image, (192, 256))
    print("| network | weights | way | gradient | score |\n|" + " --- |" * 5)
    for model, layers in LAYERS.items():
        weights = "pretrained" if model == "efficientnet_lite0" else "untrained"
        fast, direct = (load_network(model, weights, 0, "cpu", winograd) for winograd in (True, False))
        double = Network(fast.card, copy.deepcopy(fast.module).double(), fast.weights)
        exact_score, exact = plain(double, layers)(image.double(), (0, 0))
        ways = {
            "ours": ours(fast, layers),
            "without Winograd": ours(direct, layers),
            "plain": plain(Network(fast.card, copy.deepcopy(fast.module), fast.weights), layers),
        }
        for way, gradient_of in ways.items():
            score, gradient = gradient_of(image, (0, 0))
            off = ((gradient - exact).norm() / exact.norm()).item()
            print(f"| {model} | {weights} | {way} | {off:.1e} | {abs(score / exact_score - 1):.1e} |", flush=True)


if __name__ == "__main__":
    main()
