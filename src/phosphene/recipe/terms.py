"""What to raise: terms with + - and *, as people spell them. Pure data: no tensors, no network.

A layer term is spelt `NAME[CHANNELS]@ROW,COLUMN:WEIGHT`, all but the name optional: `mixed3`, `mixed5:0.5`,
`mixed4[12,40]:-1`, `blocks.4.2@0.5,0.25`. The name may be a shell pattern. A position is a fraction of the
image's height and width, so that it means the same place at every size. A class term is `NAME:WEIGHT`.

The algebra is a flat sum: a weight multiplies each term once, and `a - b` is a minus b.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any

from phosphene.errors import SettingsError, UnknownNameError, shown

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
LAYER = re.compile(
    rf"(?P<layer>[^\s:@]+?)(?:\[(?P<channels>\d+(?:,\d+)*)\])?"
    rf"(?:@(?P<row>{NUMBER}),(?P<column>{NUMBER}))?(?::(?P<weight>{NUMBER}))?"
)
CUT = re.compile(r"(?P<layer>[^\s:@]+?)(?::(?P<tile>[1-9]\d*))?")
CLASS = re.compile(rf"(?P<label>[^:]+?)(?::(?P<weight>{NUMBER}))?")


OwnFunction = Callable[[Mapping[str, Any]], Any]
"""Activations by layer to a number for each image."""

OWN: dict[str, OwnFunction] = {}
"""The objectives that were given in this process, by name."""


@dataclass(frozen=True)
class LayerTerm:
    """The activation of a layer: all of it, some channels, or the units at one position."""

    layer: str
    channels: tuple[int, ...] = ()
    position: tuple[float, float] | None = None
    weight: float = 1.0

    def __str__(self) -> str:
        channels = f"[{','.join(map(str, self.channels))}]" if self.channels else ""
        position = f"@{self.position[0]:g},{self.position[1]:g}" if self.position else ""
        return f"{self.layer}{channels}{position}{_spell_weight(self.weight)}"

    @classmethod
    def parse(cls, text: str) -> "LayerTerm":
        """Read the spelling that `str` writes; a `SettingsError` says what is wrong with it."""
        found = LAYER.fullmatch(text.strip())
        if found is None:
            raise SettingsError(
                f"{text!r} is not a layer term; one is spelt NAME, NAME:WEIGHT, NAME[CHANNEL,...] "
                f"or NAME@ROW,COLUMN, as in mixed4[12,40]:-1"
            )
        channels = tuple(int(c) for c in found["channels"].split(",")) if found["channels"] else ()
        position = (float(found["row"]), float(found["column"])) if found["row"] else None
        if position and not all(0 <= fraction <= 1 for fraction in position):
            raise SettingsError(f"the position in {text!r} is a fraction of height and width, each 0 to 1")
        return cls(found["layer"], channels, position, float(found["weight"] or 1))


@dataclass(frozen=True)
class ClassTerm:
    """The logit of an ImageNet class, by name or number."""

    label: str
    weight: float = 1.0

    def __str__(self) -> str:
        return f"{self.label}{_spell_weight(self.weight)}"

    @classmethod
    def parse(cls, text: str) -> "ClassTerm":
        """Read the spelling that `str` writes; a `SettingsError` says what is wrong with it."""
        found = CLASS.fullmatch(text.strip())
        if found is None:
            raise SettingsError(f"{text!r} is not a class term; one is spelt NAME or NAME:WEIGHT")
        return cls(found["label"], float(found["weight"] or 1))


@dataclass(frozen=True)
class Cut:
    """A layer at which a network is cut in stages, and the side in px of the tiles of the stage that begins there.

    It is spelt `NAME` or `NAME:TILE`; without a tile, that stage looks at everything at once.
    """

    layer: str
    tile: int | None = None

    def __str__(self) -> str:
        return self.layer if self.tile is None else f"{self.layer}:{self.tile}"

    @classmethod
    def parse(cls, text: str) -> "Cut":
        """Read the spelling that `str` writes; a `SettingsError` says what is wrong with it."""
        found = CUT.fullmatch(text.strip())
        if found is None:
            raise SettingsError(f"{text!r} is not a cut; one is spelt NAME or NAME:TILE, as in blocks.2.1:1024")
        return cls(found["layer"], int(found["tile"]) if found["tile"] else None)


@dataclass(frozen=True)
class OwnTerm:
    """A custom objective, by its name; see `term`."""

    name: str
    weight: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}{_spell_weight(self.weight)}"

    @classmethod
    def parse(cls, text: str) -> "OwnTerm":
        """Read the spelling that `str` writes; a `SettingsError` says what is wrong with it."""
        found = CLASS.fullmatch(text.strip())
        if found is None:
            raise SettingsError(f"{text!r} is not a term of your own; one is spelt NAME or NAME:WEIGHT")
        return cls(found["label"], float(found["weight"] or 1))


Term = LayerTerm | ClassTerm | OwnTerm

KINDS: dict[str, type[LayerTerm] | type[ClassTerm] | type[OwnTerm]] = {
    "layers": LayerTerm,
    "classes": ClassTerm,
    "terms": OwnTerm,
}
"""The kinds of terms, by the setting that holds them."""

SINGULAR = {"layers": "layer", "classes": "class", "terms": "term", "cuts": "cut", "schedules": "schedule"}
"""What a setting is called where one is given at a time: on the command line, and in a sweep."""


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms; higher is better, and the sign never flips."""

    terms: tuple[Term, ...]

    def __add__(self, other: "Objective | OwnFunction") -> "Objective":
        return Objective(self.terms + _as_objective(other).terms)

    def __radd__(self, other: "OwnFunction") -> "Objective":
        return _as_objective(other) + self

    def __sub__(self, other: "Objective | OwnFunction") -> "Objective":
        return self + -_as_objective(other)

    def __neg__(self) -> "Objective":
        return -1 * self

    def __mul__(self, factor: float) -> "Objective":
        if not isinstance(factor, int | float):
            raise SettingsError(f"an objective is multiplied by a number, and not by {shown(factor)}")
        return Objective(tuple(replace(term, weight=float(factor) * term.weight) for term in self.terms))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))

    @property
    def settings(self) -> dict[str, tuple[str, ...]]:
        """The terms as a recipe has them: as spelt, by the setting of their kind."""
        return {name: tuple(str(t) for t in self.terms if isinstance(t, kind)) for name, kind in KINDS.items()}


