"""A mask and a schedule of your own: where to dream, and how strongly from step to step."""

import numpy as np

import phosphene


def vignette(height: int, width: int) -> np.ndarray:
    """Dream in the middle, and fade to the edges."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.exp(-3 * (x**2 + y**2))


def fading(octave: int, step: int) -> float:
    """Take strong strokes first, in each octave."""
    return 0.02 / step


dream = phosphene.dream("sample:coffee", mask=vignette, step_size=fading, size=128, octaves=2, steps=4)
changed = (dream.image - dream.photograph).abs().mean(0)
assert changed[40:45, 60:68].mean() > 10 * changed[:3, :3].mean()
assert dream.recipe.schedules == ("step_size=0.02,0.01,0.00666667,0.005",)
