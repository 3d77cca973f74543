"""Does a network see? It names the sample photographs, and we know what they show."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.networks import network as networks
from phosphene.networks import registry
from phosphene.networks.network import Network
from phosphene.types import Activation, Image

SIDE = 224

SHOWN: dict[str, set[str]] = {
    "coffee": {"espresso", "cup", "coffee mug", "eggnog"},
    "chelsea": {"tabby", "tiger cat", "Egyptian cat", "Persian cat", "Siamese cat", "lynx"},
    "rocket": {"missile", "projectile", "space shuttle"},
    "astronaut": {"space shuttle", "military uniform", "suit", "academic gown"},
}
"""ImageNet classes that are right for a sample. There is none for an astronaut: the answer is shown, and not judged."""

JUDGED = {"coffee", "chelsea", "rocket"}


@dataclass(frozen=True)
class Answer:
    """What a network says of a sample, how sure it is (0..1), and whether that is right and counts."""

    sample: str
    label: str
    probability: float
    known: bool
    counts: bool


def recognise_samples(model: str) -> list[Answer]:
    """Load a model's trained weights and return its answer for each sample photograph. Raises `WeightsError`."""
    network = networks.load(registry.card(model), "pretrained", 0, torch.device("cpu"))
    labels = registry.categories()
    return [_answer(sample, network, labels) for sample in SHOWN]


def probabilities(network: Network, image: Image) -> torch.Tensor:
    """Return a network's class probabilities for the image's middle square, at 224 px (larger if its card asks)."""
    side = max(SIDE, network.card.min_side)
    height, width = image.shape[1:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = resize(image[:, top : top + short, left : left + short], (side, side))
    with torch.no_grad():
        answers: Mapping[str, Activation] = network.features([network.logits])(square[None].to(network.device))
    return answers[network.logits].flatten().softmax(0)


def _answer(sample: str, network: Network, labels: tuple[str, ...]) -> Answer:
    sure = probabilities(network, imagefile.read(f"sample:{sample}").image)
    index = int(sure.argmax())
    return Answer(sample, labels[index], float(sure[index]), labels[index] in SHOWN[sample], sample in JUDGED)
