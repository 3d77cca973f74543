"""Keras's weights files, read for the networks of `keras`: the arrays of their layers as the tensors of ours.

Kernels are [rows, columns, in, out], and the first ones of ResNet50 and VGG19 read blue, green, red.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import WeightsMismatchError
from phosphene.networks.hdf5 import Array, Arrays, read_arrays

Named = Iterator[tuple[str, Tensor]]


def read(file: Path, architecture: str) -> dict[str, Tensor]:
    """Return the tensors of a Keras file under the names of `build`'s network; without its top, if the file has none.

    Raises `WeightsError` where it is no such file or of a layout that is not read, which is named, and
    `WeightsMismatchError` where it holds another network.
    """
    arrays = read_arrays(file)
    try:
        return dict(NAMERS[architecture](arrays))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise WeightsMismatchError(
            f"{file.name!r} does not fit keras/{architecture}: its layers are {', '.join([*arrays][:3])} ..."
        ) from error


def _convolution(kernel: Array, reads_bgr: bool = False) -> Tensor:
    """A kernel as PyTorch has it, [out, in, rows, columns]; one that reads blue, green, red is made to read RGB."""
    turned = kernel.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(turned[:, ::-1] if reads_bgr else turned))


def _linear(name: str, kernel: Array, bias: Array) -> Named:
    yield f"{name}.weight", torch.from_numpy(np.ascontiguousarray(kernel.T))
    yield f"{name}.bias", torch.from_numpy(bias)


def _norm(name: str, **values: Array) -> Named:
    for value in values:
        yield f"{name}.{value}", torch.from_numpy(np.ascontiguousarray(values[value]))


def _inception_state(arrays: Arrays) -> Named:
    """InceptionV3's layers are numbered in the order in which they were made, from any number on.

    Its batch norms do not scale.
    """
    convolutions, norms = (_by_number(arrays, kind) for kind in ("conv2d", "batch_normalization"))
    for block, (kernel,), (beta, mean, variance) in zip(inception_blocks(), convolutions, norms, strict=True):
        yield f"{block}.conv.weight", _convolution(kernel)
        ones = np.ones_like(beta)
        yield from _norm(f"{block}.bn", weight=ones, bias=beta, running_mean=mean, running_var=variance)
    if "predictions" in arrays:
        yield from _linear("fc", *arrays["predictions"])


def _by_number(arrays: Arrays, kind: str) -> list[list[Array]]:
    found = {name: re.fullmatch(rf"{kind}(?:_(\d+))?", name) for name in arrays}
    numbers = {name: int(match[1] or 0) for name, match in found.items() if match}
    return [arrays[name] for name in sorted(numbers, key=numbers.__getitem__)]


def inception_blocks() -> list[str]:
    """torchvision's 94 convolutions with their norms, in the order in which Keras makes them."""
    branches = {
        "5b 5c 5d": "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool",
        "6a": "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3",
        "6b 6c 6d 6e": "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool",
        "7a": "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4",
        "7b 7c": "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool",
    }
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    return stem + [
        f"Mixed_{block}.branch{branch}"
        for blocks, names in branches.items()
        for block in blocks.split()
        for branch in names.split()
    ]


def _resnet_state(arrays: Arrays) -> Named:
    """ResNet50's convolutions have a bias, which the norms behind them take off their means."""
    for theirs, ours, norm in _resnet_pairs():
        kernel, bias = arrays[f"{theirs}_conv"]
        gamma, beta, mean, variance = arrays[f"{theirs}_bn"]
        yield f"{ours}.weight", _convolution(kernel, reads_bgr=theirs == "conv1")
        yield from _norm(norm, weight=gamma, bias=beta, running_mean=mean - bias, running_var=variance)
    if "predictions" in arrays:
        yield from _linear("fc", *arrays["predictions"])


def _resnet_pairs() -> Iterator[tuple[str, str, str]]:
    """Keras's name of a convolution with its norm, and torchvision's of both."""
    yield "conv1", "conv1", "bn1"
    for stage, blocks in {2: 3, 3: 4, 4: 6, 5: 3}.items():
        for block in range(blocks):
            theirs, ours = f"conv{stage}_block{block + 1}", f"layer{stage - 1}.{block}"
            if block == 0:
                yield f"{theirs}_0", f"{ours}.downsample.0", f"{ours}.downsample.1"
            for number in (1, 2, 3):
                yield f"{theirs}_{number}", f"{ours}.conv{number}", f"{ours}.bn{number}"


def _vgg_state(arrays: Arrays) -> Named:
    """VGG19's first dense layer reads [rows, columns, channels], and PyTorch's [channels, rows, columns]."""
    index = 0
    for block, convolutions in enumerate((2, 2, 4, 4, 4), start=1):
        for number in range(1, convolutions + 1):
            kernel, bias = arrays[f"block{block}_conv{number}"]
            yield f"features.{index}.weight", _convolution(kernel, reads_bgr=index == 0)
            yield f"features.{index}.bias", torch.from_numpy(bias)
            index += 2
        index += 1
    if "predictions" in arrays:
        kernel, bias = arrays["fc1"]
        turned = kernel.reshape(7, 7, 512, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        yield from _linear("classifier.0", turned, bias)
        yield from _linear("classifier.3", *arrays["fc2"])
        yield from _linear("classifier.6", *arrays["predictions"])


NAMERS: Mapping[str, Callable[[Arrays], Named]] = {
    "inception_v3": _inception_state,
    "resnet50": _resnet_state,
    "vgg19": _vgg_state,
}
