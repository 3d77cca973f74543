"""Words as pixels, for contact sheets."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch

from phosphene.types import Plane


def lettering(text: str, size: int) -> Plane:
    """Set a line of text in the font that comes with Pillow, `size` px high: how much ink each pixel has, 0..1."""
    font = PIL.ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text or " ")
    canvas = PIL.Image.new("L", (round(right - left) + 2, round(size * 1.4)))
    PIL.ImageDraw.Draw(canvas).text((1 - left, round(size * 0.1)), text, fill=255, font=font)
    return torch.from_numpy(np.asarray(canvas, dtype=np.float32) / 255)
