"""ResNet50 of torchvision, with the layer names of Keras's and of its paper's table 1."""

from phosphene.networks.card import IMAGENET_MEAN, IMAGENET_STD, TORCHVISION_LICENCE, ModelCard

# tf.keras.applications.ResNet50, and the rows of table 1 in He et al. 2015 (`conv4.x`). The layers match by place,
# channels and size, not by weights: Keras has its own, fed with BGR pixels less their means, and strides in a block's
# first convolution where torchvision strides in the second.
_BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
_ALIASES = (
    {"conv1_relu": "relu", "pool1_pool": "maxpool"}
    | {f"conv{s}_block{b}_out": f"layer{s - 1}.{b - 1}" for s, blocks in _BLOCKS.items() for b in range(1, blocks + 1)}
    | {f"conv{s}.x": f"layer{s - 1}" for s in _BLOCKS}
)

# Our choice: IMAGENET1K_V1. The V2 weights classify better, but the features that dreams are known by, the
# report's among them, come from the plain training recipe.
CARD = ModelCard(
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
    top="fc",
    layers=("layer1.2", "layer2.3", "layer3.2", "layer3.5", "layer4.2"),
    aliases=_ALIASES,
    halos={"layer1.2": 32, "layer2.3": 64, "layer3.2": 128, "layer3.5": 192, "layer4.2": 384},
    looks={
        "strokes": {"layers": ("layer1.2",)},
        "weave": {"layers": ("layer2.1",)},
        "rings": {"layers": ("layer2.3",)},
        "eyes": {"layers": ("layer3.2",)},
        "creatures": {"layers": ("layer3.5",)},
        "objects": {"layers": ("layer4.2",)},
    },
)
