"""What we know of a model, as data: where its weights are, how it wants its pixels, which layers dream well.

The models that we know well have a card of their own in `cards`; registry.py makes cards for the rest of torchvision
and timm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["torchvision", "timm", "package", "keras", "own"]
Channels = tuple[float, ...]
"""A number for each channel."""
Look = Mapping[str, Any]
"""Settings of a recipe, by name."""


@dataclass(frozen=True)
class ModelCard:
    """One model.

    `mean` and `std` are for RGB pixels in 0..1: the network sees `(pixel - mean) / std`. With one number each it sees
    the luma, and a fourth channel is opaque. `build` makes the network of a custom card, weights and all; other
    cards' are built by their `source` and `architecture`. `weights_url` is empty
    where nothing has to be downloaded, or nothing can be.
    `sha256` is what the file's checksum starts with, or empty where the publisher gives none, and `md5` is another
    checksum, or empty. `without_top` is the same network as it is published without the part that makes classes of
    features: a smaller file, that will do where no class is asked for. `top` is that part, a module's name, where it is
    known: it is not kept in memory then either. `layers` go from strokes to objects, and are empty where we have no
    advice. `min_side` is the smallest useful image side in
    pixels: in our own cards, the side from which the deepest of `layers` has at least 2 x 2 places.

    `aliases` are other names for layers: of the Keras networks, and of papers. Each stands for a node of the traced
    network (`relu`, `features.1`) or a module, which means the last node within it (`layer3.5`, `Mixed_6a`), as in
    torchvision.models.feature_extraction. `halos` are margins of tiles, in px by layer, that keep the error of a step
    under 1 % (`benchmarks/halo.py` measured them; all but the default network had random weights); layers that are
    missing have not been measured, or need as much as exact tiles do. `looks` are named settings that a person chooses
    without knowing a layer's name, from what the eye of a network sees first to what it sees last.
    """

    name: str
    source: Source = "own"
    architecture: str = ""
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)
    weights_file: str = ""
    weights_url: str = ""
    sha256: str = ""
    licence: str = "your own"
    parameters: int | None = None
    min_side: int = 32
    classes: int = 0
    layers: tuple[str, ...] = ()
    md5: str = ""
    without_top: "ModelCard | None" = None
    top: str = ""
    build: Callable[[], Any] | None = field(default=None, hash=False, compare=False)
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    halos: Mapping[str, int] = field(default_factory=dict, hash=False)
    looks: Mapping[str, Look] = field(default_factory=dict, hash=False)


def is_in_top(name: str, card: ModelCard) -> bool:
    """Whether a node or a tensor of the card's network, by its name, is in the top."""
    return bool(card.top) and name.split(".")[0] == card.top


IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
HALF: Channels = (0.5, 0.5, 0.5)

CAFFE_MEAN: Channels = (123.68 / 255, 116.779 / 255, 103.939 / 255)
CAFFE_STD: Channels = (1 / 255, 1 / 255, 1 / 255)
"""The means of ImageNet's colours, taken off pixels in 0..255, as Caffe's networks want them."""

TORCHVISION_LICENCE = (
    "code BSD-3-Clause (torchvision); weights trained on ImageNet, whose terms may bind them: "
    "see https://github.com/pytorch/vision#pre-trained-model-license"
)

KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"
"""Where Keras downloads its weights from."""
