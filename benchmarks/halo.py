"""How large a halo must be: the error of a tile's gradient against halo and cost, for the layers of our models' cards.

The photograph is scikit-image's coffee, enlarged to 1152 x 1152 px and mirrored at its edges to 1664 x 1664. Three
tiles of 128 px near its middle are looked at with growing halos, but for windows that reach its edge. The error is the
root mean square deviation from the whole image's gradient over the tiles, relative to that gradient's own root mean
square: the error of a step, but for the norm. Larger tiles have smaller errors. Writes a JSON file, and prints for each
layer the exact halo, the last halo tried and its error.

    python benchmarks/halo.py halo.json [MODEL ...]
"""

import json
import sys
from pathlib import Path

import torch

from phosphene import imagefile
from phosphene.dreaming.objective import Energy, Scoring
from phosphene.dreaming.resample import resize
from phosphene.dreaming.stages import InMemory, StageRun, whole_image_gradient
from phosphene.networks.registry import named
from phosphene.recipe.settings import Eye, Recipe
from phosphene.setup.builders import bounded_fields, stages_of
from phosphene.setup.session import load_network

TILE, ENLARGED, MIRRORED, LIMIT = 128, (1152, 1152), 256, 0.01
SIZE = (ENLARGED[0] + 2 * MIRRORED, ENLARGED[1] + 2 * MIRRORED)
PLACES = ((6, 6), (5, 6), (6, 5))
HALOS = (*range(0, 128, 16), *range(128, 641, 32))


def errors(network, layer: str, image: torch.Tensor) -> dict[int, float]:
    """The error at each halo, up to the first below the limit."""
    scoring = Scoring((Energy(*network.resolve(layer)),))
    whole = whole_image_gradient(network.features(scoring.layers), scoring)(image, (0, 0))[1]
    (field,) = bounded_fields(network, scoring.layers).values()
    found: dict[int, float] = {}
    for halo in (halo for halo in HALOS if halo % field.tile_stride == 0):
        found[halo] = error_at(network, scoring, image, whole, min(halo, field.exact_halo))
        if found[halo] < LIMIT:
            break
    return found


def error_at(network, scoring, image, whole, halo: int) -> float:
    stages = stages_of(network, scoring, Recipe(tile=TILE, halo=halo))
    found = torch.zeros_like(image)
    seen = StageRun(stages, SIZE, 0, SIZE, InMemory(image), InMemory(found))
    square = deviation = 0.0
    for tile in seen.stage.tiles(SIZE):
        at_edge = 0 in (tile.down.window_start, tile.across.window_start)
        if (tile.down.start // TILE, tile.across.start // TILE) not in PLACES or at_edge:
            continue
        seen.back([tile])
        right, own = (picture[:, tile.down.own, tile.across.own] for picture in (whole, found))
        deviation += (own - right).square().sum().item()
        square += right.square().sum().item()
    return (deviation / square) ** 0.5


def main(path: Path, models: list[str]) -> None:
    enlarged = resize(imagefile.read("sample:coffee").image, ENLARGED)
    image = torch.nn.functional.pad(enlarged[None], (MIRRORED,) * 4, mode="reflect")[0]
    table = json.loads(path.read_text()) if path.exists() else {}
    for card in named():
        if models and card.name not in models:
            continue
        weights = "pretrained" if card.source == "package" else "untrained"
        network = load_network(Eye(model=card.name, weights=weights))
        for layer in card.layers:
            found = errors(network, layer, image)
            (field,) = bounded_fields(network, network.resolve(layer)).values()
            row = {"weights": weights, "exact": field.exact_halo, "errors": found}
            table.setdefault(card.name, {})[layer] = row
            path.write_text(json.dumps(table, indent=1))
            best = max(found)
            print(f"| {card.name} | {layer} | {field.exact_halo} | {best} | {found[best]:.2%} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
