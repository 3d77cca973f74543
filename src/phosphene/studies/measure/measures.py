"""What a dream is measured by: each measure once, with its formula and its source.

A measure of a picture compares the dream with its photograph; a distance compares two dreams. Pictures are `Image`s of
one size. A picture against itself has change 0, strength 0, SSIM 1, colour shift 0 and distance 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.resample import laplacian_bands, resize
from phosphene.dreaming.strength import rms_change
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.networks.network import Network
from phosphene.recipe.settings import Eye
from phosphene.setup.session import load_network
from phosphene.types import Image, Plane

BANDS = 5
"""Octave bands that are looked at; the finest holds wavelengths of about 2 to 4 px, each next twice as long ones."""

LEAST_SIDE = 11
"""Side, in px, of the window of structural similarity, and so of the smallest picture that is measured."""

LONGEST_LOOK = 512
"""Long side, in px, at which the default network looks at a picture to compare it with another."""


@dataclass(frozen=True)
class Measure:
    """A measure: its column in the tables, its name and unit, its formula in words, and where that comes from."""

    column: str
    name: str
    unit: str
    formula: str
    source: str


def band_energies(image: Image) -> list[float]:
    """Mean square of each of `BANDS` octave bands of the luma's Laplacian pyramid, fine to coarse; pixel units squared.

    Bands that a small picture has no room for are 0. What is coarser than the last band is not counted.
    """
    bands = laplacian_bands(_luma(image)[None], BANDS + 1)[:-1]
    return [float(band.square().mean()) for band in bands] + [0.0] * (BANDS - len(bands))


def energies_added(dream: Image, photograph: Image) -> list[float]:
    """Each band's energy in the dream, less that in the photograph; negative where the dream is smoother."""
    pairs = zip(band_energies(dream), band_energies(photograph), strict=True)
    return [after - before for after, before in pairs]


def ssim(dream: Image, photograph: Image) -> float:
    """Structural similarity of the lumas, at most 1, with the window and constants of Wang et al. 2004.

    Raises `ValueError` for pictures with a side below `LEAST_SIDE`.
    """
    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        _luma(dream).numpy(),
        _luma(photograph).numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(similarity)


def colour_shift(dream: Image, photograph: Image) -> float:
    """Mean CIEDE2000 colour difference over all pixels; about 1 is just noticeable, 100 is black to white."""
    return float(deltaE_ciede2000(_lab(photograph), _lab(dream)).mean())  # type: ignore[no-untyped-call]


def looked_at(image: Image) -> list[torch.Tensor]:
    """What the embedded default network sees: unit vectors [channels, places], for each layer of its card."""
    network = _judge()
    image = resize(image, fit_within((image.shape[1], image.shape[2]), LONGEST_LOOK))
    nodes = [network.resolve(layer)[0] for layer in network.card.layers]
    with torch.no_grad():
        seen = network.features(nodes)(image[None])
    return [torch.nn.functional.normalize(seen[node][0].flatten(1), dim=0) for node in nodes]


def feature_distance(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Mean, over layers and places, of the squared distance between unit feature vectors; 0 to 4.

    Zhang et al. 2018, equation 1, with all of its learned channel weights set to 1, over the mean of the layers.
    """
    return float(np.mean([float((a - b).square().sum(0).mean()) for a, b in zip(one, other, strict=True)]))


PICTURE_MEASURES: Mapping[str, Callable[[Image, Image], float]] = {
    "change": rms_change,
    "strength": lambda dream, photograph: sum(energies_added(dream, photograph)),
    "ssim": ssim,
    "colour_shift": colour_shift,
}
"""Measures of a dream against its photograph, by column."""

MEASURES = (
    Measure(
        "change",
        "Change",
        "pixel units, 0 to 1",
        "The root mean square, over pixels and channels, of dream minus photograph.",
        "The yardstick by which strength is made equal.",
    ),
    Measure(
        "strength",
        "Pattern strength",
        "pixel units squared",
        f"Energy added by octave band: the mean square of each of the {BANDS} finest bands of the luma’s Laplacian "
        "pyramid in the dream, less the same in the photograph; the strength is their sum.",
        "Burt and Adelson, The Laplacian Pyramid as a Compact Image Code, 1983.",
    ),
    Measure(
        "ssim",
        "Structure kept",
        "SSIM, at most 1",
        "Structural similarity of the lumas of dream and photograph: Gaussian window, standard deviation 1.5 px, "
        "K1 = 0.01, K2 = 0.03.",
        "Wang, Bovik, Sheikh and Simoncelli, Image Quality Assessment, 2004.",
    ),
    Measure(
        "colour_shift",
        "Colour shift",
        "ΔE00",
        "The mean CIEDE2000 difference between a pixel of the dream and of the photograph.",
        "Sharma, Wu and Dalal, The CIEDE2000 Color-Difference Formula, 2005.",
    ),
    Measure(
        "score_gain",
        "Score gained",
        "times",
        "The score that the dream climbed: the dream’s over the photograph’s, both at full size and unshifted.",
        "The objective itself; its curve over the steps is relative to the photograph’s too.",
    ),
    Measure(
        "uniqueness_features",
        "Uniqueness, in features",
        "squared distance, at most 4",
        "The mean distance of a dream to the others beside it: of the default network’s unit feature vectors, squared, "
        "over places and its card’s layers.",
        "Zhang, Isola, Efros, Shechtman and Wang, The Unreasonable Effectiveness of Deep Features, 2018, equation 1 "
        "without learned weights.",
    ),
    Measure(
        "uniqueness_pixels",
        "Uniqueness, in pixels",
        "pixel units, 0 to 1",
        "The mean distance of a dream to the others beside it: root mean square over pixels and channels.",
        "The same mean, in the plainest space.",
    ),
    Measure(
        "seeds_features",
        "Distance to its other seeds, in features",
        "squared distance, at most 4",
        "The mean distance of a dream to those of the same network and layer with other seeds, in features as above.",
        "What uniqueness is to be held against.",
    ),
)


@lru_cache(maxsize=1)
def _judge() -> Network:
    return load_network(Eye(model=DEFAULT_MODEL))


def _luma(image: Image) -> Plane:
    """Y' of ITU-R BT.601, 0..1."""
    return torch.einsum("chw,c->hw", image.double(), torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64))


def _lab(image: Image) -> NDArray[np.float64]:
    lab: NDArray[np.float64] = rgb2lab(image.double().permute(1, 2, 0).numpy())
    return lab
