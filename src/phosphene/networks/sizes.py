"""Sizes that a network takes, found by trying, and activations of every shape as rows and columns of channels."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

from phosphene.errors import UsageError
from phosphene.malloc import is_out_of_memory
from phosphene.types import Size

T = TypeVar("T")

MULTIPLES = (14, 16, 28, 32, 64, 224)
"""Multiples that networks commonly require of a side, in px: patch, merged-patch and window sizes."""

SQUARES = (224, 256, 384, 240, 288, 448, 512)
"""Sides of squares that are often wanted, in px."""

REFUSALS = (RuntimeError, AssertionError, ValueError, IndexError, TypeError, NotImplementedError)

PREFIXES = 9
"""How many tokens may stand before those of places: of a class, of registers, of a teacher."""


def first_fitting(compute: Callable[[Size], T], size: Size, model: str, least: int) -> tuple[Size, T]:
    """Compute with the first size that a network takes, and return both: `size`, or the nearest of those often wanted.

    Raises `UsageError` where it takes none of them.
    """
    refused: Exception | None = None
    with _quiet():
        for tried in _candidates(size, least):
            try:
                return tried, compute(tried)
            except REFUSALS as error:
                if is_out_of_memory(error) or isinstance(error, UsageError):
                    raise
                refused = refused or error
    reason = str(refused).strip().split("\n")[0][:160] or type(refused).__name__
    raise UsageError(
        f"{model} cannot see {size[1]} x {size[0]} pixels in the layer asked for ({reason}): give a larger picture or "
        f"another --tile, choose a layer less deep, or another model"
    ) from refused


def as_planes(value: Tensor, images: int, size: Size, has_channels_last: bool) -> Tensor:
    """Return activations of `images` of a size as [images, channels, rows, columns].

    Tokens become the grid of places that they are of; those that are of no place are left out. Vectors have one row and
    one column. Channels that come last, as a network may have them, are put first: what they are is told by whether the
    axes in front of them, and not those behind, are the image's divided by some stride.
    """
    if value.ndim == 3:
        tokens = value.reshape(images, -1, value.shape[2]) if value.shape[0] % images == 0 else value
        grid = _grid(tokens.shape[1], size)
        places = tokens[:, tokens.shape[1] - grid[0] * grid[1] :]
        planes: Tensor = places.transpose(1, 2).unflatten(2, grid)
        return planes
    if (
        has_channels_last
        and value.ndim == 4
        and not _is_grid(value.shape[2:], size)
        and _is_grid(value.shape[1:3], size)
    ):
        return value.permute(0, 3, 1, 2)
    return value.reshape(*value.shape, *[1] * (4 - value.ndim))


def _candidates(size: Size, least: int) -> list[Size]:
    rounded = [tuple(-(-side // multiple) * multiple for side in size) for multiple in MULTIPLES]
    squares = [(side, side) for side in (least, *SQUARES)]
    return list(dict.fromkeys([size, *((rows, columns) for rows, columns in rounded), *squares]))


def _grid(tokens: int, size: Size) -> Size:
    """Rows and columns of the places that a number of tokens are of; all in one column, where they are of none."""
    for prefix in range(PREFIXES):
        for stride in range(1, max(size)):
            rows, columns = size[0] // stride, size[1] // stride
            if rows * columns < tokens - prefix:
                break
            if rows * columns == tokens - prefix and min(rows, columns) > 1:
                return rows, columns
    return tokens, 1


def _is_grid(shape: tuple[int, ...], size: Size) -> bool:
    """Whether rows and columns are those of an image divided by some stride."""
    rows, columns = shape
    return any(
        (rows, columns) in ((size[0] // stride, size[1] // stride), (-(-size[0] // stride), -(-size[1] // stride)))
        for stride in range(1, max(size) + 1)
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, PyTorch does not print what its tensors without values refuse."""
    loud = logging.getLogger("torch._subclasses.fake_tensor")
    before, loud.disabled = loud.disabled, True
    try:
        yield
    finally:
        loud.disabled = before
