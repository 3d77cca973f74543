"""Phosphene dreams photographs: it raises what an image network faintly sees until anyone can see it.

    import phosphene
    dream = phosphene.dream("photo.jpg", look="creatures")
    dream.save("dream.png")

Names are loaded when they are first used, so that `import phosphene` and `phosphene --help` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phosphene.api import dream as dream
    from phosphene.api import dream_each as dream_each
    from phosphene.api import layers as layers
    from phosphene.api import replay as replay
    from phosphene.api import resume as resume
    from phosphene.errors import PhospheneError as PhospheneError
    from phosphene.film.api import animate as animate
    from phosphene.film.api import frames as frames
    from phosphene.film.api import replay_film as replay_film
    from phosphene.film.api import resume_film as resume_film
    from phosphene.film.api import zoom as zoom
    from phosphene.film.frames import Frame as Frame
    from phosphene.live import dream_async as dream_async
    from phosphene.live import steps as steps
    from phosphene.networks.card import ModelCard as ModelCard
    from phosphene.networks.cards import register as register
    from phosphene.notebook import watch as watch
    from phosphene.recipe.own import mask as mask
    from phosphene.recipe.own import norm as norm
    from phosphene.recipe.settings import Recipe as Recipe
    from phosphene.recipe.terms import Objective as Objective
    from phosphene.recipe.terms import channel as channel
    from phosphene.recipe.terms import label as label
    from phosphene.recipe.terms import layer as layer
    from phosphene.recipe.terms import neuron as neuron
    from phosphene.recipe.terms import term as term
    from phosphene.studies.api import compare as compare
    from phosphene.studies.api import sweep as sweep
    from phosphene.studies.survey import survey as survey
    from phosphene.types import Step as Step
    from phosphene.verbs import Dream as Dream

_HOMES = {
    "dream": "api",
    "dream_each": "api",
    "dream_async": "live",
    "steps": "live",
    "watch": "notebook",
    "layers": "api",
    "replay": "api",
    "resume": "api",
    "Dream": "verbs",
    "PhospheneError": "errors",
    "animate": "film.api",
    "frames": "film.api",
    "replay_film": "film.api",
    "resume_film": "film.api",
    "zoom": "film.api",
    "Frame": "film.frames",
    "ModelCard": "networks.card",
    "register": "networks.cards",
    "Recipe": "recipe.settings",
    "Objective": "recipe.terms",
    "channel": "recipe.terms",
    "label": "recipe.terms",
    "mask": "recipe.own",
    "norm": "recipe.own",
    "layer": "recipe.terms",
    "neuron": "recipe.terms",
    "term": "recipe.terms",
    "compare": "studies.api",
    "sweep": "studies.api",
    "survey": "studies.survey",
    "Step": "types",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'phosphene' has no attribute {name!r}")
    value = getattr(import_module(f"phosphene.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
