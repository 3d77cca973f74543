"""A network of your own, with one channel: it sees the luma of the photograph, and is left as it was."""

import torch
from torch import nn

import phosphene

network = nn.Sequential(
    nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(0.5)
)
network.train()  # yours may be in training: a frozen copy dreams

dream = phosphene.dream("sample:coffee", model=network, mean=(0.5,), std=(0.25,), layers="2", size=128, steps=4)
assert network.training
assert torch.isfinite(dream.image).all()
