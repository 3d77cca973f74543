"""From what a person says to a whole recipe, and back.

`choose` puts a look's settings, a preset's over them, and the person's own over both. `shortest` finds the fewest words
that it turns into a given recipe, and `command` spells them for a shell.
"""

import re
import shlex
from collections.abc import Mapping, Sized
from typing import Any

from pydantic import ValidationError

from phosphene.errors import SettingsError, UnknownNameError
from phosphene.recipe import own
from phosphene.recipe.arguments import checked
from phosphene.recipe.looks import LOOKS
from phosphene.recipe.looks import look as look_of
from phosphene.recipe.settings import PRESETS, RENAMED, Recipe, describe_problems
from phosphene.recipe.terms import KINDS, SINGULAR


@checked
def choose(given: Mapping[str, Any], look: str | None = None, preset: str | None = None) -> Recipe:
    """Return the recipe of a look and a preset (both by name, or none), changed by the settings `given`.

    Layers, classes or terms that are given take the place of the look's layers. Raises `SettingsError` or
    `UnknownNameError`.
    """
    if preset is not None and preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    settings = {**look_of(str(given.get("model", Recipe.model_fields["model"].default)), look)}
    if any(map(_says, (given.get(kind) for kind in KINDS))):
        settings.pop("layers", None)
    return validated({**settings, **PRESETS.get(preset or "", {}), **given})


def _says(given: Any) -> bool:
    """Whether a list of terms has one, or is no list."""
    return given is not None and not (isinstance(given, Sized) and len(given) == 0)


def validated(settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe of these settings, custom functions included (see `recipe.own`).

    Raises a `SettingsError` of one sentence.
    """
    functions = {name: value for name, value in settings.items() if own.is_function(name, value)}
    try:
        recipe = Recipe(**{name: value for name, value in settings.items() if name not in functions})
        return with_functions(recipe, functions) if functions else recipe
    except ValidationError as error:
        raise SettingsError(describe_problems(error.errors())) from None


def with_functions(recipe: Recipe, functions: Mapping[str, Any]) -> Recipe:
    """Return a recipe with custom norms, masks and schedules; a schedule takes an older one's place."""
    kept = own.kept(functions, recipe.octaves, recipe.steps)
    before = own.without(recipe.schedules, *functions)
    return recipe.but(**{**kept, "schedules": (*before, *kept["schedules"])})


@checked
def plain(given: Mapping[str, Any], look: str | None = None, preset: str | None = None) -> dict[str, Any]:
    """Return settings as a recipe keeps them, functions too, for who writes them down."""
    functions = [name for name, value in given.items() if own.is_function(name, value)]
    return choose(given, look, preset).model_dump(include={*given, *(["schedules"] if functions else [])})


def flag(setting: str) -> str:
    """Name the flag of a setting; what can be given several times is named in the singular."""
    return SINGULAR.get(setting, setting).replace("_", "-")


def current(word: str) -> str:
    """Return a word of a command, with the flag's name of today where it has an old one."""
    old = re.match(r"--(no-)?([a-z-]+)(?==|$)", word)
    return f"--{old[1] or ''}{RENAMED[old[2]]}{word[old.end() :]}" if old and old[2] in RENAMED else word


def shortest(recipe: Recipe) -> tuple[str | None, dict[str, Any]]:
    """Return a look (or None, for the default one) and the fewest settings that `choose` turns into this recipe."""
    wanted = recipe.model_dump()
    choices = [(look, _given(wanted, look)) for look in (None, *LOOKS.get(recipe.model, {}))]
    return min(choices, key=lambda choice: (len(choice[1]), choice[0] is not None))


def command(recipe: Recipe, source: str, output: str, verb: str = "dream") -> str:
    """Spell the command (`phosphene dream`, or another) that makes a recipe's dream of `source` again, for a shell."""
    look, given = shortest(recipe)
    words = ["phosphene", verb, source, "-o", output, *(["--look", look] if look else [])]
    return f"{shlex.join(words)} {flags(given)}".rstrip()


def flags(settings: Mapping[str, Any]) -> str:
    """Spell settings as flags, quoted for a shell."""
    return shlex.join(word for name, value in settings.items() for word in _flags(flag(name), value))


def _given(wanted: Mapping[str, Any], look: str | None) -> dict[str, Any]:
    base = choose({"model": wanted["model"]}, look).model_dump() | {"model": Recipe.model_fields["model"].default}
    given = {name: value for name, value in wanted.items() if value != base[name]}
    if any(given.get(kind) for kind in KINDS):  # they take the place of a look's layers
        given["layers"] = wanted["layers"]
    return given


def _flags(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    values = value if isinstance(value, list | tuple) else [value]
    return [word for each in values for word in _flag(name, str(each))]


def _flag(name: str, value: str) -> list[str]:
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
