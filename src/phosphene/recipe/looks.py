"""Looks: named settings that a person chooses without knowing a layer's name. Each model's card has its own."""

from phosphene.errors import UnknownNameError
from phosphene.networks.card import Look
from phosphene.networks.cards import CARDS, NAMED

DEFAULT_LOOK = "creatures"

LOOKS = {card.name: card.looks for card in NAMED if card.looks}


def look(model: str, name: str | None) -> Look:
    """Return a model's look by name, or its default; models without looks have an empty default.

    Raises `UnknownNameError` with the nearest name.
    """
    known = CARDS[model].looks if model in CARDS else {}
    if name is None:
        return known.get(DEFAULT_LOOK, {})
    if name not in known:
        hint = f"{model} has the looks {', '.join(known)}." if known else f"{model} has no looks: name a layer."
        raise UnknownNameError(f"look of {model}", name, known, hint)
    return known[name]
