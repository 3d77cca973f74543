"""What to raise: terms with + - and *, as people spell them. Pure data: no tensors, no network.

A layer term is spelt `NAME[CHANNELS]@ROW,COLUMN:WEIGHT`, all but the name optional: `mixed3`, `mixed5:0.5`,
`mixed4[12,40]:-1`, `blocks.4.2@0.5,0.25`. The name may be a shell pattern. A position is a fraction of the
image's height and width, so that it means the same place at every size. A class term is `NAME:WEIGHT`.

The algebra is a flat sum: a weight multiplies each term once, and `a - b` is a minus b.
"""

import re
from dataclasses import dataclass, replace

from phosphene.errors import SettingsError

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
LAYER = re.compile(
    rf"(?P<layer>[^\s:@]+?)(?:\[(?P<channels>\d+(?:,\d+)*)\])?"
    rf"(?:@(?P<row>{NUMBER}),(?P<column>{NUMBER}))?(?::(?P<weight>{NUMBER}))?"
)
CLASS = re.compile(rf"(?P<label>[^:]+?)(?::(?P<weight>{NUMBER}))?")


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


Term = LayerTerm | ClassTerm


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms; higher is better, and the sign never flips."""

    terms: tuple[Term, ...]

    def __add__(self, other: "Objective") -> "Objective":
        return Objective(self.terms + other.terms)

    def __sub__(self, other: "Objective") -> "Objective":
        return self + -other

    def __neg__(self) -> "Objective":
        return -1 * self

    def __mul__(self, factor: float) -> "Objective":
        return Objective(tuple(replace(term, weight=factor * term.weight) for term in self.terms))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer terms, as spelt."""
        return tuple(str(term) for term in self.terms if isinstance(term, LayerTerm))

    @property
    def classes(self) -> tuple[str, ...]:
        """The class terms, as spelt."""
        return tuple(str(term) for term in self.terms if isinstance(term, ClassTerm))


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


def _spell_weight(weight: float) -> str:
    return "" if weight == 1 else f":{weight!r}".removesuffix(".0")
