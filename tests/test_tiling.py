"""Tiled is whole: the same score and the same gradient, whatever the size, the tile, the roll and the padding."""

from collections import OrderedDict
from functools import cache
from math import lcm

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from phosphene.dreaming.objective import ChannelMatch, Energy, Match, Mean, Scoring
from phosphene.dreaming.stages import Stage, gradient_in_stages, whole_image_gradient
from phosphene.dreaming.tiling import round_up, spans
from phosphene.errors import UsageError
from phosphene.networks.layers import layer_sizes
from phosphene.networks.network import Network, load
from phosphene.networks.receptive_field import ReceptiveField
from phosphene.networks.registry import card as registered
from phosphene.recipe.settings import Tiles
from phosphene.setup.builders import bounded_fields, gradient_fn

C = 4


def conv(kernel, stride=1, padding=0, channels=C, **more):
    return nn.Conv2d(channels, C, kernel, stride, padding, **more)


class Branches(nn.Module):
    """Two branches of unequal receptive field, concatenated as in Inception's reductions, and a residual sum."""

    def __init__(self):
        super().__init__()
        self.far = nn.Sequential(conv(3, 1, 1), nn.SiLU(), conv(3, 2))
        self.near = nn.MaxPool2d(3, 2)
        self.join = conv(1, channels=2 * C)
        self.residual = conv(3, 1, 1)

    def forward(self, x):
        x = self.join(torch.cat([self.far(x), self.near(x)], 1))
        return x + self.residual(x)


# Each ends in `deep` and passes `early` on its way.
NETWORKS = {
    "stride and padding": lambda: [
        ("early", conv(3, 1, 1, 3)), ("a", nn.ReLU()), ("b", conv(3, 2, 1)), ("c", nn.ReLU()), ("deep", conv(5, 2, 2)),
    ],
    "tensorflow's padding": lambda: [
        ("early", Conv2dSame(3, C, 3, 2)), ("a", BatchNormAct2d(C, act_layer=nn.SiLU)),
        ("b", Conv2dSame(C, C, 5, 2, groups=C, bias=False)), ("c", nn.BatchNorm2d(C)), ("deep", Conv2dSame(C, C, 2, 2)),
    ],
    "tensorflow's pooling": lambda: [
        ("early", Conv2dSame(3, C, 4, 1)), ("a", MaxPool2dSame(3, 2)), ("deep", Conv2dSame(C, C, 3, 2)),
    ],
    "no padding": lambda: [
        ("early", conv(3, 2, 0, 3)), ("a", nn.SiLU()), ("b", conv(3)), ("c", nn.MaxPool2d(3, 2)), ("deep", conv(2)),
    ],
    "oblong kernels": lambda: [
        ("early", conv((1, 7), 1, (0, 3), 3)), ("a", nn.SiLU()), ("b", conv((7, 1), 2, (3, 0))),
        ("deep", conv((3, 1), 1, (1, 0))),
    ],
    "pooling": lambda: [
        ("early", conv(3, 1, 1, 3)), ("a", nn.MaxPool2d(3, 2, 1)), ("b", conv(3, 1, 1)), ("c", nn.SiLU()),
        ("deep", nn.AvgPool2d(2, 2)),
    ],
    "pooling that rounds up": lambda: [
        ("early", conv(3, 1, 1, 3)), ("a", nn.MaxPool2d(3, 2, ceil_mode=True)), ("b", conv(3, 1, 1)),
        ("deep", nn.MaxPool2d(2, 2, ceil_mode=True)),
    ],
    "a stride of three": lambda: [("early", conv(5, 3, 1, 3)), ("a", nn.SiLU()), ("deep", conv(3, 2, 1))],
    "dilation": lambda: [("early", conv(3, 2, 1, 3)), ("a", nn.SiLU()), ("deep", conv(3, 1, 2, dilation=2))],
    "branches": lambda: [("early", conv(3, 1, 1, 3)), ("a", nn.SiLU()), ("deep", Branches())],
}  # fmt: skip


@pytest.fixture(scope="session")
def build(card, randomise):
    @cache
    def make(name: str, dtype: torch.dtype = torch.float64) -> Network:
        return Network(card(), randomise(nn.Sequential(OrderedDict(NETWORKS[name]())), seed=1).to(dtype), "none")

    return make


