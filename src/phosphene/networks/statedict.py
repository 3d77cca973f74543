"""Weights files: reading one safely, and filling a network from it."""

import pickle
import re
import warnings
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from phosphene.errors import WeightsError, WeightsMismatchError
from phosphene.networks.card import ModelCard
from phosphene.networks.registry import named, skeleton

State = MutableMapping[str, Tensor]

_NESTS = ("state_dict", "model")

# torchvision's DenseNet files are older than its layers' names: `norm.1` is now `norm1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def read(file: Path) -> State:
    """Return the tensors of a .safetensors, .pth or .pt file by name, on the CPU.

    A checkpoint that nests them under `state_dict` or `model` is unwrapped, and the `module.` that parallel
    training puts before each name is taken off. No code in the file is ever run.

    Raises WeightsError where the file is of another kind, damaged, or holds more than tensors.
    """
    if file.suffix == ".safetensors":
        state = _read_safetensors(file)
    elif file.suffix in {".pth", ".pt"}:
        state = _unwrap(_read_pickle(file))
    else:
        raise WeightsError(
            f"a weights file ends in .safetensors, .pth or .pt, or in .h5 for a keras/ model, "
            f"and {file.name!r} does not."
        )
    if not _is_state(state):
        raise WeightsError(
            f"{str(file)!r} is not a weights file: it should hold plain tensors by name, as a state_dict does."
        )
    consume_prefix_in_state_dict_if_present(state, "module.")  # type: ignore[arg-type]
    for name in list(state):  # in place: torch hangs the layers' versions on this very dictionary
        state[_OLD_DENSENET.sub(r"\1\2.", name)] = state.pop(name)
    return state


def fill(network: nn.Module, state: State, card: ModelCard, file: Path) -> None:
    """Give the network the tensors of a file; a network on the meta device takes them over as they are.

    Raises WeightsMismatchError, naming the first tensors that do not fit and the model of ours that does, if any.
    """
    state = _renamed(state, network, card)
    expected = network.state_dict()
    misshaped = _misshaped(state, expected)
    if misshaped:
        missing, unexpected = _differences(state, expected)
    elif odd := [name for name in expected if name in state and _is_odd(state[name], expected[name])]:
        kind = str(state[odd[0]].dtype).removeprefix("torch.")
        raise WeightsMismatchError(f"{file.name!r} does not fit {card.name}: its {odd[0]} is of {kind}, no weights.")
    else:
        on_meta = any(tensor.is_meta for tensor in expected.values())
        # torch knows what older files may lack, such as the number of batches a norm has seen.
        missing, unexpected = network.load_state_dict(state, strict=False, assign=on_meta)
    if missing or unexpected or misshaped:
        raise WeightsMismatchError(
            f"{file.name!r} does not fit {card.name}: "
            + _and(_complaints(state, expected, missing, unexpected, misshaped))
            + _suggestion(state)
        )


def _is_state(content: Any) -> TypeGuard[State]:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and _is_plain(tensor) for name, tensor in content.items())
    )


def _is_plain(tensor: Any) -> bool:
    """Whether it is a tensor of numbers that are all there: neither sparse, quantised nor complex."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_meta or tensor.is_complex())
    )


def _read_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{str(file)!r} is not a safetensors file, or is damaged.") from error


def _read_pickle(file: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{str(file)!r} holds more than tensors, so that reading it could run code: "
            f"save only the network's state_dict, best as .safetensors."
        ) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and others on what is no weights file
        raise WeightsError(f"{str(file)!r} is not a weights file, or is damaged.") from error


def _unwrap(content: Any) -> Any:
    while isinstance(content, dict):
        nested = [content[key] for key in _NESTS if isinstance(content.get(key), dict)]
        if not nested:
            break
        content = nested[0]
    return content


def _renamed(state: State, network: nn.Module, card: ModelCard) -> State:
    """Give a packaged file's tensors the network's names: they come in the same order, under other names."""
    expected = network.state_dict()
    if card.source != "package" or _shapes(state) != _shapes(expected):
        return state
    return dict(zip(expected, state.values(), strict=True))


def _shapes(state: Mapping[str, Tensor]) -> list[torch.Size]:
    return [tensor.shape for tensor in state.values()]


def _misshaped(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    return [name for name in expected if name in state and state[name].shape != expected[name].shape]


def _is_odd(found: Tensor, wanted: Tensor) -> bool:
    """Whether it is of whole numbers where weights are wanted."""
    return wanted.is_floating_point() and not found.is_floating_point()


def _differences(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Return the names that are missing and those that are not expected, but for counters."""
    missing = [n for n in expected if n not in state and not n.endswith("num_batches_tracked")]
    return missing, [n for n in state if n not in expected]


def _complaints(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    misshaped: list[str],
) -> list[str]:
    """Say the first of each kind, with shapes."""
    said = []
    if missing:
        said.append(f"it lacks {missing[0]} {list(expected[missing[0]].shape)}")
    if unexpected:
        said.append(f"it has {_spelt(unexpected[0])} {list(state[unexpected[0]].shape)}, which the model has not")
    if misshaped:
        name = misshaped[0]
        said.append(f"its {name} is {list(state[name].shape)} where the model's is {list(expected[name].shape)}")
    return said


def _spelt(name: str) -> str:
    """A name from a file, which may be anything, for a sentence."""
    return name if name and name.isprintable() and len(name) < 200 else f"{name[:100]!r}"


def _and(phrases: list[str]) -> str:
    return ", and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def _suggestion(state: State) -> str:
    fitting = [card.name for card in named() if card.source != "keras" and _fits(state, card)]
    return f"; it fits {fitting[0]}." if fitting else "."


def _fits(state: State, card: ModelCard) -> bool:
    network = skeleton(card)
    expected = network.state_dict()
    renamed = _renamed(state, network, card)
    return not any((*_differences(renamed, expected), _misshaped(renamed, expected)))
