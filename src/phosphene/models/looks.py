"""Looks: named settings that a person chooses without knowing a layer's name, for each of our models.

The names go from what the eye of a network sees first to what it sees last. Looks of `efficientnet_lite0` were chosen
by eye from contact sheets; those of the other three use the layers and strengths that other dreamers publish (their
weights were not at hand), and await the same care.
"""

from collections.abc import Mapping
from typing import Any

from phosphene.errors import UnknownNameError

Look = Mapping[str, Any]

DEFAULT_LOOK = "creatures"

LOOKS: dict[str, dict[str, Look]] = {
    "efficientnet_lite0": {
        "strokes": {"layers": ("blocks.2.1",), "step_size": 0.006},
        "engraving": {"layers": ("blocks.3.2",), "norm": "mean_abs", "step_size": 0.012},
        "rings": {"layers": ("blocks.3.2",), "step_size": 0.012},
        "agate": {"layers": ("blocks.3.2", "blocks.4.0"), "balanced": True},
        "silk": {"layers": ("blocks.4.2",), "score": "mean"},
        "eyes": {"layers": ("blocks.4.2",)},
        "creatures": {"layers": ("blocks.4.2", "blocks.5.1")},
        "orchard": {"layers": ("blocks.5.1",)},
    },
    "inception_v3": {
        "strokes": {"layers": ("Mixed_5b",)},
        "scales": {"layers": ("Mixed_5d",)},
        "rings": {"layers": ("Mixed_6a",)},
        "creatures": {"layers": ("Mixed_6a", "Mixed_6c")},
        "animals": {"layers": ("Mixed_6c",)},
        "objects": {"layers": ("Mixed_6e",)},
    },
    "resnet50": {
        "strokes": {"layers": ("layer1.2",)},
        "weave": {"layers": ("layer2.1",)},
        "rings": {"layers": ("layer2.3",)},
        "eyes": {"layers": ("layer3.2",)},
        "creatures": {"layers": ("layer3.5",)},
        "objects": {"layers": ("layer4.2",)},
    },
    "vgg19": {
        "strokes": {"layers": ("block2_conv2",)},
        "weave": {"layers": ("block3_conv3",)},
        "rings": {"layers": ("block4_conv2",)},
        "eyes": {"layers": ("block4_conv4",)},
        "creatures": {"layers": ("block5_conv2",)},
        "objects": {"layers": ("block5_conv4",)},
    },
}


def look(model: str, name: str | None) -> Look:
    """Return a model's look by name, or its default; models without looks have an empty default.

    Raises `UnknownNameError` with the nearest name.
    """
    known = LOOKS.get(model, {})
    if name is None:
        return known.get(DEFAULT_LOOK, {})
    if name not in known:
        hint = f"{model} has the looks {', '.join(known)}." if known else f"{model} has no looks: name a layer."
        raise UnknownNameError(f"look of {model}", name, known, hint)
    return known[name]
