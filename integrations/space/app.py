"""A page for a Hugging Face Space, on two CPU cores: a photograph in, a growing dream out. Needs gradio and phosphene.

Tried with Gradio 6.31 in Chromium: the dream grows, Stop ends it, and what is wrong is said in one sentence.
"""

from collections.abc import Iterator

import gradio
import numpy as np

import phosphene
from phosphene.recipe.looks import DEFAULT_LOOK, LOOKS


def dream(photograph: np.ndarray | None, look: str, strength: float) -> Iterator[np.ndarray]:
    """Dream a photograph [height, width, 3], and give the picture after every few steps."""
    if photograph is None:
        gradio.Warning("Give it a photograph first.")  # after an error Gradio 6 leaves its button at Stop
        return
    try:
        steps = phosphene.steps(photograph, look=look, size=512, step_size=strength)
        for step in steps:
            if step.step % 3 == 0 or step.is_last:
                yield (steps.dream.image.movedim(0, 2).numpy() * 255).round().astype(np.uint8)
    except phosphene.PhospheneError as error:
        gradio.Warning(str(error))


page = gradio.Interface(
    dream,
    [
        gradio.Image(type="numpy", label="photograph"),
        gradio.Dropdown(list(LOOKS["efficientnet_lite0"]), value=DEFAULT_LOOK, label="look"),
        gradio.Slider(0.002, 0.03, value=0.008, step=0.001, label="strength"),
    ],
    gradio.Image(label="dream"),
    title="Phosphene",
    description="DeepDream: what an image network faintly sees in your photograph.",
    submit_btn="Dream",
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
