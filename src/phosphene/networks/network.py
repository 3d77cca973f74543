"""A frozen network whose layers can be read by name. No scores."""

import fnmatch
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from phosphene.engine import Frozen, freeze
from phosphene.errors import UnknownNameError, UsageError
from phosphene.modes import undisturbed
from phosphene.networks import weights as weight_files
from phosphene.networks.card import ModelCard
from phosphene.networks.graph import ONE_AT_A_TIME, cut, last_within, may_have_channels_last, trace
from phosphene.networks.own import device_of, example_of, frozen_copy, hooked_graph, is_traced_rightly
from phosphene.networks.receptive_field import ReceptiveField, receptive_fields_of
from phosphene.networks.sizes import as_planes, first_fitting
from phosphene.types import Activation, Size

logger = logging.getLogger(__name__)

KEPT = 8
"""Parts of a network that are kept ready, of those that were asked for last: frozen weights may be twice as large."""


class Features(nn.Module):
    """Images `[batch, 3, height, width]`, pixels 0..1, to the activations of some layers, each by its node's name.

    What is given may be activations at a cut in place of pixels; they are left as they are.

    Activations come as `[batch, channels, rows, columns]`; vectors, such as logits, have one row and one column, and
    the tokens of a transformer stand where their places are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: Frozen, card: ModelCard, has_pixels: bool = True, has_channels_last: bool = False) -> None:
        super().__init__()
        self.body, self.model, self.least, self.has_pixels = body, card.name, card.min_side, has_pixels
        self.has_channels_last = has_channels_last
        self._fitted: dict[Size, Size] = {}
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

    @property
    def nbytes(self) -> int:
        """Bytes of its weights, as they are laid out for its kernels."""
        return self.body.nbytes

    def forward(self, images: Tensor) -> Mapping[str, Activation]:
        """Run the network as far as the deepest layer.

        A network that does not take the images' size looks at them resized to one that it takes. `UsageError` where
        there is none.
        """
        given = (images.shape[2], images.shape[3])
        if not self.has_pixels:
            return self._as_planes(self.body(images), len(images), given)
        fitted, named = first_fitting(
            lambda size: self._at(images, size), self._fitted.get(given, given), self.model, self.least
        )
        if fitted != given and given not in self._fitted:
            logger.warning(
                "%s does not take %d x %d px; it looks at the picture resized to %d x %d",
                *(self.model, *reversed(given), *reversed(fitted)),
            )
            self._fitted[given] = fitted
        return self._as_planes(named, len(images), fitted)

    def _as_planes(self, named: Mapping[str, Tensor], images: int, size: Size) -> dict[str, Tensor]:
        return {name: as_planes(value, images, size, self.has_channels_last) for name, value in named.items()}

    def _at(self, images: Tensor, size: Size) -> Mapping[str, Tensor]:
        if size != images.shape[2:]:
            images = nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
        named: Mapping[str, Tensor] = self.body((in_channels(images, len(self.mean)) - self.mean) / self.std)
        return named


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
    _fields: dict[str | None, Mapping[fx.Node, ReceptiveField | None]] = field(
        init=False, repr=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        self.module, self.graph, self.nodes = self._traced()
        self.modules = last_within(self.nodes)

    def _traced(self) -> tuple[nn.Module, fx.Graph, dict[str, fx.Node]]:
        """Trace the network. One that cannot be, or a custom one whose trace gives other results, is read by hooks."""
        is_own = self.card.source == "own"
        with undisturbed(), ONE_AT_A_TIME:
            network = frozen_copy(self.module) if is_own else self.module  # as it is before it is traced
            try:
                graph, nodes = trace(self.module)
            except UsageError:
                return hooked_graph(network, example_of(self.card, network))
            if not is_own or is_traced_rightly(network, self.module, graph, example_of(self.card, network)):
                return self.module, graph, nodes
            return hooked_graph(network, example_of(self.card, network))

    @property
    def is_hooked(self) -> bool:
        """Whether the network could not be traced: it is called as it is, and sees only whole images."""
        return hasattr(self.module, "hooked")

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
            "`phosphene.layers` lists them."
            if self.card.source == "own"
            else f"`phosphene layers {self.card.name}` lists them.",
        )

    @undisturbed()
    def features(self, nodes: Iterable[str], start: str | None = None) -> Features:
        """Return the network cut behind the deepest of `nodes`; the same one when asked again soon.

        With a `start`, a node that all paths to the others pass through, it is given that node's activations.
        """
        names = tuple(dict.fromkeys(nodes))
        found = self._features.pop((start, *names), None) or self.part(names, start)
        self._features[start, *names] = found
        if len(self._features) > KEPT:
            del self._features[next(iter(self._features))]
        return found

    @undisturbed()
    def part(self, nodes: Iterable[str], start: str | None = None, is_frozen: bool = True) -> Features:
        """Return what `features` does, made anew, and not kept; as PyTorch computes it, if it is not frozen."""
        begin = None if start is None else self.nodes[start]
        body = cut(self.module, self.graph, {name: self.nodes[name] for name in nodes}, begin)
        frozen = freeze(body, fast=self.fast, stride=self._stride(begin)) if is_frozen else Frozen(body)
        return Features(frozen, self.card, start is None, may_have_channels_last(body)).to(self.device)

    def receptive_fields(self, start: str | None = None) -> Mapping[fx.Node, ReceptiveField | None]:
        """Return how far nodes see; with a `start`, how far those behind it see of its units."""
        if start not in self._fields:
            self._fields[start] = receptive_fields_of(self.module, self.graph, self.nodes[start] if start else None)
        return self._fields[start]

    def _stride(self, node: fx.Node | None) -> int:
        """How many px a step from one of a node's units to the next is; of all of the image where it sees that."""
        seen = None if node is None else self.receptive_fields()[node]
        return max(seen.stride) if seen else 1

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
