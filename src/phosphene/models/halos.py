"""Halos that keep the error of a step under 1 %, in px, by model and layer; `benchmarks/halo.py` measured them.

Layers that are not here have not been measured, or need as much as exact tiles do: their halo is the exact one. All but
the default network had random weights.
"""

from collections.abc import Mapping

HALOS: Mapping[str, Mapping[str, int]] = {
    "efficientnet_lite0": {
        "blocks.1.1": 16,
        "blocks.2.1": 48,
        "blocks.3.2": 80,
        "blocks.4.2": 160,
        "blocks.5.3": 352,
        "blocks.6.0": 416,
    },
    "inception_v3": {"Mixed_5d": 96, "Mixed_6a": 128, "Mixed_6c": 320, "Mixed_6e": 448, "Mixed_7a": 640},
    "resnet50": {"layer1.2": 32, "layer2.3": 64, "layer3.2": 128, "layer3.5": 192, "layer4.2": 384},
    "vgg19": {"block3_conv3": 32, "block4_conv2": 64, "block4_conv4": 64, "block5_conv2": 128, "block5_conv4": 128},
}
