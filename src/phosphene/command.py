"""From a recipe back to what a person would type: its look, the settings that differ, and the command line."""

import shlex
from collections.abc import Mapping
from typing import Any

from phosphene.choose import choose
from phosphene.models.looks import LOOKS
from phosphene.settings import Recipe


def flag(setting: str) -> str:
    """Name the flag of a setting; what can be given several times is named in the singular."""
    return {"layers": "layer", "classes": "class"}.get(setting, setting).replace("_", "-")


def shortest(recipe: Recipe) -> tuple[str | None, dict[str, Any]]:
    """Return a look (or None, for the default one) and the fewest settings that `choose` turns into this recipe."""
    wanted = recipe.model_dump()
    choices = [(look, _given(wanted, look)) for look in (None, *LOOKS.get(recipe.model, {}))]
    return min(choices, key=lambda choice: (len(choice[1]), choice[0] is not None))


def command(recipe: Recipe, source: str, output: str) -> str:
    """Spell the `phosphene dream` command that makes a recipe's dream of `source` again, quoted for a shell."""
    look, given = shortest(recipe)
    words = ["phosphene", "dream", source, "-o", output]
    words += ["--look", look] if look else []
    for name, value in given.items():
        words += _flags(flag(name), value)
    return shlex.join(words)


def _given(wanted: Mapping[str, Any], look: str | None) -> dict[str, Any]:
    base = choose({"model": wanted["model"]}, look).model_dump() | {"model": Recipe.model_fields["model"].default}
    given = {name: value for name, value in wanted.items() if value != base[name]}
    if given.get("classes"):  # classes of one's own take the place of a look's layers
        given["layers"] = wanted["layers"]
    return given


def _flags(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    values = value if isinstance(value, list | tuple) else [value]
    return [word for each in values for word in _flag(name, str(each))]


def _flag(name: str, value: str) -> list[str]:
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
