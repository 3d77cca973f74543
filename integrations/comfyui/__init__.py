"""Phosphene in ComfyUI: a node that dreams, with a look or a layer, a mask, a live preview, cancel and batches.

Put this folder into ComfyUI's `custom_nodes`, and install Phosphene into ComfyUI's Python (`pip install phosphene`). It is
written for the documented V3 schema of nodes (docs.comfy.org/custom-nodes/v3_migration).
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import ComfyExtension, io
from PIL import Image

import phosphene
from phosphene.recipe.looks import LOOKS
from phosphene.types import Step

MODEL = "efficientnet_lite0"
NO_LOOK = "(a layer)"
PREVIEW_EVERY = 5


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
        hear = _listener(len(image) * steps * octaves)
        with tempfile.TemporaryDirectory() as folder:
            dreams = [
                phosphene.dream(
                    each[..., :3].movedim(2, 0),
                    on_step=hear,
                    **settings,
                    **({"mask": _mask_file(mask, index, Path(folder))} if mask is not None else {}),
                ).image.movedim(0, 2)
                for index, each in enumerate(image)
            ]
        return io.NodeOutput(torch.stack(dreams).to(image.device))


def _mask_file(mask: torch.Tensor, index: int, folder: Path) -> str:
    """Write the mask [batch, height, width] of an image of a batch as a grey picture."""
    path = folder / f"mask{index}.png"
    grey = (mask[min(index, len(mask) - 1)].clamp(0, 1) * 255).round().byte().cpu().numpy()
    Image.fromarray(grey).save(path)
    return str(path)


def _listener(total: int) -> Callable[[Step], None]:
    """Show progress with a picture now and then, and let ComfyUI's cancel end the dream: it raises within."""
    from comfy.model_management import throw_exception_if_processing_interrupted
    from comfy_api.latest import ComfyAPISync

    execution, heard = ComfyAPISync().execution, 0

    def hear(step: Step) -> None:
        nonlocal heard
        heard += 1
        throw_exception_if_processing_interrupted()
        shown = heard % PREVIEW_EVERY == 0
        pixels = (step.image.movedim(0, 2).clamp(0, 1) * 255).round().byte().cpu().numpy() if shown else None
        preview = Image.fromarray(np.ascontiguousarray(pixels)) if pixels is not None else None
        execution.set_progress(value=min(heard, total), max_value=total, preview_image=preview)

    return hear


class Phosphene(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes."""
        return [Dream]


async def comfy_entrypoint() -> Phosphene:
    """Return the extension, as ComfyUI wants it."""
    return Phosphene()
