"""Where a zoom looks: cuts out of larger pictures, each frame by one resampling of a dreamed picture.

The view at a time t is a part of an endless plane: `rate**t` times smaller than at first, turned by `turn * t`, about
one point that stays in its place. Every `step` seconds there is a *key*: a picture of the plane as far as the view of
the key before it reached, fine enough for the view of the next one. A frame between two keys is cut out of both, and
goes over from the one to the other. So times and speeds are those of a second, and not of a frame.
"""

import math
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from phosphene.dreaming.resample import resize
from phosphene.film.settings import Zoom
from phosphene.types import Image, Plane, Size

KEY_RATIO = math.sqrt(2)
"""How much smaller the view is at the next key, about. A key has its square times the pixels of a frame, each way."""

WIDEST = 1.5
"""How much wider than without turning a key is at most; what lies beyond is mirrored."""

Key = Float[Tensor, "3 key_height key_width"]
Photograph = Float[Tensor, "3 full_height full_width"]

Affine = NDArray[np.float64]
"""[2, 3]: places (column, row) in one picture to places in another; pixel k is at k + 0.5."""


@dataclass(frozen=True)
class Course:
    """A zoom's views and keys: `size` is a frame's height and width, `keys` how many steps there are."""

    zoom: Zoom
    size: Size

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return max(1, round(self.zoom.seconds * self.zoom.fps))

    @property
    def seconds(self) -> float:
        """How long the frames last."""
        return self.frames / self.zoom.fps

    @property
    def keys(self) -> int:
        """How many keys there are after the first."""
        return max(1, round(self.seconds * math.log(self.zoom.rate) / math.log(KEY_RATIO)))

    @property
    def step(self) -> float:
        """Seconds between two keys."""
        return self.seconds / self.keys

    @property
    def ratio(self) -> float:
        """How much smaller the view is at the next key."""
        return float(self.zoom.rate**self.step)

    @property
    def still(self) -> NDArray[np.float64]:
        """Column and row, in px of a frame, of what stays in its place."""
        row, column = self.zoom.centre
        return np.array([column * self.size[1], row * self.size[0]])

    @property
    def width(self) -> float:
        """How much wider a key is than a frame: the view of the key before it, and what turning asks for."""
        turned = math.radians(self.zoom.turn * self.step)
        right, left = np.maximum(np.array(self.size[::-1]) - self.still, 1e-6), np.maximum(self.still, 1e-6)
        corners = [np.array(corner) for corner in product((-left[0], right[0]), (-left[1], right[1]))]
        turns = [_rotation(sign * turned) @ corner for corner in corners for sign in (-1, 1)]
        wider = max(float(np.max(np.where(place > 0, place / right, -place / left))) for place in turns)
        return self.ratio**2 * min(wider, WIDEST)

    @property
    def key_size(self) -> Size:
        """Height and width of a key."""
        height, width = (math.ceil(side * self.width - 1e-6) for side in self.size)
        return height, width

    def between(self, key: int, other: int) -> Affine:
        """Where the pixels of a key are in another one."""
        return self._affine(self.ratio ** (other - key), (key - other) * self.step, self._middle, self._middle)

    def view_in(self, key: int, time: float) -> Affine:
        """Where the pixels of the view at a time are in a key."""
        shrunk = self.ratio ** (key + 1) / self.zoom.rate**time
        return self._affine(shrunk, time - key * self.step, self.still, self._middle)

    @property
    def _middle(self) -> NDArray[np.float64]:
        return self.still * self.width

    def _affine(self, scale: float, seconds: float, here: NDArray[np.float64], there: NDArray[np.float64]) -> Affine:
        turn = scale * _rotation(math.radians(self.zoom.turn * seconds))
        return np.column_stack([turn, there - turn @ here])

    def frame(self, time: float, first: int, before: Key, after: Key) -> Image:
        """Cut a frame out of the keys before and after it, of which `first` is the number of the one before."""
        share = time / self.step - first
        one, other = (cut(key, self.view_in(first + k, time), self.size) for k, key in enumerate((before, after)))
        return torch.lerp(one, other, share).clamp(0, 1)

    def key_of(self, photograph: Photograph) -> Key:
        """Return the first key: the photograph fills the view, and is mirrored beyond."""
        size = round(self.size[0] * self.ratio), round(self.size[1] * self.ratio)
        fine = resize(photograph, size)
        stretch = np.array([size[1] / self.size[1], size[0] / self.size[0]]) / self.ratio
        places = np.column_stack([np.diag(stretch), (self.still * self.ratio - self._middle) * stretch])
        return sample(fine, places, self.key_size)

    def next_key(self, key: Key, number: int) -> Key:
        """Enlarge the inner part of a key to the one with this number."""
        return sample(key, self.between(number, number - 1), self.key_size)

    def with_end(self, key: Key, number: int, first: Key) -> Key:
        """Put the first key, which is to come again as the last, into one on the way to it."""
        places = self.between(number, self.keys)
        shrunk = self.ratio ** (number - self.keys)
        small = round(self.key_size[0] * shrunk), round(self.key_size[1] * shrunk)
        if min(small) < 8:
            return key
        to_small = np.diag([small[1] / self.key_size[1], small[0] / self.key_size[0]]) @ places
        weight = sample(resize(self._inside()[None], small), to_small, self.key_size, cv2.BORDER_CONSTANT)
        return torch.lerp(key, sample(resize(first, small), to_small, self.key_size), weight.clamp(0, 1))

    def _inside(self) -> Plane:
        """1 where a key's own view is, falling to 0 at its border."""
        height, width = self.key_size
        rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
        (column, row), (still_column, still_row) = self._middle, self.still * self.ratio
        ends = np.array(self.size[::-1]) * self.ratio
        top, left = row - still_row, column - still_column
        bottom, right = height - (top + ends[1]), width - (left + ends[0])
        sides = (rows / top, (height - rows) / bottom, columns / left, (width - columns) / right)
        share = torch.stack([side.float().expand(height, width) for side in sides]).amin(0).clamp(0, 1)
        return share * share * (3 - 2 * share)


def cut(key: Key, places: Affine, size: Size) -> Image:
    """Cut a frame out of a key. It is sampled twice as finely as it has pixels, so that nothing aliases."""
    half = places @ np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]])
    return resize(sample(key, half, (2 * size[0], 2 * size[1])), size)


def sample(picture: torch.Tensor, places: Affine, size: Size, border: int = cv2.BORDER_REFLECT) -> torch.Tensor:
    """Return the picture of `size` whose pixels lie at `places` in the given one; bicubic."""
    matrix = places.copy()
    matrix[:, 2] += places[:, :2] @ [0.5, 0.5] - 0.5
    pixels = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    found = cv2.warpAffine(pixels, matrix, (size[1], size[0]), flags=flags, borderMode=border)
    return torch.from_numpy(found.reshape(*size, -1)).permute(2, 0, 1)


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
