"""What a dream runs on: the device, the network, and the versions that its bits depend on."""

import os
import platform
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version

import torch

from phosphene import engine, imagefile
from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.resample import resize
from phosphene.errors import SettingsError, shown
from phosphene.networks import network as networks
from phosphene.networks import registry
from phosphene.networks.card import is_in_top
from phosphene.networks.cards import installed_cards
from phosphene.networks.facts import skeleton
from phosphene.networks.network import Network
from phosphene.recipe.settings import Eye, Recipe
from phosphene.recipe.terms import LayerTerm, OwnTerm, is_installed, own_function
from phosphene.types import Image

GUIDE_SIDE = 512
"""Long side, in px, at which a guide photograph is looked at."""


def load_network(eye: Eye, seed: int = 0, device: str = "cpu", top: bool = True) -> Network:
    """Load a network; the two latest are cached until their files change, so a folder of pictures loads one once.

    `seed` is of untrained weights; for `top` see `needs_top`.
    """
    return kept_network(eye, seed, device, top, _stamp(eye.weights))


@lru_cache(maxsize=2)
def kept_network(eye: Eye, seed: int, device: str, top: bool, stamp: object) -> Network:
    """Load a network; the same one when asked again soon, with the same stamp of its file."""
    return networks.load(registry.card(eye.model), eye.weights, seed, torch.device(device), eye.fast, top)


def contents(recipe: Recipe) -> tuple[object, ...]:
    """Return what changes when a file or a function that a recipe names is replaced by another of the same name.

    It is a part of cache keys. `id` will do for a function, since the cached value keeps it alive.
    """
    functions = [id(own_function(OwnTerm.parse(text).name)) for text in recipe.terms]
    return _stamp(recipe.weights), _stamp(recipe.guide), *functions


def _stamp(path: str | None) -> tuple[int, int] | None:
    """When a file was changed, in ns, and its bytes; None where there is no file."""
    try:
        found = None if path is None else os.stat(os.path.expanduser(path))
    except (OSError, ValueError):  # as of a sample, which has no file
        return None
    return found and (found.st_mtime_ns, found.st_size)


def needs_top(recipe: Recipe) -> bool:
    """Whether a recipe raises what only the network's top has, such as a class; else that is not loaded.

    A custom function may look at anything.

    Raises `UnknownNameError` where a layer is not there.
    """
    card = registry.card(recipe.model)
    if recipe.classes or recipe.terms or not card.top:
        return True
    network = skeleton(recipe.model)
    nodes = [node for text in recipe.layers for node in network.resolve(LayerTerm.parse(text).layer)]
    return any(is_in_top(node, card) for node in nodes)


def only_here(recipe: Recipe) -> str | None:
    """Name the network or the objective of a recipe that was given in this process and that others do not have.

    Custom norms and masks are not meant: by way of the disk they go along.
    """
    if registry.card(recipe.model).source == "own" and recipe.model not in installed_cards():
        return recipe.model
    return next((name for text in recipe.terms if not is_installed(name := OwnTerm.parse(text).name)), None)


def seen_guide(recipe: Recipe, device: torch.device) -> Image | None:
    """Read a recipe's guide, at the size at which it is looked at."""
    if recipe.guide is None:
        return None
    guide = imagefile.read(recipe.guide).image
    return resize(guide, fit_within((guide.shape[1], guide.shape[2]), GUIDE_SIDE)).to(device)


def choose_device(device: str) -> torch.device:
    """Return the device by name; `auto` is CUDA if there is one, then Apple's MPS, then the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    with suppress(RuntimeError, AssertionError, TypeError, ImportError):
        found = torch.empty(0, device=device).device
        if found.type != "meta":  # where nothing is computed
            return found
    raise SettingsError(f"there is no device {shown(device)} here; auto, cpu, cuda and mps are known")


def describe_device(device: torch.device) -> str:
    """Name the device, with what the bits of a result may depend on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} {platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {name: version(name) for name in ("phosphene", "torchvision", "timm")} | engine.versions()