GUIDE = torch.randn(C, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def scorings(deep: str) -> dict[str, Scoring]:
    several = (Energy(deep, weight=2.0), Mean("early", (0, 2), weight=-1.0), Mean(deep, (1,), (0.3, 0.8), 0.1))
    return {
        "energy": Scoring((Energy(deep),)),
        "mean": Scoring((Mean(deep),)),
        "position": Scoring((Energy(deep, position=(0.7, 0.45)),)),
        "two places": Scoring((Mean(deep, position=(0.0, 1.0)), Energy("early", position=(1.0, 0.0)))),
        "match": Scoring((Match(deep, guide=GUIDE),)),
        "channel match": Scoring((ChannelMatch(deep, (0, 3), guide=GUIDE),)),
        "several": Scoring(several),
        "balanced": Scoring(several, balanced=True),
    }


def tiled(network: Network, scoring: Scoring, tile: int, halo: int | None = None, min_side: int = 1):
    """The tiled gradient with the exact halo, or another one."""
    fields = bounded_fields(network, scoring.layers)
    stage = Stage(
        features=network.features(scoring.layers),
        scoring=scoring,
        gradient_indices=tuple(range(scoring.gradients)),
        tile=tile,
        halo=max(field.exact_halo for field in fields.values()) if halo is None else halo,
        stride=lcm(*(field.tile_stride for field in fields.values())),
        sizes=lambda size: layer_sizes(network, scoring.layers, size),
        strides={name: field.tile_stride for name, field in fields.items()},
        min_side=min_side,
    )
    return gradient_in_stages(lambda _: (stage,))


def deviation(network, scoring, image, shift, tile, halo=None, min_side=1) -> tuple[float, float]:
    """How far the tiled score and gradient are from the whole image's, over the size of those."""
    whole = whole_image_gradient(network.features(scoring.layers), scoring, min_side)
    score, gradient = whole(image, shift)
    tiled_score, tiled_gradient = tiled(network, scoring, tile, halo, min_side)(image, shift)
    assert gradient.abs().max() > 0
    return abs(tiled_score - score) / abs(score), (
        (tiled_gradient - gradient).abs().max() / gradient.abs().max()
    ).item()


sizes = st.tuples(st.integers(17, 52), st.integers(17, 52))
shifts = st.tuples(st.integers(-40, 40), st.integers(-40, 40))


@pytest.mark.parametrize("name", NETWORKS)
@hypothesis.settings(deadline=None, max_examples=8)
@hypothesis.given(size=sizes, tile=st.integers(7, 40), shift=shifts, kind=st.sampled_from(sorted(scorings("deep"))))
def test_tiled_is_whole(build, photo, name, size, tile, shift, kind):
    network = build(name)
    (deep,) = network.resolve("deep")
    score, gradient = deviation(network, scorings(deep)[kind], photo(*size), shift, tile)
    assert score < 1e-11
    assert gradient < 1e-12


@pytest.mark.parametrize("kind", scorings("deep"))
@pytest.mark.parametrize("name", ["tensorflow's padding", "no padding", "branches"])
def test_every_score_tiled_is_whole(build, photo, name, kind):
    network = build(name)
    (deep,) = network.resolve("deep")
    score, gradient = deviation(network, scorings(deep)[kind], photo(53, 38), (-7, 19), 16)
    assert score < 1e-11
    assert gradient < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_tiled_is_whole_in_float32(build, photo, name):
    network = build(name, torch.float32)
    scoring = Scoring((Energy(*network.resolve("deep")),))
    score, gradient = deviation(network, scoring, photo(61, 47, torch.float32), (5, -9), 16)
    assert score < 1e-5
    assert gradient < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_halo_it_is_not(build, photo, name):
    network = build(name)
    scoring = Scoring((Energy(*network.resolve("deep")),))
    assert deviation(network, scoring, photo(48, 48), (5, -9), 16, halo=0)[1] > 1e-3


def test_a_halo_one_stride_short_is_not_enough(build, photo):
    """The bound is not slack here: the stride is 1, so nothing is rounded up."""
    network = Network(
        build("pooling").card, nn.Sequential(OrderedDict(deep=conv(5, 1, 2, 3), b=conv(5, 1, 2))).double(), ""
    )
    network.module.requires_grad_(False)
    scoring = Scoring((Energy("b"),))
    (field,) = bounded_fields(network, ("b",)).values()
    assert field.tile_stride == 1
    assert deviation(network, scoring, photo(53, 38), (0, 0), 16, halo=field.exact_halo)[1] < 1e-12
    assert deviation(network, scoring, photo(53, 38), (0, 0), 16, halo=field.exact_halo - 1)[1] > 1e-12


@hypothesis.settings(deadline=None, max_examples=8)
@hypothesis.given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), tile=st.integers(5, 40), shift=shifts)
@hypothesis.example(size=(1, 1), tile=16, shift=(1, 1))
@hypothesis.example(size=(40, 20), tile=16, shift=(0, 0))
def test_an_image_smaller_than_the_network_sees(build, photo, size, tile, shift):
    network = build("tensorflow's padding")
    scoring = scorings(*network.resolve("deep"))["several"]
    score, gradient = deviation(network, scoring, photo(*size), shift, tile, min_side=21)
    assert score < 1e-11
    assert gradient < 1e-12


