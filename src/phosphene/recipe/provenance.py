"""The recipe as it stands in a picture: TOML, settings first, then how it was made. The picture is the record."""

import tomllib
from typing import Annotated, Any

from pydantic import Field, ValidationError

from phosphene.errors import ImageError, UsageError
from phosphene.recipe.settings import Recipe, Settings, describe_problems
from phosphene.types import Size


class Made(Settings):
    """What a dream was made from and with, beside its recipe; enough to tell why another run differs."""

    source: Annotated[str, Field(description="The photograph: a path, or a sample's name.")]
    source_sha256: Annotated[str, Field(description="Checksum of the photograph's file.")]
    source_size: Annotated[Size, Field(description="Height and width of the photograph, in px.")]
    size: Annotated[Size, Field(description="Height and width of the dream, in px.")]
    weights: Annotated[str, Field(description="Checksum of the weights, or the seed of random ones.")]
    guide_sha256: Annotated[str | None, Field(description="Checksum of the guide's file.")] = None
    mask_sha256: Annotated[str | None, Field(description="Checksum of the mask's file.")] = None
    device: Annotated[str, Field(description="Where it was computed.")]
    versions: Annotated[dict[str, str], Field(description="Of Phosphene and the libraries that matter.")]
    unfinished: Annotated[str | None, Field(description="Where the dream was stopped, if it was.")] = None

    def again(self, given: Any) -> Any:
        """Return what to dream to make the picture again: what is given, or else what it was made from."""
        if given is None and self.source == "array":
            raise UsageError("this picture was made of an array, which it does not carry: give the photograph again")
        return self.source if given is None else given


def to_toml(recipe: Recipe, made: Made) -> str:
    """Spell a recipe and how it was made; `from_toml` reads it back."""
    import tomli_w

    settings = recipe.model_dump(mode="json", exclude_none=True)
    return tomli_w.dumps({**settings, "made": made.model_dump(mode="json", exclude_none=True)})


def from_toml(text: str) -> tuple[Recipe, Made]:
    """Read what `to_toml` wrote. Raises `ImageError` where it is no recipe."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
        made = Made(**table.pop("made"))
        return Recipe(**table), made
    except ValidationError as error:
        raise ImageError(f"the recipe in this picture cannot be read: {describe_problems(error.errors())}") from error
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"the recipe in this picture cannot be read: {reason}") from error
