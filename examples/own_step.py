"""A norm of your own: take the gradient, and climb as you like. This one follows the gradient's signs alone."""

import torch

import phosphene
from phosphene.api import ready

job = ready("sample:coffee", size=96, octaves=1)
image = job.image
for _ in range(4):
    score, gradient = job.gradient_of(image, (0, 0))
    image = (image + 0.01 * gradient.sign()).clamp(0, 1)
assert job.gradient_of(image, (0, 0))[0] > job.gradient_of(job.image, (0, 0))[0]
assert isinstance(phosphene.dream(image, size=96, steps=1).image, torch.Tensor)