@pytest.mark.parametrize("size", [(32, 48), (33, 49), (47, 31)])
def test_no_pixel_is_skipped(card, randomise, photo, size):
    """All weights are positive, so each pixel, the last row and column too, raises the mean."""
    module = randomise(nn.Sequential(OrderedDict(NETWORKS["stride and padding"]())).double())
    for parameter in module.parameters():
        parameter.abs_().add_(0.01)
    network = Network(card(mean=(0, 0, 0)), module, "none")
    _, gradient = tiled(network, Scoring((Mean("deep"),)), 16)(photo(*size), (3, -5))
    assert gradient.min() > 0


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    length=st.integers(1, 400),
    tile=st.integers(1, 100),
    halo=st.integers(0, 90),
    stride=st.integers(1, 32),
    least=st.integers(1, 120),
)
def test_spans_are_a_partition_with_aligned_windows(length, tile, halo, stride, least):
    cut = spans(length, tile, halo, stride, least)
    assert [pixel for span in cut for pixel in range(span.start, span.stop)] == list(range(length))
    assert [span.last for span in cut] == [False] * (len(cut) - 1) + [True]
    for span in cut:
        assert span.start % stride == 0
        assert span.window_start % stride == 0
        assert (length - span.window_stop) % stride == 0
        assert span.window_start <= max(0, span.start - halo)
        assert min(length, span.stop + halo) <= span.window_stop <= length
        assert span.window_stop - span.window_start >= min(least, length)
        needed = max(round_up(tile, stride) + 2 * round_up(halo, stride), least)
        assert span.window_stop - span.window_start < needed + 2 * stride


@pytest.mark.parametrize(("number", "multiple", "expected"), [(0, 8, 0), (1, 8, 8), (8, 8, 8), (9, 8, 16), (7, 1, 7)])
def test_round_up(number, multiple, expected):
    assert round_up(number, multiple) == expected


def test_the_exact_halo_by_hand():
    assert ReceptiveField((8, 8), (99, 99)).exact_halo == 104
    assert ReceptiveField((1, 1), (9, 7)).exact_halo == 8
    assert ReceptiveField((16, 8), (1, 1)).exact_halo == 0


def test_the_recipes_tiles_are_these(build, photo):
    """The halo is taken from the network when it is `exact`, and from the recipe when it is a number."""
    network, image, shift = build("stride and padding"), photo(70, 55), (4, 1)
    scoring = Scoring((Energy("deep"), Mean("early")))
    whole, exact, none = (
        gradient_fn(network, scoring, Tiles(**tiles))(image, shift)[1]
        for tiles in ({}, {"tile": 16}, {"tile": 16, "halo": 0})
    )
    torch.testing.assert_close(exact, whole, rtol=0, atol=1e-12 * whole.abs().max().item())
    assert (none - whole).abs().max() > 1e-3 * whole.abs().max()


def test_no_exact_tiles_where_the_layer_sees_everything(small):
    with pytest.raises(UsageError, match="fc of small sees the whole image"):
        gradient_fn(small, Scoring((Mean("fc"),)), Tiles(tile=16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "weights", "layer", "size", "tile"),
    [
        ("efficientnet_lite0", "pretrained", "blocks.2.1", (211, 53), 64),
        ("resnet50", "untrained", "layer2.3", (281, 61), 128),
    ],
)
def test_a_real_network_in_float32(photo, model, weights, layer, size, tile):
    """A unit at the kink of its ReLU may be rounded to either side of it: the bound is what a few such units make."""
    network = load(registered(model), weights, 0, torch.device("cpu"), True)
    (node,) = network.resolve(layer)
    (field,) = bounded_fields(network, (node,)).values()
    windows = spans(size[0], tile, field.exact_halo, field.tile_stride)
    assert windows[0].window_stop < size[0] - 32
    score, gradient = deviation(network, Scoring((Energy(node),)), photo(*size, torch.float32), (11, -23), tile)
    assert score < 1e-5
    assert gradient < 1e-3
