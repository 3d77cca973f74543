"""A page for a Hugging Face Space, on two CPU cores: a photograph in, a growing dream out. Needs gradio and phosphene."""

from collections.abc import Iterator

import gradio
import numpy as np

import phosphene
from phosphene.recipe.looks import DEFAULT_LOOK, LOOKS


def dream(photograph: np.ndarray, look: str, strength: float) -> Iterator[np.ndarray]:
    """Dream a photograph [height, width, 3], and give the picture after every few steps."""
    for step in phosphene.steps(photograph, look=look, size=512, step_size=strength):
        if step.step % 3 == 0 or step.is_last:
            yield (step.image.movedim(0, 2).numpy() * 255).round().astype(np.uint8)


page = gradio.Interface(
    dream,
    [
        gradio.Image(type="numpy", label="photograph"),
        gradio.Dropdown(list(LOOKS["efficientnet_lite0"]), value=DEFAULT_LOOK, label="look"),
        gradio.Slider(0.002, 0.03, value=0.008, label="strength"),
    ],
    gradio.Image(label="dream"),
    title="Phosphene",
    description="DeepDream: what an image network faintly sees in your photograph.",
)

if __name__ == "__main__":
    page.launch()
