"""Scores of activations: small named classes that print and pickle. Higher is better; no optimiser, no device.

A score has a `field`: one number for each unit of its layer. Its value is weight x the mean of the field over the
layer's units, or over the one unit at its position. A layer may be seen whole or through a `View` of a part; what the
views of a partition say adds up to what the whole says, which is what makes exact tiles possible.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.exact_sums import sums_of_squares, total
from phosphene.errors import UsageError
from phosphene.recipe.own import blamed_on
from phosphene.types import Activation

TINY = 1e-30
LAST = 1 - 1e-6
"""The position of the last row or column; 1 itself would wrap around to the first."""

MATCHED = 1024
"""Units that are compared with all of a guide's at a time."""

Field = Float[Tensor, "batch field_channels rows columns"]


@dataclass(frozen=True)
class View:
    """Which part of a layer an activation is.

    `origin` is the whole layer's index of the activation's first unit and `whole` the whole layer's rows and columns.
    `rows` and `columns`, start and stop, cut out the units that are this view's own; the others are there for their
    gradient.
    `shift` is the image's roll, as fractions of its height and width.
    """

    whole: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    rows: tuple[int, int | None] = (0, None)
    columns: tuple[int, int | None] = (0, None)
    shift: tuple[float, float] = (0.0, 0.0)

    def own(self, field: Field) -> Float[Tensor, "batch field_channels own_rows own_columns"]:
        """The part of a field that is this view's own."""
        return field[:, :, slice(*self.rows), slice(*self.columns)]


