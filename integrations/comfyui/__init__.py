"""Phosphene in ComfyUI: a node that dreams, with a look or a layer, a mask, a live preview, cancel and batches.

Put this folder into ComfyUI's `custom_nodes`, and install Phosphene into ComfyUI's Python (`pip install phosphene`). It is
written for the V3 schema of nodes; README.md says what it was tried with.
"""

from collections.abc import Callable
from typing import Any

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io
from PIL import Image

import phosphene
from phosphene.recipe.looks import LOOKS
from phosphene.types import Step

MODEL = "efficientnet_lite0"
NO_LOOK = "(a layer)"
PREVIEW_EVERY = 5

LARGEST = 512
"""Long side of a preview, in px."""


class Dream(io.ComfyNode):
    """Raise what an image network faintly sees in a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what goes in and out."""
        return io.Schema(
            node_id="PhospheneDream",
            display_name="Phosphene DeepDream",
            category="image/phosphene",
            description="DeepDream: raises what an image network faintly sees.",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("look", options=[*LOOKS[MODEL], NO_LOOK], default="creatures"),
                io.String.Input("model", default=MODEL, tooltip="With another model, choose a layer."),
                io.String.Input("layer", default="", tooltip="A layer to raise in place of the look's."),
                io.Float.Input("step_size", default=0.008, min=0.0005, max=0.1, step=0.0005),
                io.Int.Input("steps", default=15, min=1, max=1000),
                io.Int.Input("octaves", default=5, min=1, max=30),
                io.Int.Input("seed", default=0, min=0, max=2**31 - 1),
                io.Mask.Input("mask", optional=True, tooltip="White is dreamed."),
            ],
            outputs=[io.Image.Output(display_name="dream")],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        look: str,
        model: str,
        layer: str,
        step_size: float,
        steps: int,
        octaves: int,
        seed: int,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        """Dream a batch of images [batch, height, width, 3] in 0..1, in any of torch's modes."""
        settings: dict[str, Any] = {
            "model": model, "step_size": step_size, "steps": steps, "octaves": octaves, "seed": seed, "size": "full",
        }  # fmt: skip
        if layer:
            settings["layers"] = layer
        elif look != NO_LOOK and model == MODEL:
            settings["look"] = look
        dreams = [
            phosphene.dream(
                each[..., :3].movedim(2, 0),
                on_step=_listener(index, len(image)),
                mask=None if mask is None else mask[min(index, len(mask) - 1)],
                **settings,
            ).image.movedim(0, 2)
            for index, each in enumerate(image)
        ]
        return io.NodeOutput(torch.stack(dreams).to(image.device))


def _listener(index: int, images: int) -> Callable[[Step], None]:
    """Show the progress of one of several images, with a picture now and then; ComfyUI's cancel raises within."""
    bar = ProgressBar(100 * images)

    def hear(step: Step) -> None:
        throw_exception_if_processing_interrupted()
        shown = step.step % PREVIEW_EVERY == 0 or step.is_last
        preview = ("JPEG", _picture(step.image), LARGEST) if shown else None
        bar.update_absolute(round(100 * (index + step.progress)), preview=preview)

    return hear


def _picture(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image.movedim(0, 2).clamp(0, 1) * 255).round().byte().cpu().numpy())


class Phosphene(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes."""
        return [Dream]


async def comfy_entrypoint() -> Phosphene:
    """Return the extension, as ComfyUI wants it."""
    return Phosphene()
