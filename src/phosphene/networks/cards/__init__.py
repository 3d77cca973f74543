"""The models that we know well, a file each: where the weights are, and which layers, looks and halos are good."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from phosphene.errors import UsageError
from phosphene.networks.card import ModelCard
from phosphene.networks.cards import (
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    inception_v3,
    keras_inception_v3,
    keras_resnet50,
    keras_vgg19,
    resnet50,
    vgg19,
)

DEFAULT_MODEL = "efficientnet_lite0"

NAMED: tuple[ModelCard, ...] = tuple(
    module.CARD
    for module in (
        efficientnet_lite0, efficientnet_lite1, efficientnet_lite2,
        inception_v3, resnet50, vgg19, keras_inception_v3, keras_resnet50, keras_vgg19,
    )
)  # fmt: skip

CARDS = {card.name: card for card in NAMED}
"""All cards by name: ours, those that were registered, and once they are asked for, those of installed packages."""


def register(card: ModelCard) -> None:
    """Let a custom network be known by its card's name, which must be free; `card.build` makes it.

    It is then a model like any other in this process: in Python, and in a studio that is started from it. A package
    brings its cards by entry points instead, of the group `phosphene.models`.
    """
    if card.name in known_cards():
        raise UsageError(f"there is a model called {card.name!r} already; a card needs a name of its own")
    if card.source == "own" and card.build is None:
        raise UsageError(
            f"the card of {card.name!r} does not say how to build it: build=, a function without arguments"
        )
    if not len(card.mean) == len(card.std) > 0 or 0 in card.std:
        raise UsageError(f"the card of {card.name!r} needs a mean and a std, not 0, for each channel of its network")
    CARDS[card.name] = card


def known_cards() -> Mapping[str, ModelCard]:
    """Return all cards, with those and the looks that installed packages bring."""
    installed_cards()
    return CARDS


@cache
def installed_cards() -> frozenset[str]:
    """Return the names of the cards that installed packages bring, which every process here has."""
    brought = set()
    for entry in entry_points(group="phosphene.models"):
        if isinstance(found := _loaded(entry), ModelCard) and CARDS.setdefault(found.name, found) is found:
            brought.add(found.name)
    for entry in entry_points(group="phosphene.looks"):
        for model, looks in (_loaded(entry) or {}).items():
            if model in CARDS:
                CARDS[model] = replace(CARDS[model], looks={**looks, **CARDS[model].looks})
    return frozenset(brought)


def _loaded(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # a package that is broken keeps nobody from the others
        warnings.warn(
            f"{entry.value}, a {entry.group} of an installed package, cannot be loaded: {error}", stacklevel=2
        )
        return None
