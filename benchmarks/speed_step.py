"""One contestant of `speed.py`: prepares a step, says `ready`, and for each line on standard input takes one.

    python speed_step.py ours|without-PART|folded|tiled|plain|floor MODEL HEIGHT WIDTH FOLDER

A step is the gradient of the mean squared activations of some layers, over its standard deviation, times 0.01, added
and clamped. `ours` takes it of the whole image, `without-PART` without one of `PARTS` of the engine, `folded` without
frozen convolutions, `tiled` in tiles of 512 px without a halo, as the Keras tutorial does, `plain` through the whole
network as torchvision or timm made it. `floor` multiplies two matrices of 2048 x 2048. Weights are seeded random
numbers, the same for all; each writes its first gradient into FOLDER.
"""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peak import peak
from torch import fx

from phosphene.dreaming.objective import Energy, Scoring
from phosphene.engine import Frozen, Tuning, conv, freeze, rewrite
from phosphene.engine.rewrite import fold_batch_norms
from phosphene.malloc import keep_freed
from phosphene.networks import network as networks
from phosphene.networks.network import Network
from phosphene.recipe.settings import Eye, Recipe
from phosphene.setup.builders import gradient_fn
from phosphene.setup.session import load_network
from phosphene.types import GradientFn

LAYERS = {
    "inception_v3": ("Mixed_6a", "Mixed_6c"),
    "resnet50": ("layer3.5",),
    "vgg19": ("features.28",),
    "efficientnet_lite0": ("blocks.4.2", "blocks.5.1"),
}

ALGORITHMS = ("FusedGemm", "Winograd", "SubpixelStem")
PASSES = (
    "swap_pool_and_1x1", "freeze_clamps", "freeze_pools", "merge_1x1_siblings", "fuse_grad_accumulation",
    "find_owned_grads", "fuse_depthwise",
)  # fmt: skip
PARTS = (*ALGORITHMS, *PASSES, "skipping_zeros", "keep_freed")
"""Of the engine; an algorithm goes with those that are made of it."""


def ours(network: Network, layers: tuple[str, ...], tile: str | int) -> GradientFn:
    scoring = Scoring(tuple(Energy(*network.resolve(layer)) for layer in layers))
    return gradient_fn(network, scoring, Recipe(tile=tile, halo=0))


def plain(network: Network, layers: tuple[str, ...]) -> GradientFn:
    """As in pytorch-deepdream: hooks on an unchanged network, which is run to its end."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (network.card.mean, network.card.std))
    activations = {}
    for layer in layers:
        module = network.module.get_submodule(layer)
        module.register_forward_hook(lambda _, __, out, layer=layer: activations.update({layer: out.clone()}))
    for module in network.module.modules():
        if hasattr(module, "inplace"):
            module.inplace = True  # as it was before it was traced

    def gradient_of(image, _):
        image = image.clone().requires_grad_(True)
        network.module(((image - mean) / std)[None])
        score = sum(activation.square().mean() for activation in activations.values())
        return float(score), torch.autograd.grad(score, image)[0]

    return gradient_of


def folded(body: fx.GraphModule, **_) -> Frozen:
    """In place of `freeze`: batch norms folded, channels last, and PyTorch's convolutions."""
    fold_batch_norms(body)
    return Frozen(body).eval().requires_grad_(False).to(memory_format=torch.channels_last)


def leave_out(part: str) -> None:
    """Do without a pass, an algorithm and those that are made of it, or the zeros that are passed over."""
    rewrite.PASSES = tuple(each for each in rewrite.PASSES if each.__name__ != part)
    conv.ALGORITHMS = tuple(each for each in conv.ALGORITHMS if not each.__name__.startswith(part))
    if part == "skipping_zeros":
        networks.freeze = partial(freeze, tuning=Tuning(skip_zeros_below=0.0))


def prepare(contestant: str, model: str) -> GradientFn:
    network = load_network(Eye(model=model, weights="untrained"), top=contestant == "plain")
    if contestant == "plain":
        return plain(network, LAYERS[model])
    part = contestant.removeprefix("without-")
    leave_out(part)
    if part != "keep_freed":
        keep_freed()
    if contestant == "folded":
        networks.freeze = folded
    return ours(network, LAYERS[model], 512 if contestant == "tiled" else "none")


def main(contestant: str, model: str, height: int, width: int, folder: Path) -> None:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    if contestant == "floor":
        a = torch.randn(2048, 2048)
        step = lambda image: (torch.mm(a, a), image)[1]  # noqa: E731
    else:
        gradient_of = prepare(contestant, model)
        np.save(folder / f"{contestant}.npy", gradient_of(image, (0, 0))[1].numpy())

        def step(image):
            _, gradient = gradient_of(image, (0, 0))
            return gradient.div_(gradient.std()).mul_(0.01).add_(image).clamp_(0, 1)

    step(image)
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        image = step(image)
        print(time.perf_counter() - begun, peak(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
