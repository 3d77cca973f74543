"""A frozen network whose layers can be read by name. No scores."""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from phosphene.engine import Frozen, freeze
from phosphene.errors import UnknownNameError, UsageError
from phosphene.modes import undisturbed
from phosphene.networks import weights as weight_files
from phosphene.networks.card import ModelCard
from phosphene.networks.graph import ONE_AT_A_TIME, cut, last_within, trace
from phosphene.networks.own import device_of, example_of, heard_graph, is_traced_rightly
from phosphene.types import Activation

UNSEEN = (
    "Kernel size can't be greater than",
    "Output size is too small",
    "smaller than kernel size",
    "is invalid for input of size",
    "must match the size of tensor",
    "doesn't match model",
)
"""What is said where an image, or what is left of it in some layer, is smaller than a kernel or not the size wanted."""


class Features(nn.Module):
    """Images `[batch, 3, height, width]`, pixels 0..1, to the activations of some layers, each by its node's name.

    What is given may be activations at a cut in place of pixels; they are left as they are.

    Activations come as `[batch, channels, rows, columns]`; vectors, such as logits, have one row and one column, and
    the tokens of a transformer are rows of one column.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: Frozen, card: ModelCard, has_pixels: bool = True) -> None:
        super().__init__()
        self.body, self.model, self.has_pixels = body, card.name, has_pixels
        self.register_buffer("mean", torch.tensor(card.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(card.std).view(-1, 1, 1))

    def __call__(self, images: Tensor) -> Mapping[str, Activation]:
        """Run the network as far as the deepest layer, while no other thread traces one."""
        with ONE_AT_A_TIME, undisturbed(gradients=torch.is_grad_enabled()):
            named: Mapping[str, Activation] = super().__call__(images)
            return named

    @property
    def grid(self) -> int:
        """How many units of a layer are computed together, on a side: tiles begin at multiples of it."""
        return self.body.grid

    def forward(self, images: Tensor) -> Mapping[str, Activation]:
        """Run the network as far as the deepest layer. UsageError for images of a size that it cannot see."""
        try:
            given = images
            if self.has_pixels:
                given = (in_channels(images, len(self.mean)) - self.mean) / self.std
            named: Mapping[str, Tensor] = self.body(given)
        except (RuntimeError, AssertionError) as error:
            if not any(words in str(error) for words in UNSEEN):
                raise
            size = f"{images.shape[3]} x {images.shape[2]} pixels"
            raise UsageError(
                f"{self.model} cannot see {size} in the layer asked for: "
                f"give a larger picture or another --tile, choose a layer less deep, or another model"
            ) from error
        return {name: _as_planes(value) for name, value in named.items()}


@dataclass
class Network:
    """A model's card, its weights' identity, and its traced graph; `features` reads layers from it.

    `fast` allows what is faster and rounds otherwise.
    """

    card: ModelCard
    module: nn.Module
    weights: str
    fast: bool = True
    graph: fx.Graph = field(init=False, repr=False)
    nodes: dict[str, fx.Node] = field(init=False, repr=False)
    modules: dict[str, str] = field(init=False, repr=False)
    _features: dict[tuple[str | None, ...], Features] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.module, self.graph, self.nodes = self._traced()
        self.modules = last_within(self.nodes)

    def _traced(self) -> tuple[nn.Module, fx.Graph, dict[str, fx.Node]]:
        """Trace the network; one that cannot be, or somebody's own that is not traced rightly, is heard instead."""
        with undisturbed(), ONE_AT_A_TIME:
            try:
                graph, nodes = trace(self.module)
            except UsageError:
                return heard_graph(self.module, example_of(self.card, self.module))
            if self.card.source != "own" or is_traced_rightly(self.module, graph, example_of(self.card, self.module)):
                return self.module, graph, nodes
            return heard_graph(self.module, example_of(self.card, self.module))

    @property
    def is_heard(self) -> bool:
        """Whether the network could not be traced: it is called as it is, and sees only whole images."""
        return hasattr(self.module, "heard")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return device_of(self.module)

    @property
    def logits(self) -> str:
        """The name of the last node."""
        return next(reversed(self.nodes))

    def resolve(self, layer: str) -> tuple[str, ...]:
        """Return the nodes that a layer's name, alias or shell pattern stands for, in the network's order.

        A pattern is tried on aliases, then on modules, then on nodes; the first kind that has a match is meant.
        `UnknownNameError` gives the nearest name.
        """
        for names in (self.card.aliases, self.modules, self.nodes):
            found = [name for name in names if fnmatch.fnmatchcase(name, layer)]
            if found:
                return tuple(dict.fromkeys(self._node(name) for name in found))
        raise UnknownNameError(
            f"layer of {self.card.name}",
            layer,
            [*self.card.aliases, *self.modules, *self.nodes],
            f"`phosphene layers {self.card.name}` lists them.",
        )

    @undisturbed()
    def features(self, nodes: Iterable[str], start: str | None = None) -> Features:
        """Return the network cut behind the deepest of `nodes`; the same one when asked again.

        With a `start`, a node that all paths to the others pass through, it is given that node's activations.
        """
        names = tuple(dict.fromkeys(nodes))
        if (start, *names) not in self._features:
            self._features[start, *names] = self.part(names, start)
        return self._features[start, *names]

    @undisturbed()
    def part(self, nodes: Iterable[str], start: str | None = None) -> Features:
        """Return what `features` does, made anew, and not kept."""
        begin = None if start is None else self.nodes[start]
        body = cut(self.module, self.graph, {name: self.nodes[name] for name in nodes}, begin)
        return Features(freeze(body, fast=self.fast), self.card, has_pixels=start is None).to(self.device)

    def _node(self, name: str) -> str:
        name = self.card.aliases.get(name, name)
        return self.modules.get(name, name)


@undisturbed()
def load(
    card: ModelCard, weights: str, seed: int, device: torch.device, fast: bool = True, top: bool = True
) -> Network:
    """Build a network with its weights: `pretrained`, `untrained` (seeded) or a file. Raises `WeightsError`.

    Without `top`, it may end before what makes classes of features.
    """
    with ONE_AT_A_TIME:  # torch has one random state for all threads
        module, identity = weight_files.load(card, weights, seed, top)
    return Network(card, module.to(device), identity, fast)


def in_channels(images: Tensor, channels: int) -> Tensor:
    """Return images [batch, 3, height, width] as a network wants them: as they are, their luma, or opaque besides."""
    if channels == 1:
        weights = images.new_tensor([0.299, 0.587, 0.114])  # ITU-R BT.601
        return torch.einsum("bchw,c->bhw", images, weights)[:, None]
    if channels == 4:
        return torch.cat([images, torch.ones_like(images[:, :1])], dim=1)
    return images


def _as_planes(value: Tensor) -> Tensor:
    if value.ndim == 3:
        value = value.transpose(1, 2)
    return value.reshape(*value.shape, *[1] * (4 - value.ndim))
