"""VGG19 of torchvision, with the layer names of Keras's."""

from phosphene.networks.card import IMAGENET_MEAN, IMAGENET_STD, TORCHVISION_LICENCE, ModelCard


def _aliases() -> dict[str, str]:
    """Walk configuration E: convolution, ReLU, convolution, ReLU, ..., pool, in one flat `features`.

    Keras's convolutions include their ReLU, so their names stand for the ReLUs. Its weights are others.
    """
    names: dict[str, str] = {}
    index = 0
    for block, convolutions in enumerate((2, 2, 4, 4, 4), start=1):
        for conv in range(1, convolutions + 1):
            names[f"block{block}_conv{conv}"] = f"features.{index + 1}"
            index += 2
        names[f"block{block}_pool"] = f"features.{index}"
        index += 1
    return names


CARD = ModelCard(
    name="vgg19",
    source="torchvision",
    architecture="vgg19",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    weights_file="vgg19-dcbb9e9d.pth",
    weights_url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    sha256="dcbb9e9d",
    licence=TORCHVISION_LICENCE,
    parameters=143_667_240,
    min_side=32,
    classes=1000,
    top="classifier",
    layers=("block2_conv2", "block3_conv3", "block4_conv2", "block4_conv4", "block5_conv2", "block5_conv4"),
    aliases=_aliases(),
    halos={"block3_conv3": 32, "block4_conv2": 64, "block4_conv4": 64, "block5_conv2": 128, "block5_conv4": 128},
    looks={
        "strokes": {"layers": ("block2_conv2",)},
        "weave": {"layers": ("block3_conv3",)},
        "rings": {"layers": ("block4_conv2",)},
        "eyes": {"layers": ("block4_conv4",)},
        "creatures": {"layers": ("block5_conv2",)},
        "objects": {"layers": ("block5_conv4",)},
    },
)
