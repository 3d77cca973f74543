"""Random recipes: each is a sentence, or a picture that is one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import torch

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.errors import PhospheneError
from phosphene.job import prepare, run
from phosphene.recipe.provenance import from_toml, to_toml
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import choose
from soak import Attempt, FindingError
from soak.mutate import mutated

MODELS = ["efficientnet_lite0"] * 6 + ["squeezenet1_1", "timm/resnet10t", "timm/test_vit"]
LAYERS = ["blocks.1.1", "blocks.2.0", "blocks.4.2", "blocks.*", "conv_stem", "features.3", "features.6.expand1x1",
          "layer1", "stem", "blocks.1", "x", "*", "block?.1", "", "blocks.1.1[0]", "blocks.1.1[0-3,7]",
          "blocks.2.0[9999]", "blocks.1.1@0.5,0.5", "blocks.1.1@1,1", "blocks.1.1@-1,0", "blocks.3.0:0",
          "blocks.3.0:-2.5", "blocks.3.0:1e30", "blocks.3.0:1e-30", "blocks.3.0:nan", "a[", "a:b"]  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "layers": [], "classes": [("tabby",), (281, "goose:-1"), ("nonsense",), ("5",), ("1000",), ("-1",)],
    "score": ["l2", "mean", "max"], "balanced": [True, False], "guide_by": ["match", "channels"],
    "octaves": [1, 1, 2, 3, 30, 31, 0], "octave_scale": [1.01, 1.4, 2, 4, 1, 5, float("nan")],
    "detail": [True, False], "steps": [1, 1, 1, 2, 3, 0], "step_size": [1e-9, 0.008, 0.1, 1, 0, 1e9, float("inf")],
    "norm": ["mean_abs", "std", "laplacian", "none"], "jitter": [0, 1, 5, 32, 512, -1, 1000], "blur": [0, 0.3, 1, 32],
    "tile": ["auto", "none", 16, 32, 64, 100, 1, 10**9], "halo": ["auto", "exact", 0, 1, 16, 10**6],
    "cuts": [("blocks.1.1",), ("blocks.1.1:32",), ("blocks.2.0:16", "blocks.1.1:64"), ("x",), ("blocks.4.2:0",)],
    "batch": [1, 2, 5, 0], "size": ["full", 1, 2, 16, 50, 90, 0, -1], "enlarge": [True, False],
    "colour": ["dream", "original"], "seed": [0, 1, 2**63 - 1, 2**63], "fast": [True, False],
    "weights": ["untrained", "pretrained", "none.pth", "/dev/null", ""],
}  # fmt: skip
"""Each setting's values: common ones, those at its ends, and some beyond."""


def settings(chance: Random, pictures: list[str]) -> dict[str, Any]:
    """Some settings, of which most can be."""
    given = {name: chance.choice(values) for name, values in VALUES.items() if values and chance.random() < 0.12}
    given |= {"steps": chance.choice((1, 1, 2)), "octaves": chance.choice((1, 1, 2)), "model": chance.choice(MODELS)}
    if given["model"] != MODELS[0]:
        given["weights"] = "untrained"
    if chance.random() < 0.7:
        given["layers"] = tuple(chance.choices(LAYERS, k=chance.choice((1, 1, 2, 3))))
    for name in ("guide", "mask"):
        if chance.random() < 0.15:
            given[name] = chance.choice(pictures)
    return given


@contextmanager
def recipes(scratch: Path) -> Iterator[Attempt]:
    """A recipe of random settings on a small picture, in memory or by way of the disk, and what it makes of it."""
    coffee = imagefile.read("sample:coffee").image
    names = []
    for height, width in ((48, 64), (1, 1), (1, 90), (77, 2), (90, 61), (33, 33)):
        names.append(str(scratch / f"{height}x{width}.png"))
        imagefile.write(names[-1], resize(coffee, (height, width)))
    imagefile.write(scratch / "clear.png", torch.zeros(3, 40, 40), alpha=torch.zeros(40, 40))
    names += [str(scratch / "clear.png"), "noise:30x50"]
    _load_all(names[0])

    def attempt(chance: Random) -> Counter[str]:
        given, source = settings(chance, [*names[:-1], "none.png"]), chance.choice(names)
        memory = chance.choice((None, None, None, "1B", "300MB"))
        try:
            recipe = choose(given)
            job = prepare(source, recipe, "cpu", memory)
            dreamed = run(job)
        except PhospheneError as error:
            if "\n" in str(error):
                raise FindingError(f"{given} on {source}: {error}") from error
            return Counter([type(error).__name__])
        except Exception as error:
            raise FindingError(f"{given} on {source} with {memory}") from error
        _check(dreamed, f"{given} on {source} with {memory}")
        return Counter(["dreamed by way of the disk" if hasattr(job, "scratch") else "dreamed in memory"])

    yield attempt


def _load_all(picture: str) -> None:
    """Dream with each network in memory and by way of the disk, so that what is loaded once is there before memory is
    watched."""
    for model in dict.fromkeys(MODELS):
        weights = "pretrained" if model == MODELS[0] else "untrained"
        for memory in (None, "1B"):
            with suppress(PhospheneError):
                run(prepare(picture, choose({"model": model, "weights": weights, "steps": 1}), "cpu", memory))


def _check(dreamed: Any, what: str) -> None:
    image = dreamed.image
    if tuple(image.shape[1:]) != tuple(dreamed.made.size):
        raise FindingError(f"{what}: {image.shape} is not {dreamed.made.size}")
    if not (image.isfinite().all() and image.min() >= 0 and image.max() <= 1):
        raise FindingError(f"{what}: pixels beyond 0 to 1")
    if from_toml(to_toml(dreamed.recipe, dreamed.made))[0] != dreamed.recipe:
        raise FindingError(f"{what}: its recipe is another one when it is read again")


@contextmanager
def recipe_texts(scratch: Path) -> Iterator[Attempt]:
    """Pictures whose recipe was damaged: read back, or one sentence."""
    made = run(prepare("noise:8x8", Recipe(layers=("blocks.1.1",), octaves=1, steps=1), "cpu"))
    text = to_toml(made.recipe, made.made)

    def attempt(chance: Random) -> Counter[str]:
        out = Counter[str]()
        for _ in range(50):
            given = mutated(text.encode(), chance).decode(errors="replace")
            try:
                from_toml(given)
                out["read"] += 1
            except PhospheneError as error:
                out["refused"] += 1
                if "\n" in str(error):
                    raise FindingError(f"{given!r}: {error}") from error
        return out

    yield attempt
