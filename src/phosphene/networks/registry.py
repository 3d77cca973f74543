"""From a model's name to its card, and from a card to a network without weights.

A name is that of a card (`keras/vgg19`), a classification model of torchvision (`googlenet`), or `timm/` and a model of
timm, with or without its tag (`timm/convnext_tiny`, `timm/resnet50.tv_in1k`). One's own have a name once introduced.
"""

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib import import_module
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from phosphene.errors import SettingsError, UnknownNameError, UsageError
from phosphene.networks import keras
from phosphene.networks.card import HALF, TORCHVISION_LICENCE, ModelCard
from phosphene.networks.cards import CARDS, known_cards
from phosphene.networks.own import checksum, frozen_copy, own_card, unwrapped

# What torchvision's constructors need so that they fit the weights and take our normalisation. `init_weights`
# is their own initialisation, said aloud because they warn when it is not.
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": False, "aux_logits": True, "init_weights": True},
    "inception_v3": {"transform_input": False, "aux_logits": True, "init_weights": True},
    "vit_h_14": {"image_size": 518},
}

# torchvision's transform_input is on for both: their weights want (pixel - 0.5) / 0.5.
_HALF_NORMALISED = {"googlenet", "inception_v3"}


MOST_INTRODUCED = 8
"""Custom networks that are held at a time: the last ones."""

_introduced: dict[str, ModelCard] = {}


def introduce(model: Any, mean: Iterable[float] | None = None, std: Iterable[float] | None = None) -> str:
    """Return the name of a network that a person gives, and know it by that name.

    A string is a name already; one such as `package.module:callable` is imported, and what it names is a module, a card
    or a function that makes one of them. A module's frozen copy is held, under a name of its class and a checksum; it
    sees `(pixel - mean) / std`. Nothing is imported for a name that a picture or a page brings along.
    """
    if isinstance(model, str):
        if mean is not None or std is not None:
            raise UsageError(f"mean and std are for a module of your own; {model} has its own")
        if ":" in model:
            _keep(_imported(model))
        return model
    mean, std = _channels(mean), _channels(std)
    if std and 0 in std:
        raise UsageError(f"std is {list(std)}; pixels are divided by it, so it has no 0")
    if mean and std and len(mean) != len(std):
        raise UsageError(f"mean has {len(mean)} numbers and std {len(std)}; each has one for each channel")
    module = unwrapped(model)
    sort = checksum(module) if not (mean or std) else f"{checksum(module)}{mean}{std}"
    name = f"own/{type(module).__name__}-{sha256(sort.encode()).hexdigest()[:8]}"
    if name not in _introduced:
        _keep(own_card(module, name, mean, std))
    return name


def _keep(card: ModelCard) -> None:
    _introduced[card.name] = card
    for name in list(_introduced)[:-MOST_INTRODUCED]:
        del _introduced[name]


def _channels(numbers: Iterable[float] | None) -> tuple[float, ...] | None:
    try:
        found = None if numbers is None else tuple(map(float, numbers))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{numbers!r} is no mean or std: it has a number for each channel") from error
    if not all(map(isfinite, found or ())):
        raise SettingsError(f"{list(found or ())} is no mean or std: its numbers are finite")
    return found


def _imported(spelled: str) -> ModelCard:
    """Return the card of what `package.module:callable` names; the working folder is looked into as well."""
    place, _, name = spelled.partition(":")
    sys.path.append("")
    try:
        found: Any = import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
        if not isinstance(found, nn.Module | ModelCard):
            found = found()
    except Exception as error:  # it is other people's code
        raise UsageError(
            f"{spelled!r} could not be imported ({type(error).__name__}: {error}); a network of your own is spelt "
            f"package.module:callable"
        ) from error
    finally:
        with suppress(ValueError):  # the last one is ours; the module may have added others, or taken it away
            del sys.path[-1 - sys.path[::-1].index("")]
    if isinstance(found, ModelCard):
        return replace(found, name=spelled)
    module = unwrapped(found)
    mean, std = (_channels(getattr(module, name, None)) for name in ("mean", "std"))
    return own_card(module, spelled, mean, std)


def named() -> tuple[ModelCard, ...]:
    """Return the cards written by hand, ours and others'; the default model's is the first."""
    return tuple(known_cards().values())


def known_names() -> list[str]:
    """Return the names that `card` takes, our own first. timm's come without their tags, which it takes too."""
    from phosphene.libraries import timm

    theirs = [name for name in _torchvision_names() if name not in CARDS]
    return [*known_cards(), *_introduced] + theirs + [f"timm/{name}" for name in timm.list_models()]


def card(name: str) -> ModelCard:
    """Return the card of a model.

    Raises UnknownNameError, with the nearest of all known names, where there is no such model.
    """
    if name in CARDS or name in known_cards():
        return CARDS[name]
    if name in _introduced:
        return _introduced[name]
    if name.startswith("own/") or ":" in name:
        raise UsageError(
            f"{name} is a custom network that this process does not hold: give it again, as model (--model)"
        )
    if name in _torchvision_names():
        return _torchvision_card(name)
    if name.startswith("timm/") and _is_timm_model(name.removeprefix("timm/")):
        return _timm_card(name)
    raise UnknownNameError("model", name, known_names())


