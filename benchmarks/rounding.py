"""How far gradients are from float64's: ours, ours without Winograd's filtering, plain PyTorch, and half precision.

The norm of the difference over the norm of the unchanged network's gradient in float64, on each sample photograph at
192x256: the median, and the largest. "score" is the largest difference of the score. Half precision is plain PyTorch
under `torch.autocast`, with a float32 image. Weights are trained where a package has them, and seeded random numbers
elsewhere.

    python benchmarks/rounding.py
"""

import copy
import statistics

import torch
from speed_step import LAYERS, plain
from torch import Tensor

from phosphene import imagefile
from phosphene.dreaming.objective import Energy, Scoring
from phosphene.dreaming.resample import resize
from phosphene.dreaming.stages import whole_image_gradient
from phosphene.networks.network import Network
from phosphene.recipe.settings import Eye
from phosphene.setup.session import load_network
from phosphene.types import GradientFn


def ours(network: Network, layers: tuple[str, ...]) -> GradientFn:
    scoring = Scoring(tuple(Energy(*network.resolve(layer)) for layer in layers))
    return whole_image_gradient(network.features(scoring.layers), scoring)


def half(network: Network, layers: tuple[str, ...]) -> GradientFn:
    gradient_of = plain(network, layers)

    def autocast(image: Tensor, offset: tuple[int, int]) -> tuple[float, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return gradient_of(image, offset)

    return autocast


def ways_of(model: str, layers: tuple[str, ...]) -> dict[str, GradientFn]:
    """The exact way, and those that are compared with it."""
    weights = "pretrained" if model == "efficientnet_lite0" else "untrained"
    fast, direct = (load_network(Eye(model=model, weights=weights, fast=fast)) for fast in (True, False))

    def unchanged(dtype: torch.dtype) -> Network:
        return Network(fast.card, copy.deepcopy(fast.module).to(dtype), fast.weights)

    return {
        "exact": plain(unchanged(torch.float64), layers),
        "ours": ours(fast, layers),
        "not fast": ours(direct, layers),
        "plain": plain(unchanged(torch.float32), layers),
        "plain, bfloat16": half(unchanged(torch.float32), layers),
    }


def main() -> None:
    images = [resize(imagefile.read(f"sample:{name}").image, (192, 256)) for name in imagefile.SAMPLES]
    print("| network | way | gradient: median | largest | score: largest |\n|" + " --- |" * 5)
    for model, layers in LAYERS.items():
        ways = ways_of(model, layers)
        exact_of = ways.pop("exact")
        exact = [exact_of(image.double(), (0, 0)) for image in images]
        for way, gradient_of in ways.items():
            found = [gradient_of(image, (0, 0)) for image in images]
            scores, gradients = [], []
            for (score, gradient), (exact_score, exact_gradient) in zip(found, exact, strict=True):
                scores.append(abs(score / exact_score - 1))
                gradients.append(float((gradient - exact_gradient).norm() / exact_gradient.norm()))
            columns = statistics.median(gradients), max(gradients), max(scores)
            print(f"| {model} | {way} |", *(f"{column:.1e} |" for column in columns), flush=True)


if __name__ == "__main__":
    main()
