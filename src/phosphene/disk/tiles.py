"""The gradient of a picture on disk, tile by tile; each tile in any process."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from phosphene.disk.raster import Raster
from phosphene.dreaming.gradient import check_finite
from phosphene.dreaming.tiling import Tile, Tiling
from phosphene.types import Shift


def differentiate_tiles(
    tiles: Sequence[Tile], bound: Callable[[], Tiling], image: Raster, gradient: Raster, shift: Shift, device: str
) -> Tensor:
    """Write a batch of tiles' gradients, in the frame rolled by `shift`, and return their scores [tiles, terms].

    `gradient` has the three colours of each of the scoring's gradients one after another, and its chunks do not cross
    the tiles. `bound` gives the network bound to its scoring, once in each process.
    """
    tiling = bound()
    windows = [image.read_rolled(tile.down.window, tile.across.window, shift).to(device) for tile in tiles]
    found = tiling.look(windows, tiles, image.size, shift)
    for tile, (scores, gradients) in zip(tiles, found, strict=True):
        for each in gradients:
            check_finite(tiling.scoring, scores, each)
        gradient.write(gradients.flatten(0, 1), tile.down.own, tile.across.own)
    return torch.stack([scores.cpu() for scores, _ in found])
