"""Thumbnails that were really dreamed: of looks and of layers.

Those of the default model come with the package (`python -m phosphene.studio.thumbnails` makes them again); any other
is dreamed when it is first asked for, and kept in the folder's cache.
"""

import hashlib
from pathlib import Path
from typing import Any

from phosphene import imagefile
from phosphene.job import prepare, run
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.recipe.looks import LOOKS
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import choose
from phosphene.studio.catalogue import layers
from phosphene.studio.folder import Folder
from phosphene.studio.loading import LOADING
from phosphene.studio.worker import stay_here

STATIC = Path(__file__).parent / "static"
PHOTOGRAPH = "sample:chelsea"
LOOK_SIDE, LAYER_SIDE = 320, 160
LAYER_SETTINGS: dict[str, Any] = {"octaves": 3, "steps": 10, "step_size": 0.012}


def of_look(folder: Folder, model: str, look: str) -> Path:
    """Return a look's thumbnail. Raises `UnknownNameError`, and `WeightsError` where the model cannot be had."""
    if model == DEFAULT_MODEL and look in LOOKS[model]:
        return STATIC / "looks" / f"{look}.webp"
    return _dreamed(folder, choose({"model": model, "size": LOOK_SIDE}, look))


def of_layer(folder: Folder, model: str, layer: str, weights: str = "pretrained") -> Path:
    """Return a layer's thumbnail, small and quick; weights are a file in the folder. Raises as `of_look`."""
    ready = STATIC / "layers" / f"{layer}.webp"
    if (model, weights) == (DEFAULT_MODEL, "pretrained") and ready in (STATIC / "layers").iterdir():
        return ready
    return _dreamed(folder, _layer(model, folder.weights_of(weights), layer))


def _layer(model: str, weights: str, layer: str) -> Recipe:
    return choose(LAYER_SETTINGS | {"model": model, "weights": weights, "layers": (layer,), "size": LAYER_SIDE})


def _dreamed(folder: Folder, recipe: Recipe) -> Path:
    identity = f"{PHOTOGRAPH} {recipe.model_dump_json()}"
    path = folder.cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.webp"
    if not path.exists():
        stay_here(recipe)
        with LOADING:
            job = prepare(PHOTOGRAPH, recipe)
        imagefile.write(path, run(job).image)
    return path


def main() -> None:
    """Dream the thumbnails that come with the package."""
    recipes = {f"looks/{look}": choose({"size": LOOK_SIDE}, look) for look in LOOKS[DEFAULT_MODEL]}
    names = (layer["name"] for layer in layers(DEFAULT_MODEL)["layers"])
    recipes |= {f"layers/{name}": _layer(DEFAULT_MODEL, "pretrained", name) for name in names}
    for name, recipe in recipes.items():
        path = STATIC / f"{name}.webp"
        path.parent.mkdir(exist_ok=True)
        imagefile.write(path, run(prepare(PHOTOGRAPH, recipe)).image)


if __name__ == "__main__":
    main()
