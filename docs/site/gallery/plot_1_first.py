"""
A first dream
=============

A photograph, and what the default network dreams in it.
"""

import matplotlib.pyplot as plt

import phosphene

dream = phosphene.dream("sample:coffee", size=256, octaves=3, steps=8)
figure, (before, after) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
before.imshow(dream.photograph.permute(1, 2, 0))
after.imshow(dream.image.permute(1, 2, 0))
for place in (before, after):
    place.axis("off")
