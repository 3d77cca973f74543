"""Weights files that are not what they should be: state dicts of every kind of nonsense, safetensors and Keras's h5."""

import io
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import safetensors.torch
import torch

from phosphene.errors import WeightsError
from phosphene.networks import registry, weights
from soak import Attempt, FindingError
from soak.mutate import mutated

MODEL = "squeezenet1_1"
KERAS = ("keras/vgg19", "keras/resnet50", "keras/inception_v3")


def twisted(state: dict[str, torch.Tensor], chance: Random) -> Any:
    """A state dict with something in it that is not as it should be."""
    name = chance.choice(list(state))
    tensor = state[name]
    other: list[Any] = [
        tensor[:1], tensor.double(), tensor.half(), tensor.to(torch.int8), tensor.to_sparse(), tensor.cfloat(),
        torch.ones(()), tensor * float("nan"), torch.empty(tensor.shape, device="meta"), tensor[None],
        torch.empty(0), None, 7, "text", [tensor], {"a": tensor}, (1, 2), torch.nn.Parameter(tensor), np.float64(1),
        torch.zeros(1).expand(2**40), torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), tensor.flatten(),
    ]  # fmt: skip
    keys: list[Any] = [1, None, (1, 2), "", "x" * 10_000, "a\nb", "\ud800", b"bytes", True, "module." + name]
    choices = [
        lambda: state | {name: chance.choice(other)},
        lambda: state | {chance.choice(keys): tensor},
        lambda: {key: value for key, value in state.items() if key != name},
        lambda: dict(reversed(state.items())),
        lambda: {"state_dict": chance.choice([state, {}, None, [], state | {name: chance.choice(other)}])},
        lambda: {"model": {"state_dict": {chance.choice(keys): tensor}}},
        lambda: {f"module.{key}": value for key, value in state.items()},
        lambda: chance.choice(other),
        lambda: {},
    ]
    return chance.choice(choices)()


@contextmanager
def weights_files(scratch: Path) -> Iterator[Attempt]:
    """A weights file is loaded, or it is said in one sentence why not."""
    card = registry.card(MODEL)
    state = dict(weights.load(card, "untrained", 1)[0].state_dict())
    small = {name: tensor[:1].clone() for name, tensor in state.items()}
    saved, safe = io.BytesIO(), safetensors.torch.save(small)
    torch.save(small, saved)
    h5 = keras_file(scratch / "whole.h5")

    def attempt(chance: Random) -> Counter[str]:
        name, way = MODEL, chance.randrange(5)
        path = scratch / ("a.pth", "a.pth", "a.safetensors", "a.h5", "a.safetensors")[way]
        if way == 0:
            try:
                torch.save(twisted(state, chance), path)
            except Exception:  # torch will not write all of them
                return Counter(["cannot be written"])
        elif way == 1:
            path.write_bytes(mutated(saved.getvalue(), chance))
        elif way == 2:
            path.write_bytes(mutated(safe, chance))
        elif way == 3:
            path.write_bytes(mutated(h5, chance) if chance.random() < 0.7 else twisted_h5(h5, scratch / "b.h5", chance))
            name = chance.choice((*KERAS, MODEL))
        else:
            path.write_bytes(struct.pack("<Q", chance.choice((0, 1, 10**6, 2**62))) + chance.randbytes(200))
        return _load(name, path)

    yield attempt


def _load(name: str, path: Path) -> Counter[str]:
    try:
        network, _ = weights.load(registry.card(name), str(path), top=False)
    except WeightsError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            raise FindingError(f"no sentence: {error}") from error
        return Counter([type(error).__name__])
    if any(tensor.is_meta for tensor in network.state_dict().values()):
        raise FindingError("a network without numbers")
    return Counter(["loaded"])


def keras_file(path: Path) -> bytes:
    """The beginning of a file as Keras writes it."""
    with h5py.File(path, "w") as root:
        names = ["block1_conv1", "block1_conv2"]
        root.attrs["layer_names"] = [name.encode() for name in names]
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.1.6"
        for name in names:
            group = root.create_group(name)
            arrays = {
                f"{name}/kernel:0": np.zeros((3, 3, 3, 64), np.float32),
                f"{name}/bias:0": np.zeros(64, np.float32),
            }
            group.attrs["weight_names"] = [key.encode() for key in arrays]
            for key, array in arrays.items():
                group[key] = array
    return path.read_bytes()


def twisted_h5(whole: bytes, path: Path, chance: Random) -> bytes:
    """A Keras file with something in it that is not as it should be."""
    path.write_bytes(whole)
    with h5py.File(path, "a") as root:
        owner = chance.choice([root, root["block1_conv1"]])
        attribute = "layer_names" if owner is root else "weight_names"
        values: list[Any] = [
            [],
            [b"nothing"],
            7,
            "text",
            [b"\xff\xfe"],
            np.zeros((2, 2)),
            [b"block1_conv1"] * 3,
            [b""],
            [b"/"],
        ]
        if chance.random() < 0.7:
            owner.attrs[attribute] = chance.choice(values)
        else:
            del owner[chance.choice(list(owner))]
        if chance.random() < 0.3:
            root["loop"] = h5py.SoftLink("/loop")
            root["away"] = h5py.ExternalLink("/etc/passwd", "/")
            root.attrs["layer_names"] = [chance.choice((b"loop", b"away"))]
    return path.read_bytes()
