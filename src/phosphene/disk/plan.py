"""What is asked for, and whether it can be had: the memory, the disk, the input; and the folder that says so."""

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from phosphene import imagefile
from phosphene.disk import files, journal, raster
from phosphene.dreaming.tiling import Tiling, round_up
from phosphene.errors import ImageError, StoreError, UsageError
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe, Settings
from phosphene.setup.builders import bind, tiling_of, with_default_layer
from phosphene.setup.memory import PIXEL, budget, fitting_tile, image_bytes, spell_bytes, tile_bytes
from phosphene.setup.session import (
    choose_device,
    describe_device,
    fitted_size,
    load_network,
    needs_top,
    seen_guide,
    versions,
)
from phosphene.types import Size

RASTERS, RASTERS_OF_ONE_OCTAVE = 9, 4
"""Rasters of the whole size that are on disk at most, beside one for each gradient and the decoded input."""

STRIP_COPIES = 8
"""Strips of full width in memory at the height of resizing, decoding and encoding."""

ORDER = "order.json"


class Order(Settings):
    """All that it takes to make a picture; written once into its folder."""

    recipe: Recipe
    made: Made
    output: str
    bits: Literal[8, 16] = 8
    device: str = "auto"


@dataclass(frozen=True)
class Huge:
    """A dream on disk, ready to run or to go on."""

    folder: Path
    order: Order
    notes: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """The file to write."""
        return Path(self.order.output)


def is_too_large(source: str, recipe: Recipe, device: str, memory: str | None) -> bool:
    """Whether a photograph's dream does not fit into memory, with a little room for the network."""
    path = Path(source)
    if not path.is_file():
        return False
    try:
        size = imagefile.size_of(path)
    except (ImageError, UsageError):
        return False
    decoded = 2 * image_bytes(size) // 12
    wanted = _fitted(size, recipe)
    return decoded + image_bytes(wanted) > 0.8 * budget(memory, choose_device(device))


def begin(
    source: str,
    recipe: Recipe,
    output: Path,
    *,
    device: str = "auto",
    memory: str | None = None,
    bits: Literal[8, 16] = 8,
    overwrite: bool = False,
) -> Huge:
    """Make the folder of a new dream beside `output`. All that can be wrong is found here, the room on disk too."""
    imagefile.check_place(output, overwrite)
    files.check_ending(output, bits)
    where = choose_device(device)
    photo = files.look(source, budget(memory, where))
    network = load_network(recipe.eye, recipe.seed, str(where), needs_top(recipe))
    recipe = with_default_layer(recipe, network)
    size = _fitted(photo.size, recipe)
    recipe, needed = _with_tile(recipe, str(where), size, budget(memory, where))
    disk = disk_bytes(recipe, photo.size, size)
    folder = output.with_name(f"{output.name}.phosphene")
    _check_room(folder, disk)
    made = Made(
        source=source,
        source_sha256=photo.sha256,
        source_size=photo.size,
        size=size,
        weights=network.weights,
        guide_sha256=_checksum(recipe.guide),
        mask_sha256=_checksum(recipe.mask),
        device=describe_device(where),
        versions=versions(),
    )
    order = Order(recipe=recipe, made=made, output=str(output), bits=bits, device=str(where))
    _create(folder)
    journal.put(folder / ORDER, order.model_dump_json())
    notes = (
        f"streamed by way of {folder}: up to {spell_bytes(disk)} on disk, "
        f"and about {spell_bytes(needed)} of memory for a tile of {recipe.tile} px",
    )
    return Huge(folder, order, notes)


def reopen(folder: Path) -> Huge:
    """Find a dream to go on with. Raises where there is none, or where what it was made from has changed."""
    try:
        order = Order.model_validate_json((folder / ORDER).read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no dream to go on with in {str(folder)!r}") from None
    except (OSError, ValidationError) as error:
        raise StoreError(f"the order in {folder} cannot be read: {error}") from error
    made, recipe = order.made, order.recipe
    for kind, path, kept in (
        ("photograph", made.source, made.source_sha256),
        ("guide", recipe.guide, made.guide_sha256),
        ("mask", recipe.mask, made.mask_sha256),
    ):
        if path is not None and _checksum(path) != kept:
            raise StoreError(f"the {kind} {path!r} has changed since the dream began: put it back, or begin again")
    entry = journal.last(folder)
    where = f"octave {entry.octave}, step {entry.step}" if entry else "the beginning"
    return Huge(folder, order, (f"going on from {where}",))


def disk_bytes(recipe: Recipe, source: Size, size: Size) -> int:
    """Return the bytes on disk that a dream takes at most, its output aside."""
    pixels = round_up(size[0], raster.STRIP) * round_up(size[1], raster.CHUNK_COLUMNS)
    gradients = len(recipe.objective.terms) if recipe.balanced else 1
    rasters = RASTERS if recipe.octaves > 1 else RASTERS_OF_ONE_OCTAVE
    return PIXEL * (pixels * (rasters + gradients) + source[0] * source[1]) + 4 * pixels


@lru_cache(maxsize=2)
def bound_tiling(recipe: Recipe, device: str) -> Tiling:
    """Load the network of a recipe with tiles and bind it; kept, so that a process does it once."""
    network = load_network(recipe.eye, recipe.seed, device, needs_top(recipe))
    guide = seen_guide(recipe, torch.device(device))
    if not isinstance(recipe.tile, int):
        raise UsageError(f"a picture on disk is dreamed in tiles, and --tile {recipe.tile} has none")
    return tiling_of(network, bind(recipe, network, guide), recipe, recipe.tile)


def _with_tile(recipe: Recipe, device: str, size: Size, allowed: int) -> tuple[Recipe, int]:
    """Choose the tile if the recipe leaves it open, and foretell the bytes that a step takes."""
    room = allowed - STRIP_COPIES * PIXEL * raster.STRIP * size[1]

    def bind_tile(tile: int) -> Tiling:
        return bound_tiling(recipe.but(tile=tile), device)

    tile = fitting_tile(bind_tile, size, room) if recipe.tile == "auto" else recipe.tile
    if not isinstance(tile, int):
        raise UsageError("a picture that does not fit into memory is dreamed in tiles; leave --tile none out")
    return recipe.but(tile=tile), allowed - room + tile_bytes(bind_tile(tile), size)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise StoreError(f"{folder} needs {spell_bytes(needed)} on disk, and {spell_bytes(free)} are free")


def _create(folder: Path) -> None:
    if (folder / ORDER).exists():
        raise UsageError(
            f"{folder} holds a dream that was not finished: `phosphene resume {folder}` goes on with it; "
            f"remove the folder to begin again"
        )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} could not be made: {error}") from error


def _fitted(size: Size, recipe: Recipe) -> Size:
    return fitted_size(torch.empty(3, *size, device="meta"), recipe)


def _checksum(path: str | None) -> str | None:
    return None if path is None else imagefile.checksum(path)
