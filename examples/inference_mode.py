"""Inside somebody's inference mode, as in ComfyUI and many servers: nothing to look after."""

import torch

import phosphene

with torch.inference_mode():
    inside = phosphene.dream("sample:coffee", size=64, steps=2, octaves=1)
outside = phosphene.dream("sample:coffee", size=64, steps=2, octaves=1)
assert torch.equal(inside.image, outside.image)
