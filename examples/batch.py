"""Several photographs of different sizes, with one network."""

import torch

import phosphene

photographs = ["sample:coffee", torch.rand(3, 64, 96), torch.rand(3, 80, 48).permute(1, 2, 0).numpy()]
dreams = phosphene.dream_each(photographs, size=96, steps=2, octaves=1)
assert [tuple(dream.image.shape[1:]) for dream in dreams][1:] == [(64, 96), (80, 48)]
