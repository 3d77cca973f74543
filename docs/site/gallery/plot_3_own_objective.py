"""
An objective of your own
========================

Any function of activations joins the algebra. This one wants a layer to be the same left and right.
"""

import matplotlib.pyplot as plt

import phosphene
from phosphene import layer, term


def symmetry(activations):
    seen = activations["blocks.3.2"]
    return -(seen - seen.flip(3)).square().mean((1, 2, 3))


figure, places = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for place, wanted in zip(places, (layer("blocks.4.2"), layer("blocks.4.2") + 5 * term(symmetry)), strict=True):
    dream = phosphene.dream("sample:coffee", layers=wanted, size=192, octaves=2, steps=8)
    place.imshow(dream.image.permute(1, 2, 0))
    place.set_title(str(wanted))
    place.axis("off")
