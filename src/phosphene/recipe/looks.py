"""Looks: named settings that a person chooses without knowing a layer's name. Each model's card has its own."""

from collections.abc import Iterator, Mapping

from phosphene.errors import UnknownNameError
from phosphene.networks.card import Look
from phosphene.networks.cards import known_cards

DEFAULT_LOOK = "creatures"


class _Looks(Mapping[str, Mapping[str, Look]]):
    """The looks of each model that has some, those of installed packages included."""

    def __getitem__(self, model: str) -> Mapping[str, Look]:
        return self._all()[model]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Mapping[str, Look]]:
        return {name: card.looks for name, card in known_cards().items() if card.looks}


LOOKS = _Looks()


def look(model: str, name: str | None) -> Look:
    """Return a model's look by name, or its default; models without looks have an empty default.

    Raises `UnknownNameError` with the nearest name.
    """
    known = LOOKS.get(model, {})
    if name is None:
        return known.get(DEFAULT_LOOK, {})
    if name not in known:
        hint = f"{model} has the looks {', '.join(known)}." if known else f"{model} has no looks: name a layer."
        raise UnknownNameError(f"look of {model}", name, known, hint)
    return known[name]