def layer(name: str) -> Objective:
    """All of a layer, or of each layer that a shell pattern matches."""
    return Objective((LayerTerm(name),))


def channel(name: str, *channels: int) -> Objective:
    """Some channels of a layer, counted from 0."""
    return Objective((LayerTerm(name, channels),))


def neuron(name: str, channel: int, row: float, column: float) -> Objective:
    """One channel at one position, given in fractions of the image's height and width."""
    return Objective((LayerTerm(name, (channel,), (row, column)),))


def label(name: str | int) -> Objective:
    """The logit of an ImageNet class, by name or number."""
    return Objective((ClassTerm(str(name)),))


def term(function: OwnFunction, name: str | None = None) -> Objective:
    """A custom objective: any function from activations to a number for each image.

    It is given a mapping from names of layers, aliases included, to activations [batch, channels, rows, columns] and
    returns a tensor [batch], or one number; more is better. Its name, which a recipe keeps, is the function's own, or
    `name`. It is given whole activations, so only the layers before its own are tiled. A later function of the same
    name replaces it.
    """
    name = str(name or getattr(function, "__name__", ""))
    if not re.fullmatch(r"[\w.-]+", name):
        raise SettingsError(
            f"{name!r} is no name for an objective: give one of letters and digits, as in "
            f"phosphene.term(mine, 'bright')"
        )
    OWN[name] = function
    return Objective((OwnTerm(name),))


def own_function(name: str) -> OwnFunction:
    """Return the function of a custom term, of this process or of an installed package.

    Raises `UnknownNameError` where there is none.
    """
    entries = {entry.name: entry for entry in entry_points(group="phosphene.terms")}
    if name not in OWN and name in entries:
        OWN[name] = entries[name].load()
    if name not in OWN:
        raise UnknownNameError(
            "term", name, [*OWN, *entries], "A term of your own is a function that is given again: phosphene.term."
        )
    return OWN[name]


def is_installed(name: str) -> bool:
    """Whether a custom term is what an installed package brings, which every process here has."""
    entries = entry_points(group="phosphene.terms", name=name)
    return any(own_function(name) is entry.load() for entry in entries)


def _as_objective(other: "Objective | OwnFunction") -> Objective:
    if not isinstance(other, Objective) and not callable(other):
        raise SettingsError(f"an objective or a function is added to an objective, and not {shown(other)}")
    return other if isinstance(other, Objective) else term(other)


def _spell_weight(weight: float) -> str:
    return "" if weight == 1 else f":{weight!r}".removesuffix(".0")
