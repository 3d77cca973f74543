"""A package that brings a network: this is its module, and its pyproject.toml says

    [project.entry-points."phosphene.models"]
    stripes = "entry_point:CARD"

    [project.entry-points."phosphene.terms"]
    vivid = "entry_point:vivid"

From then on `phosphene dream photo.jpg -o dream.png --model stripes --term vivid` works wherever it is installed.
"""

import torch
from torch import nn

from phosphene import ModelCard


def build() -> nn.Module:
    """Make the network, weights and all."""
    rng = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 7, padding=3), nn.ReLU())
    for weights in network.parameters():
        weights.data = 0.1 * torch.randn(weights.shape, generator=rng)
    return network


CARD = ModelCard(
    name="stripes",
    build=build,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    layers=("1",),
    looks={"creatures": {"layers": ("1",), "steps": 5}},
)


def vivid(activations):
    """An objective: many channels that differ."""
    return activations["1"].std(dim=(1, 2, 3))
