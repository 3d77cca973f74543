"""From what a person said to a whole recipe: a look's settings, a preset's over them, and their own over both."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from phosphene.errors import SettingsError, UnknownNameError
from phosphene.models.looks import look as look_of
from phosphene.settings import PRESETS, Recipe, describe_problems


def choose(given: Mapping[str, Any], look: str | None = None, preset: str | None = None) -> Recipe:
    """Return the recipe of a look and a preset (both by name, or none), changed by the settings `given`.

    A layer or a class of one's own takes the place of the look's layers. Raises `SettingsError` or `UnknownNameError`.
    """
    if preset is not None and preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    settings = {**look_of(str(given.get("model", Recipe.model_fields["model"].default)), look)}
    if given.get("layers") or given.get("classes"):
        settings.pop("layers", None)
    return validated({**settings, **PRESETS.get(preset or "", {}), **given})


def validated(settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe of these settings, or raise a `SettingsError` of one sentence."""
    try:
        return Recipe(**settings)
    except ValidationError as error:
        raise SettingsError(describe_problems(error.errors())) from None
