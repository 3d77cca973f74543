"""Tiled is whole for every layer of our models' cards, at odd sizes, rolled, one window at a time or several."""

import copy

import pytest
import torch

from phosphene.dreaming.objective import Energy, Scoring
from phosphene.dreaming.stages import whole_image_gradient
from phosphene.dreaming.tiling import round_up
from phosphene.networks.cards import CARDS
from phosphene.networks.network import Network
from phosphene.networks.registry import named
from phosphene.recipe.settings import Eye, Recipe
from phosphene.setup.builders import bounded_fields, gradient_fn, stages_of
from phosphene.setup.session import load_network

LAYERS = [
    (card, layer) for card in named() if card.name in {"efficientnet_lite0", "resnet50"} for layer in card.layers
] + [
    (CARDS["inception_v3"], "Mixed_5b"),
    (CARDS["vgg19"], "block3_conv3"),
    # What Keras has of its own: pools that count only what is there, and strides in other places.
    (CARDS["keras/inception_v3"], "mixed2"),
    (CARDS["keras/resnet50"], "conv3_block4_out"),
]
TILE = 64


@pytest.mark.slow
@pytest.mark.parametrize(("card", "layer"), LAYERS, ids=lambda value: getattr(value, "name", value))
def test_every_layer_tiled_is_whole(photo, card, layer):
    """The image is long and narrow: long enough that windows are parts of it, and narrow, to be quick.

    The last layer that is looked at sees up to 1300 px. In float64, since in float32 a unit at the kink of its ReLU may
    be rounded to either side of it, in a tile to another than in the whole image.
    """
    network = load_network(Eye(model=card.name, weights="pretrained" if card.source == "package" else "untrained"))
    network = Network(card, copy.deepcopy(network.module).double(), network.weights)
    scoring = Scoring((Energy(*network.resolve(layer)),))
    (field,) = bounded_fields(network, scoring.layers).values()
    halo = field.exact_halo
    tiles = Recipe(tile=TILE, batch=2)
    (stage,) = stages_of(network, scoring, tiles)((9999, 9999))
    rows = 2 * round_up(halo, stage.stride) + 3 * round_up(TILE, stage.stride) + 37
    image = photo(rows, card.min_side + 6, torch.float64)
    assert stage.halo == halo
    windows = [tile.window_size[0] for tile in stage.tiles((image.shape[1], image.shape[2]))]
    assert min(windows) < image.shape[1] - halo
    score, whole = whole_image_gradient(network.features(scoring.layers), scoring, card.min_side)(image, (11, -23))
    tiled_score, tiled = gradient_fn(network, scoring, tiles)(image, (11, -23))
    assert tiled_score == pytest.approx(score, rel=1e-11)
    assert (tiled - whole).norm() < 1e-11 * whole.norm()
