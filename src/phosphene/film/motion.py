"""Optical flow between two frames: where each pixel was before, and which pixels were hidden.

A `Flow` is a function, so that another can take its place. A dream is carried to the next frame along the *backward*
flow: each pixel of the next frame looks up where it was. (The forward flow, read at the pixel where it arrives, is
another pixel's motion; tools that warp by it smear along every edge.)
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from phosphene.errors import UsageError
from phosphene.types import Image, Plane

try:
    import cv2
except ImportError:
    raise UsageError("films need PyAV and OpenCV: pip install 'phosphene[video]'") from None

Field = Float[Tensor, "2 height width"]
"""For each pixel of a frame, how far right and down of it (px) the same thing is in another frame."""

Flow = Callable[[Image, Image], Field]
"""`flow(frame, other)`: the motion from `frame` to `other`, for each pixel of `frame`."""

SMALLEST = 16
"""Sides, in px, below which there is no flow to be found."""

SMOOTHING = 4
"""Standard deviation, in px, of the blur of both flows before they are compared."""

VOTERS = 6 * SMOOTHING + 1
"""Side, in px, of the square by whose majority a place counts as hidden. It is as far as the blur reaches, so smaller
spots are noise."""

SOFTNESS = 0.8
"""Standard deviation, in px, by which the border of what was hidden is softened (Ruder et al.)."""

CUT = 0.15
"""If less than this share of a frame's pixels is matched in the one before, there is a cut between them. It is 0.01 at
most where one photograph follows another, 0.86 where a picture is half as bright, 0.55 where it moved by a fifth."""


def dis(frame: Image, other: Image) -> Field:
    """Dense inverse search (Kroeger et al., 2016) in its finest settings: to single pixels, 192 iterations; 20 of the
    refinement, for then noise moves it less."""
    if min(frame.shape[1:]) < SMALLEST:
        return torch.zeros(2, *frame.shape[1:])
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setGradientDescentIterations(192)
    search.setPatchSize(8)
    search.setPatchStride(4)
    search.setVariationalRefinementIterations(20)
    initial = np.zeros((*frame.shape[1:], 2), np.float32)
    return torch.from_numpy(search.calc(_grey(frame), _grey(other), initial)).permute(2, 0, 1)


def warp(image: Float[Tensor, "channels height width"], motion: Field) -> Float[Tensor, "channels height width"]:
    """Return what each pixel finds in `image` where `motion` points to: bicubic, the border repeated."""
    rows, columns = _places(motion)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    warped = cv2.remap(pixels, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(warped.reshape(*warped.shape[:2], -1)).permute(2, 0, 1)


def consistency_mask(backward: Field, forward: Field) -> Plane:
    """Return 1 where a place was seen before, 0 where it was hidden, outside, or on the edge of a motion.

    `backward` is the flow from a frame to the one before it, `forward` the other way. Where both are right they cancel;
    the bounds are those of Ruder, Dosovitskiy and Brox, "Artistic style transfer for videos", 2016. The majority of a
    pixel's neighbours decides.
    """
    height, width = backward.shape[1:]
    backward, forward = _blurred(backward, SMOOTHING), _blurred(forward, SMOOTHING)
    returned = warp(forward, backward)
    size = backward.square().sum(0) + returned.square().sum(0)
    hidden = (backward + returned).square().sum(0) >= 0.01 * size + 0.5
    down, right = torch.gradient(backward, dim=(1, 2))
    edge = (down.square() + right.square()).sum(0) > 0.01 * backward.square().sum(0) + 0.002
    rows, columns = map(torch.from_numpy, _places(backward))
    outside = (rows < 0) | (rows > height - 1) | (columns < 0) | (columns > width - 1)
    return (~(_majority(hidden | edge) | outside)).float()


def is_cut(seen: Plane) -> bool:
    """Whether so little was seen before that another scene begins."""
    return float(seen.mean()) < CUT


def softened(seen: Plane) -> Plane:
    """Let what was hidden reach a little into what was seen, so that nothing is carried over its border."""
    return _blurred((2 * seen - 1)[None], SOFTNESS)[0].clamp(0, 1)


def _blurred(planes: Float[Tensor, "channels height width"], sigma: float) -> Float[Tensor, "channels height width"]:
    return torch.from_numpy(np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in planes.numpy()]))


def _majority(mask: Bool[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    return torch.from_numpy(cv2.medianBlur(mask.numpy().astype(np.uint8), VOTERS)) > 0


def _places(motion: Field) -> tuple[np.ndarray, np.ndarray]:
    height, width = motion.shape[1:]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return rows + motion[1].numpy(), columns + motion[0].numpy()


def _grey(image: Image) -> np.ndarray:
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