@dataclass(frozen=True)
class Score(ABC):
    """Base of the scores: a layer, the channels of it that count (none: all), a position, and a weight."""

    layer: str
    channels: tuple[int, ...] = ()
    position: tuple[float, float] | None = None
    weight: float = 1.0

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that are looked at."""
        return (self.layer,)

    def of(self, activations: Mapping[str, Activation], views: Mapping[str, View]) -> tuple[Tensor, Tensor]:
        """Return what the score says of the layers that it looks at."""
        return self(activations[self.layer], views[self.layer])

    @abstractmethod
    def field(self, activation: Activation) -> Field:
        """One number for each unit, whose mean is the score."""

    def __call__(self, activation: Activation, view: View) -> tuple[Tensor, Tensor]:
        """Return two scalars, without the weight: the window's share of the mean, to differentiate, and the tile's."""
        field = self.field(self.chosen(activation))
        if self.position is None:
            share = 1 / (field.shape[0] * field.shape[1] * view.whole[0] * view.whole[1])
            return field.sum() * share, view.own(field).sum() * share
        row, column = _unit_at(self.position, view)
        here = torch.zeros_like(field)
        if 0 <= row < field.shape[2] and 0 <= column < field.shape[3]:
            here[:, :, row, column] = 1 / (field.shape[0] * field.shape[1])
        return (field * here).sum(), view.own(field * here).sum()

    def chosen(self, activation: Activation) -> Float[Tensor, "batch chosen_channels rows columns"]:
        """The channels that count."""
        return activation[:, list(self.channels)] if self.channels else activation


class Energy(Score):
    """Mean of the squared activation, `l2`: raises what is strong already (Google's deepdream notebook)."""

    def field(self, activation: Activation) -> Field:
        """Square of each unit."""
        return activation.square()


class Mean(Score):
    """Mean of the activation (TensorFlow's and Keras's tutorials)."""

    def field(self, activation: Activation) -> Field:
        """Each unit as it is; a class logit is a layer of one unit."""
        return activation


@dataclass(frozen=True, eq=False)
class Match(Score):
    """Draws each position towards the guide's feature that fits it best by dot product.

    The guided objective of Google's deepdream notebook: with a the activation and g the guide's features, the mean of
    max_j a_i . g_j, whose gradient at position i is the feature that won. Over the number of channels, as a mean is.
    """

    guide: Float[Tensor, "channels positions"] | None = None

    def field(self, activation: Activation) -> Field:
        """Dot product of each position with its best match, over the channels."""
        guide = self._chosen_guide(activation)
        vectors = activation.flatten(2)
        best = torch.stack([_best_match(part, guide) for part in vectors.detach()])
        products = vectors * guide[:, best].movedim(1, 0)
        return products.mean(1, keepdim=True).reshape(len(activation), 1, *activation.shape[2:])

    def _chosen_guide(self, like: Tensor) -> Tensor:
        if self.guide is None:
            raise TypeError("a Match needs its guide's features")
        return self.guide[list(self.channels)].to(like) if self.channels else self.guide.to(like)


@dataclass(frozen=True, eq=False)
class ChannelMatch(Score):
    """Raises each channel as much as the guide has of it: the mean of w_c a_c, w the guide's channel sums over their L1
    norm times the number of channels (crowsonkb's deep_dream)."""

    guide: Float[Tensor, "channels positions"] | None = None

    def field(self, activation: Activation) -> Field:
        """Each unit times its channel's weight."""
        if self.guide is None:
            raise TypeError("a ChannelMatch needs its guide's features")
        sums = (self.guide[list(self.channels)] if self.channels else self.guide).sum(1).to(activation)
        weights = sums / sums.abs().mean().clamp_min(1e-30)
        return activation * weights[:, None, None]


@dataclass(frozen=True, eq=False)
class Own(Score):
    """A custom function, from activations by layer to a number for each image; `layer` is its name.

    It sees whole activations: no part of them has a part of its score. `nodes` are the network's names of the layers
    that it asks for.
    """

    function: Callable[[Mapping[str, Any]], Any] = len
    nodes: Mapping[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the function asks for."""
        return tuple(self.nodes.values())

    def of(self, activations: Mapping[str, Activation], views: Mapping[str, View]) -> tuple[Tensor, Tensor]:
        """Return the function's number, twice."""
        with blamed_on(f"{self.layer}, an objective of your own"):
            found = self.function({name: activations[node] for name, node in self.nodes.items()})
        number = _number(found, self.layer)
        if found.grad_fn is None and any(activations[node].requires_grad for node in self.layers):
            raise UsageError(f"{self.layer}, an objective of your own, gave a number that depends on no activation")
        return number, number

    def field(self, activation: Activation) -> Field:
        """There is none."""
        raise TypeError(f"{self.layer} is a function of whole activations")


def _mean_of_all(activations: Mapping[str, Activation]) -> Tensor:
    return torch.stack([activation.mean() for activation in activations.values()]).sum()


def asked_for(
    function: Callable[[Mapping[str, Any]], Any], name: str, look: Callable[[str], tuple[str, Activation]]
) -> dict[str, str]:
    """Try a custom function, and return the nodes of the layers that it asks for, by the names that it uses.

    `look` gives a layer's node and some activation of it. Raises `UsageError` where the function fails, asks for none,
    or gives no number.
    """
    asked = _Asked(look)
    with blamed_on(f"{name}, an objective of your own"):
        number = function(asked)
    _number(number, name)
    if not asked.nodes:
        raise UsageError(f"{name}, an objective of your own, looks at no layer, so there is nothing to raise")
    return asked.nodes


class _Asked(dict[str, Any]):
    """Activations that are computed when they are asked for; `nodes` are those that were."""

    def __init__(self, look: Callable[[str], tuple[str, Activation]]) -> None:
        super().__init__()
        self.look, self.nodes = look, dict[str, str]()

    def __missing__(self, layer: str) -> Activation:
        self.nodes[layer], activation = self.look(layer)
        self[layer] = activation
        return activation


def _number(found: Any, name: str) -> Tensor:
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UsageError(f"{name}, an objective of your own, gave {shape} for one image; it should be one number")
    number: Tensor = found.reshape(())
    return number


@dataclass(frozen=True)
class Scoring:
    """What is raised, ready to be evaluated: scores, and whether each one's gradient is scaled to unit norm."""

    scores: tuple[Score, ...]
    balanced: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that are looked at, each once."""
        return tuple(dict.fromkeys(layer for score in self.scores for layer in score.layers))

    @property
    def whole(self) -> tuple[str, ...]:
        """The names of scores that see whole activations, so that no tile has a part of them."""
        return tuple(score.layer for score in self.scores if isinstance(score, Own))

    @property
    def gradients(self) -> int:
        """How many gradients are needed: one, or one for each term when they are balanced."""
        return len(self.scores) if self.balanced else 1

    @property
    def on_paper(self) -> "Scoring":
        """The same where only shapes are known: custom functions, which may ask for numbers, are means."""
        scores = [replace(each, function=_mean_of_all) if isinstance(each, Own) else each for each in self.scores]
        return replace(self, scores=tuple(scores))

    def gradients_of(self, layers: Collection[str]) -> tuple[int, ...]:
        """The numbers of the gradients that some layers have a say in."""
        terms = tuple(number for number, score in enumerate(self.scores) if {*score.layers} & {*layers})
        return terms if self.balanced else terms[:1] and (0,)

    def __call__(
        self, activations: Mapping[str, Activation], views: Mapping[str, View]
    ) -> tuple[list[Tensor | None], list[Tensor]]:
        """Return what to differentiate, one scalar for each of `gradients`, and the scores of the terms, weighted.

        Layers may be missing: terms of those score zero, and where only they count there is nothing to differentiate.
        """
        none = next(iter(activations.values())).new_zeros(())
        targets: list[Tensor | None] = []
        own = []
        for score in self.scores:
            here = activations.keys() >= set(score.layers)
            everything, mine = score.of(activations, views) if here else (none, none)
            targets.append(score.weight * everything if here else None)
            own.append(score.weight * mine.detach())
        return (targets if self.balanced else [_sum(targets)]), own

    def combine(self, gradients: Float[Tensor, "terms 3 height width"]) -> Float[Tensor, "3 height width"]:
        """Add up the terms' gradients; balanced, each is first scaled to the norm of its weight."""
        counted = gradients[: len(gradients) if self.balanced else 0]
        return self.weigh(gradients, [total([sums_of_squares(gradient).tolist()]) for gradient in counted])

    def weigh(
        self, gradients: Float[Tensor, "terms 3 height width"], squares: Sequence[float]
    ) -> Float[Tensor, "3 height width"]:
        """Add up the terms' gradients, or a part of them, given the sum of squares of each term's whole gradient."""
        if not self.balanced:
            return gradients[0]
        factors = [abs(s.weight) / max(sqrt(square), TINY) for s, square in zip(self.scores, squares, strict=True)]
        combined = factors[0] * gradients[0]
        for factor, gradient in zip(factors[1:], gradients[1:], strict=True):
            combined += factor * gradient
        return combined


def _sum(targets: Sequence[Tensor | None]) -> Tensor | None:
    known = [target for target in targets if target is not None]
    return torch.stack(known).sum() if known else None


def _unit_at(position: tuple[float, float], view: View) -> tuple[int, int]:
    """The unit at a place of the photograph, as an index into the view, wherever the image was rolled to."""
    row, column = (
        int((min(place, LAST) + shift) % 1 * length) - start
        for place, shift, length, start in zip(position, view.shift, view.whole, view.origin, strict=True)
    )
    return row, column


def _best_match(vectors: Tensor, guide: Tensor) -> Tensor:
    """Index of the guide's position with the largest dot product, for each of `vectors` [channels, positions]."""
    return torch.cat([(part.T @ guide).argmax(1) for part in torch.split(vectors, MATCHED, dim=1)])
