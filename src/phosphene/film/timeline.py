"""Settings over time: any number of a recipe may follow a list of times and values, and looks fade into each other.

Spelt `T:SETTING=VALUE`, with T in seconds: `0:look=strokes`, `8:look=creatures`, `2.5:step_size=0.01`. Between two
times a number moves in a straight line; before the first and after the last it stays.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from phosphene.errors import SettingsError, UnknownNameError
from phosphene.film.settings import MOST_CHANGE
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import choose
from phosphene.recipe.terms import NUMBER

FIXED = ("size", "tile", "halo", "batch", "seed")
"""Numbers that a whole film has one of."""

Key = tuple[float, Any]
"""A time in seconds, and the value that a setting has then."""

Levels = Callable[[str, float], float]
"""How loud a band of the sound is at a time: 0 to 1."""


@dataclass(frozen=True)
class Follow:
    """A setting that goes from `low` to `high` as a band of the sound gets louder."""

    setting: str
    band: str
    low: float
    high: float


@dataclass(frozen=True)
class Timeline:
    """What a person asks of a film: settings, a look, a preset, and what changes over time.

    `tracks` are keys by setting, in the order of their times; `look` may be one, and `change`.
    """

    given: Mapping[str, Any]
    look: str | None = None
    preset: str | None = None
    tracks: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)
    follows: tuple[Follow, ...] = ()

    def at(self, time: float, levels: Levels | None = None) -> tuple[Recipe, Recipe, float]:
        """Return the recipes of the looks before and after a time, and how far it is from the one to the other, 0..1.

        Their numbers are the same, those of the moment; where nothing fades, so are the recipes.
        """
        before, after, share = _around(self.tracks.get("look", ((0.0, self.look),)), time)
        numbers = {name: value for name, value in self._numbers(time, levels).items() if name != "change"}
        first, last = (choose({**self.given, **numbers}, look, self.preset) for look in (before, after))
        middle = _between(first, last, share)
        first, last = first.but(**middle), last.but(**middle)
        return first, last, share if first != last else 0.0

    def check(self) -> None:
        """Raise `SettingsError` where a setting leaves its range: when its keys are, in silence or at the loudest."""
        times = {0.0, *(time for keys in self.tracks.values() for time, _ in keys)}
        for time, levels in product(times, (_silent, _loudest)):
            self.at(time, levels)
            change = self.change(time, levels)
            if change is not None and not 0 < change <= MOST_CHANGE:
                raise SettingsError(
                    f"change = {change:g} will not do: it should be above 0, and {MOST_CHANGE:g} at most"
                )

    def change(self, time: float, levels: Levels | None = None) -> float | None:
        """Return the change that is asked for at a time, if one is."""
        return self._numbers(time, levels).get("change", None)

    def _numbers(self, time: float, levels: Levels | None) -> dict[str, Any]:
        numbers = {name: _value(name, keys, time) for name, keys in self.tracks.items() if name != "look"}
        if levels is not None:
            for follow in self.follows:
                value = follow.low + (follow.high - follow.low) * levels(follow.band, time)
                numbers[follow.setting] = round(value) if _is_whole(follow.setting) else value
        return numbers


def _silent(band: str, time: float) -> float:
    return 0.0


def _loudest(band: str, time: float) -> float:
    return 1.0


def tracks_of(spelt: Sequence[str]) -> dict[str, tuple[Key, ...]]:
    """Read settings over time. Raises `SettingsError` or `UnknownNameError` for what cannot follow one."""
    keys: dict[str, list[Key]] = {}
    for text in spelt:
        found = re.fullmatch(rf"(?P<time>{NUMBER}):(?P<name>[\w-]+)=(?P<value>.+)", text.strip())
        if found is None:
            raise SettingsError(f"{text!r} is no setting at a time; one is spelt T:SETTING=VALUE, as in 8:look=strokes")
        name = found["name"].replace("-", "_")
        keys.setdefault(name, []).append((float(found["time"]), _read(name, found["value"], text)))
    return {name: tuple(sorted(each, key=lambda key: key[0])) for name, each in keys.items()}


def follow_of(text: str, recipe: Recipe) -> Follow:
    """Read what follows the sound: `sound` alone, `SETTING=BAND`, or `SETTING=BAND:LOW..HIGH`.

    Without a setting it is the step size; without numbers, from half to one and a half of what the recipe has.
    """
    found = re.fullmatch(
        rf"(?:(?P<name>[\w-]+)=)?(?P<band>[a-z]+)(?::(?P<low>{NUMBER}?)\.\.(?P<high>{NUMBER}))?", text.strip()
    )
    if found is None:
        raise SettingsError(
            f"{text!r} follows nothing; one is spelt SETTING=BAND:LOW..HIGH, as in step_size=bass:0.004..0.012"
        )
    name = (found["name"] or "step_size").replace("-", "_")
    if not _is_number(name):
        raise SettingsError(f"{name} cannot follow the sound: only numbers can")
    if found["high"] is None and name == "change":
        raise SettingsError("change=BAND needs its numbers, as in change=bass:0.04..0.12")
    usual = getattr(recipe, name, 0.0)
    low, high = (float(found["low"]), float(found["high"])) if found["high"] else (usual / 2, usual * 1.5)
    return Follow(name, found["band"], low, high)


def _read(name: str, value: str, text: str) -> Any:
    if name == "look":
        return value
    if name != "change" and name not in Recipe.model_fields:
        raise UnknownNameError("setting", name, (*Recipe.model_fields, "change", "look"))
    if not _is_number(name):
        raise SettingsError(f"{name} cannot change within a film: only numbers can, and the look")
    try:
        return float(value)
    except ValueError:
        raise SettingsError(f"{value!r} in {text!r} is not a number") from None


def _is_number(name: str) -> bool:
    if name == "change":
        return True
    if name in FIXED or name not in Recipe.model_fields:
        return False
    return Recipe.model_fields[name].annotation in (int, float)


def _is_whole(name: str) -> bool:
    return name in Recipe.model_fields and Recipe.model_fields[name].annotation is int


def _value(name: str, keys: Sequence[Key], time: float) -> Any:
    before, after, share = _around(keys, time)
    value = before + share * (after - before)
    return round(value) if _is_whole(name) else value


def _around(keys: Sequence[Key], time: float) -> tuple[Any, Any, float]:
    """The values before and after a time, and how far it is from the one to the other."""
    index = bisect_right([key[0] for key in keys], time)
    if index in (0, len(keys)):
        value = keys[min(index, len(keys) - 1)][1]
        return value, value, 0.0
    (begin, before), (end, after) = keys[index - 1 : index + 1]
    return before, after, (time - begin) / (end - begin)


def _between(first: Recipe, last: Recipe, share: float) -> dict[str, Any]:
    """The numbers on the way from one recipe to another."""
    names = [name for name in Recipe.model_fields if _is_number(name)]
    values = {name: getattr(first, name) + share * (getattr(last, name) - getattr(first, name)) for name in names}
    return {name: round(value) if _is_whole(name) else value for name, value in values.items()}
