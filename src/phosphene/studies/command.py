"""The command that makes a dream again."""

import shlex
from typing import Any

from phosphene.choose import choose
from phosphene.settings import Recipe
from phosphene.studies.sweeping import SINGULAR

FLAGS = {many: one for one, many in SINGULAR.items()}


def command(recipe: Recipe, source: str, output: str) -> str:
    """Return the `phosphene dream` command of a recipe: each setting that is not what the command would choose."""
    targets = {"layers": recipe.layers, "classes": recipe.classes}
    usual = choose({"model": recipe.model, **{name: terms for name, terms in targets.items() if terms}})
    words = ["phosphene", "dream", "PHOTO" if source == "array" else source, "-o", output]
    for name in Recipe.model_fields:
        value = getattr(recipe, name)
        if value != getattr(usual, name) or name in targets or (name == "model" and value != _default("model")):
            words += _flags(name, value)
    return shlex.join(words)


def _flags(name: str, value: Any) -> list[str]:
    flag = f"--{FLAGS.get(name, name).replace('_', '-')}"
    if isinstance(value, tuple):
        return [word for each in value for word in (flag, each)]
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    return [flag, str(value)]


def _default(name: str) -> Any:
    return Recipe.model_fields[name].default
