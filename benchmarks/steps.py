"""Whether larger steps, momentum or Adam reach the default loop's score in fewer steps, on three photographs.

Each photograph is dreamed at 320 px with the default look: the default loop first, then each of the others with fewer
steps in each octave, until one number of steps reaches the score that the default's last step saw (all dreams are
scored after their last step, whole and not rolled). Prints each number of steps that was tried, and writes the last
pictures side by side into FOLDER. Steps cost the same, so time goes with their number.

    python benchmarks/steps.py FOLDER
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from phosphene import imagefile
from phosphene.dreaming.ascent import climb
from phosphene.dreaming.norms import divisions, normalise
from phosphene.dreaming.render import IN_MEMORY, render
from phosphene.job import prepare
from phosphene.recipe.settings import Recipe
from phosphene.types import Image

SETTINGS = {"size": 320, "layers": ("blocks.4.2", "blocks.5.1")}
PHOTOGRAPHS = ("sample:coffee", "sample:chelsea", "sample:rocket")
FEWER = (3, 5, 7, 10, 15)


def slope(gradient: Image, settings: Recipe) -> Image:
    return normalise(gradient, divisions(settings.norm))


def momentum(decay: float) -> Callable:
    """Heavy ball: the running sum of slopes is climbed; it starts anew where the size changes."""
    speed = torch.zeros(1)

    def step(image, gradient, settings, mask):
        nonlocal speed
        fresh = speed.shape != image.shape
        speed = slope(gradient, settings) + (0 if fresh else decay * speed)
        return climb(image, speed, settings, mask)

    return step


def adam(first: float = 0.9, second: float = 0.99) -> Callable:
    """Kingma and Ba 2015 (arXiv:1412.6980), with the bias correction, on the normalised gradient."""
    state: dict = {"shape": None}

    def step(image, gradient, settings, mask):
        g = slope(gradient, settings)
        if state["shape"] != image.shape:
            state.update(shape=image.shape, n=0, m=torch.zeros_like(g), v=torch.zeros_like(g))
        state["n"] += 1
        state["m"] = first * state["m"] + (1 - first) * g
        state["v"] = second * state["v"] + (1 - second) * g.square()
        mean, square = state["m"] / (1 - first ** state["n"]), state["v"] / (1 - second ** state["n"])
        return climb(image, mean / (square.sqrt() + 1e-8), settings, mask)

    return step


def following(image, gradient, settings, mask):
    """Larger steps in the coarse octaves, whose steps cost little: as many times as the last octave is larger."""
    larger = SETTINGS["size"] / max(image.shape)
    return IN_MEMORY.step(image, gradient, settings.but(step_size=min(1.0, settings.step_size * larger)), mask)


WAYS = {
    "larger steps": lambda steps: (15 / steps, IN_MEMORY.step),
    "larger steps, 1.5 times as far": lambda steps: (1.5 * 15 / steps, IN_MEMORY.step),
    "larger steps, twice as far": lambda steps: (2 * 15 / steps, IN_MEMORY.step),
    "larger in the coarse octaves": lambda steps: (15 / steps, following),
    "momentum 0.5": lambda steps: (15 / steps / 2, momentum(0.5)),
    "momentum 0.9": lambda steps: (15 / steps / 4, momentum(0.9)),
    "Adam": lambda steps: (15 / steps, adam()),
}
"""How each way takes a number of steps: the factor of the step size, and the step."""


def dream(photograph: str, steps: int, factor: float, step: Callable) -> tuple[float, Image, float]:
    """Return the score after the last step, the dream, and the root mean square of what changed in the picture."""
    recipe = Recipe(**SETTINGS, steps=steps, step_size=min(1.0, Recipe().step_size * factor))
    job = prepare(photograph, recipe)
    medium = SimpleNamespace(resize=IN_MEMORY.resize, reinject=IN_MEMORY.reinject, step=step, finish=IN_MEMORY.finish)
    *_, last = render(job.image, job.gradient_of, job.recipe, job.rng, min_side=job.min_side, medium=medium)
    change = (last.image - job.image).square().mean().sqrt().item()
    return job.gradient_of(last.image, (0, 0))[0], last.image, change


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    print("| photograph | way | steps an octave | of the default's score | of its change |\n|" + " --- |" * 5)
    for photograph in PHOTOGRAPHS:
        wanted, image, usual = dream(photograph, 15, 1, IN_MEMORY.step)
        sheet = [image]
        for name, way in WAYS.items():
            for steps in FEWER:
                factor, step = way(steps)
                score, image, change = dream(photograph, steps, factor, step)
                print(f"| {photograph} | {name} | {steps} | {score / wanted:.2f} | {change / usual:.2f} |", flush=True)
                if score >= wanted:
                    break
            sheet.append(image)
        imagefile.write(folder / f"{photograph.removeprefix('sample:')}.png", torch.cat(sheet, 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
