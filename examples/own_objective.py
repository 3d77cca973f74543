"""An objective of your own: a function of activations, more is better. Here a layer is to be the same left and right."""

import phosphene
from phosphene import layer


def symmetry(activations):
    """Take activations [batch, channels, rows, columns] by layer, and give a number for each image."""
    seen = activations["blocks.3.2"]
    return -(seen - seen.flip(3)).square().mean((1, 2, 3))


dream = phosphene.dream("sample:coffee", layers=layer("blocks.4.2") + 2 * phosphene.term(symmetry), size=128, steps=3)
assert dream.recipe.terms == ("symmetry:2",)