def build(card: ModelCard) -> nn.Module:
    """Return the card's network as its constructor leaves it: initialised at random, in training mode.

    A custom network has its weights.
    """
    if card.build is not None:
        return frozen_copy(card.build())
    if card.source == "torchvision":
        from phosphene.libraries import torchvision

        network: nn.Module = torchvision.models.get_model(
            card.architecture, weights=None, **_OPTIONS.get(card.architecture, {})
        )
        return network
    if card.source == "keras":
        return keras.build(card.architecture)
    return build_timm(card.architecture)


def skeleton(card: ModelCard) -> nn.Module:
    """Return the card's network on the meta device, in no time and memory: tensors have shapes, and no values.

    A custom network is as it is, and so is one that computes with tensors while it is built (RegNet).
    """
    if card.build is not None:
        return build(card)
    with suppress(NotImplementedError), torch.device("meta"), _Uninitialised():
        return build(card)
    with torch.random.fork_rng(devices=[]):  # which its numbers are drawn from
        return build(card)


class _Uninitialised(TorchFunctionMode):
    """Leaves tensors as they are made. Else PyTorch's compiler would be imported to initialise them on paper."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        keywords = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else keywords["tensor"]
        return func(*args, **keywords)


def build_timm(architecture: str, **options: Any) -> nn.Module:
    """Build a timm model, one that takes images of any size where it can be told to (vision transformers)."""
    from phosphene.libraries import timm

    try:
        return timm.create_model(architecture, dynamic_img_size=True, **options)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return timm.create_model(architecture, **options)


@cache
def categories() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes, in the order of the networks' logits."""
    from phosphene.libraries import torchvision

    return tuple(torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def class_index(name_or_number: str) -> int:
    """Return the logit of an ImageNet class, from its number (0 to 999) or its name in any case.

    Raises UnknownNameError with the nearest names, and UsageError where two classes share a name.
    """
    wanted = name_or_number.strip()
    if wanted.isdecimal():
        number = wanted.lstrip("0") or "0"
        if len(number) < 5 and int(number) < len(categories()):
            return int(number)
        raise UsageError(f"there is no class number {wanted}: ImageNet's classes are 0 to {len(categories()) - 1}.")
    matches = [i for i, category in enumerate(categories()) if category.lower() == wanted.lower()]
    if not matches:
        raise UnknownNameError("class", name_or_number, [category.lower() for category in categories()])
    if len(matches) > 1:
        raise UsageError(f"two classes are called {wanted!r}: give {' or '.join(map(str, matches))} instead.")
    return matches[0]


@cache
def _torchvision_names() -> list[str]:
    from phosphene.libraries import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def _torchvision_card(name: str) -> ModelCard:
    from phosphene.libraries import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    preprocessing = weights.transforms()
    file = PurePosixPath(weights.url).name
    return ModelCard(
        name=name,
        source="torchvision",
        architecture=name,
        mean=HALF if name in _HALF_NORMALISED else tuple(preprocessing.mean),
        std=HALF if name in _HALF_NORMALISED else tuple(preprocessing.std),
        weights_file=file,
        weights_url=weights.url,
        sha256=_checksum_in(file),
        licence=f"see {weights.meta['license']}" if "license" in weights.meta else TORCHVISION_LICENCE,
        parameters=weights.meta["num_params"],
        min_side=max(32, *weights.meta["min_size"]),
        classes=len(weights.meta["categories"]),
    )


def _checksum_in(file: str) -> str:
    """Return the hexadecimal after the last dash of a file name, as torch.hub reads it, or nothing."""
    from torch.hub import HASH_REGEX

    match = HASH_REGEX.search(file)
    return match.group(1) if match else ""


def _is_timm_model(name: str) -> bool:
    from phosphene.libraries import timm

    return bool(timm.is_model_pretrained(name) if "." in name else timm.is_model(name))


def _timm_card(name: str) -> ModelCard:
    from phosphene.libraries import timm

    architecture = name.removeprefix("timm/")
    cfg: Any = timm.get_pretrained_cfg(architecture)
    url = _hub_url(cfg.hf_hub_id, cfg.hf_hub_filename) if cfg.hf_hub_id else cfg.url
    file = PurePosixPath(url).name
    smallest = cfg.min_input_size or (cfg.input_size if cfg.fixed_input_size else (3, 32, 32))
    return ModelCard(
        name=name,
        source="timm",
        architecture=architecture,
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        weights_file=file,
        weights_url=url,
        sha256=_checksum_in(file),
        licence=cfg.license or f"not stated: see {cfg.origin_url or 'the publisher of the weights'}",
        parameters=None,
        min_side=max(smallest[1:]),
        classes=cfg.num_classes,
    )


def _hub_url(repository: str, file: str | None) -> str:
    return f"https://huggingface.co/{repository}/resolve/main/{file or 'model.safetensors'}"
