"""
What each layer sees
====================

The same photograph, with a layer raised at a time: from strokes to animals.
"""

import matplotlib.pyplot as plt

import phosphene

layers = ("blocks.1.1", "blocks.2.1", "blocks.3.2", "blocks.5.1")
figure, places = plt.subplots(2, 2, figsize=(8, 5.6), layout="constrained")
for place, layer in zip(places.flat, layers, strict=True):
    dream = phosphene.dream("sample:chelsea", layers=layer, size=192, octaves=2, steps=8)
    place.imshow(dream.image.permute(1, 2, 0))
    place.set_title(layer)
    place.axis("off")
