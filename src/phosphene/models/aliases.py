"""Layer names of the Keras networks and of the papers, as layers of torchvision's networks.

The right-hand side is a node of the traced network (`relu`, `features.1`) or a module, which means the last
node within it (`layer3.5`, `Mixed_6a`), as in torchvision.models.feature_extraction.

The layers match by place, channels and size, not by weights: Keras has its own for VGG19 and ResNet50, fed with
BGR pixels less their means, and its ResNet50 strides in a block's first convolution where torchvision's strides
in the second. VGG19's Keras convolutions include their ReLU, so their aliases are the ReLUs.
"""

from collections.abc import Mapping

# tf.keras.applications.InceptionV3: the concatenation that ends each block.
_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
INCEPTION_V3: Mapping[str, str] = {f"mixed{i}": f"Mixed_{block}" for i, block in enumerate(_MIXED)}


def _vgg19() -> dict[str, str]:
    """Walk configuration E: convolution, ReLU, convolution, ReLU, ..., pool, in one flat `features`."""
    names: dict[str, str] = {}
    index = 0
    for block, convolutions in enumerate((2, 2, 4, 4, 4), start=1):
        for conv in range(1, convolutions + 1):
            names[f"block{block}_conv{conv}"] = f"features.{index + 1}"
            index += 2
        names[f"block{block}_pool"] = f"features.{index}"
        index += 1
    return names


VGG19: Mapping[str, str] = _vgg19()

# tf.keras.applications.ResNet50, and the rows of table 1 in He et al. 2015 (`conv4.x`).
_BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
RESNET50: Mapping[str, str] = (
    {"conv1_relu": "relu", "pool1_pool": "maxpool"}
    | {f"conv{s}_block{b}_out": f"layer{s - 1}.{b - 1}" for s, blocks in _BLOCKS.items() for b in range(1, blocks + 1)}
    | {f"conv{s}.x": f"layer{s - 1}" for s in _BLOCKS}
)
