"""Arguments of the functions that scripts call, looked at as the settings of a recipe are."""

import inspect
from collections.abc import Callable
from functools import cache, wraps
from os import PathLike
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from phosphene.errors import SettingsError
from phosphene.recipe.settings import describe_problems

F = TypeVar("F", bound=Callable[..., Any])

WORDS = (str, int, float, PathLike)
"""Types of arguments that are passed on as they were read, as a path of a `PathLike`; all others stay as they were."""


def checked(function: F) -> F:
    """Return a function that looks at its arguments first, by their annotations.

    Raises a `SettingsError` of one sentence for what is of another type, and for an empty text, which is neither a name
    nor a value. What `**settings` take is looked at elsewhere.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def looking(*given: Any, **named: Any) -> Any:
        said = signature.bind(*given, **named)
        said.arguments |= _read(function, said.arguments)
        return function(*said.args, **said.kwargs)

    return cast(F, looking)


def _read(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    kinds = _kinds(function)
    given = {name: value for name, value in given.items() if name in kinds.model_fields}
    for name, value in given.items():
        if isinstance(value, str) and not value:
            raise SettingsError(f"{name} = '' will not do: give a name or a value, or leave it out")
    try:
        found = kinds(**given)
    except ValidationError as error:
        raise SettingsError(describe_problems(error.errors())) from None
    read = {name: getattr(found, name) for name in given}
    return {name: value for name, value in read.items() if isinstance(value, WORDS)}


@cache
def _kinds(function: Callable[..., Any]) -> type[BaseModel]:
    """Return a model with a field for each argument that has a name of its own and a type."""
    hints = get_type_hints(function, include_extras=True)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    names = [each.name for each in parameters if each.kind not in several and each.name in hints]
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    fields: dict[str, Any] = {name: (hints[name], None) for name in names}
    return create_model(function.__name__, __config__=config, **fields)
