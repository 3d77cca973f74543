"""A norm of your own: from a gradient to the direction of a step. This one follows the gradient's signs alone."""

import torch

import phosphene


def signs(gradient: torch.Tensor) -> torch.Tensor:
    """Take a gradient [3, height, width], and give the direction of a step."""
    return gradient.sign()


dream = phosphene.dream("sample:coffee", norm=signs, size=96, octaves=1, steps=4)
assert dream.recipe.norm == "own:signs"
assert dream.trace.scores[-1] > dream.trace.scores[0]
phosphene.norm(signs, margin=0)  # each pixel by itself: by way of the disk it is exact too
