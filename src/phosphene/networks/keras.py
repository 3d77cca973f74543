"""Keras's networks: torchvision's modules with the few differences that Keras's have.

Keras's InceptionV3, ResNet50 and VGG19 have the layers of torchvision's, and weights (`kerasfile` reads them), pixels
(the cards know them) and some settings of their own: InceptionV3's average pools divide by the pixels that are there,
ResNet50 strides in the first convolution of a block and not in its second, and its batch norms have another epsilon.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from phosphene.libraries import torchvision

RESNET_EPSILON = 1.001e-5
"""Of ResNet50's batch norms; torchvision's is 1e-5."""


def build(architecture: str) -> nn.Module:
    """Return a network as Keras has it: initialised at random, in training mode."""
    return {"inception_v3": _inception_v3, "resnet50": _resnet50, "vgg19": _vgg19}[architecture]()


class _RealPixels(TorchFunctionMode):
    """Within, an average pool divides by the pixels that it sees, and not by those that the padding would add."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        counted = {"count_include_pad": False} if func is F.avg_pool2d else {}
        return func(*args, **(kwargs or {}), **counted)


def _counting_real_pixels(block: Callable[..., nn.Module]) -> Any:
    """One of torchvision's blocks, with pools as TensorFlow's `SAME` ones are."""

    class Counting(block):  # type: ignore[misc, valid-type]
        def _forward(self, x: Any) -> Any:
            with _RealPixels():
                return super()._forward(x)

    return Counting


def _inception_v3() -> nn.Module:
    blocks: Any = torchvision.models.inception
    network: nn.Module = blocks.Inception3(
        aux_logits=False,
        transform_input=False,
        init_weights=True,
        inception_blocks=[
            blocks.BasicConv2d,
            _counting_real_pixels(blocks.InceptionA),
            blocks.InceptionB,
            _counting_real_pixels(blocks.InceptionC),
            blocks.InceptionD,
            _counting_real_pixels(blocks.InceptionE),
            blocks.InceptionAux,
        ],
    )
    return network


def _resnet50() -> nn.Module:
    network: nn.Module = torchvision.models.resnet50(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = RESNET_EPSILON
    for stage in (network.layer2, network.layer3, network.layer4):
        first: Any = stage[0]  # type: ignore[index]
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    return network


def _vgg19() -> nn.Module:
    network: nn.Module = torchvision.models.vgg19(weights=None)
    return network
