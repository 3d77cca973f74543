"""In stages is whole: the same score and the same gradient, wherever the network is cut and whatever the tiles."""

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import nn

from phosphene.dreaming.objective import ChannelMatch, Energy, Match, Mean, Scoring, View
from phosphene.errors import SettingsError, UsageError
from phosphene.networks.layers import cut_points
from phosphene.networks.network import Network
from phosphene.recipe.settings import Eye, Recipe, Tiles
from phosphene.recipe.terms import Cut
from phosphene.setup.builders import gradient_fn, stages_of
from phosphene.setup.session import load_network

C = 4
GUIDE = torch.randn(C, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Branches(nn.Module):
    """Two branches of unequal receptive field, and a residual sum: no place within can be cut."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.far = nn.Sequential(nn.Conv2d(C, C, 3, 1, 1), nn.SiLU(), nn.Conv2d(C, C, 3, stride, 1))
        self.near = nn.MaxPool2d(3, stride, 1)
        self.join = nn.Conv2d(2 * C, C, 1)
        self.residual = nn.Conv2d(C, C, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.join(torch.cat([self.far(x), self.near(x)], 1))
        return x + self.residual(x)


class Deep(nn.Module):
    """A stem, four blocks with strides at random places, and a head that sees everything."""

    def __init__(self, strides: tuple[int, int, int, int], kernel: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, C, kernel, strides[0], kernel // 2, bias=False)
        self.norm, self.act = nn.BatchNorm2d(C), nn.ReLU()
        self.one = Branches(strides[1])
        self.two = nn.Sequential(nn.Conv2d(C, C, 5, strides[2], 2), nn.SiLU(), nn.Conv2d(C, C, 3))
        self.three = Branches(strides[3])
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(C, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.three(self.two(self.one(self.act(self.norm(self.stem(x))))))
        return self.head(torch.tanh(self.pool(x).flatten(1)))


CUTS = ("act", "one", "two.1", "two")
EARLY, MIDDLE, LATE = "one.add", "two.2", "three.add"


def scorings(last: str) -> dict[str, Scoring]:
    several = (Energy(LATE, weight=2.0), Mean(EARLY, (0, 2), weight=-1.0), Mean(LATE, (1,), (0.3, 0.8), 0.1))
    return {
        "energy": Scoring((Energy(LATE),)),
        "both sides of a cut": Scoring((Energy(LATE), Energy(MIDDLE), Energy("act", (1,)), Mean(EARLY, weight=-2.0))),
        "places": Scoring((Mean(LATE, position=(0.0, 1.0)), Energy(EARLY, position=(1.0, 0.0)))),
        "guides": Scoring((Match(LATE, guide=GUIDE), ChannelMatch(MIDDLE, (0, 3), guide=GUIDE))),
        "balanced": Scoring(several, balanced=True),
        "balanced, the shallow one last": Scoring((*several, Energy("act")), balanced=True),
        "a class": Scoring((Mean(last, (1,)),)),
        "a class and layers, balanced": Scoring((Energy(EARLY), Mean(last, (1,)), Energy(LATE)), balanced=True),
    }


def built(card, randomise, strides=(2, 1, 2, 2), kernel=3, min_side=1) -> Network:
    return Network(card(min_side), randomise(Deep(strides, kernel).double(), seed=1), "none")


def by_hand(network, scoring, image, shift):
    """The whole image's score and gradient, from the activations and PyTorch alone."""
    pixels = torch.roll(image, shift, (1, 2))[None].requires_grad_(True)
    activations = network.features(scoring.layers)(pixels)
    fraction = (shift[0] / image.shape[1], shift[1] / image.shape[2])
    views = {name: View((a.shape[2], a.shape[3]), shift=fraction) for name, a in activations.items()}
    targets, scores = scoring(activations, views)
    gradients = [torch.autograd.grad(target, pixels, retain_graph=True)[0][0] for target in targets]
    combined = scoring.combine(torch.stack(gradients))
    return float(torch.stack(scores).sum()), torch.roll(combined, (-shift[0], -shift[1]), (1, 2))


def assert_whole(network, scoring, tiles, image, shift, score_within=1e-11, gradient_within=1e-12):
    score, gradient = gradient_fn(network, scoring, tiles)(image, shift)
    right_score, right = by_hand(network, scoring, image, shift)
    assert right.abs().max() > 0
    assert abs(score - right_score) <= score_within * abs(right_score)
    assert (gradient - right).abs().max() <= gradient_within * right.abs().max()


tiles_of_a_stage = st.integers(16, 60)
cuts_of_a_plan = st.dictionaries(st.sampled_from(CUTS), tiles_of_a_stage | st.none(), max_size=3)
sizes = st.tuples(st.integers(40, 90), st.integers(40, 90))
shifts = st.tuples(st.integers(-50, 50), st.integers(-50, 50))
local_kinds = st.sampled_from([kind for kind in scorings("head") if "class" not in kind])


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    tile=tiles_of_a_stage,
    cuts=cuts_of_a_plan,
    batch=st.integers(1, 3),
    size=sizes,
    shift=shifts,
    kind=local_kinds,
    strides=st.tuples(*[st.integers(1, 2)] * 4),
    kernel=st.sampled_from([3, 5]),
)
@hypothesis.example(16, {"act": 16, "one": 16, "two": None}, 1, (71, 83), (5, -9), "balanced", (2, 1, 2, 2), 3)
def test_any_plan_is_whole(card, randomise, photo, tile, cuts, batch, size, shift, kind, strides, kernel):
    tiles = Tiles(tile=tile, cuts=tuple(str(Cut(*cut)) for cut in cuts.items()), batch=batch)
    assert_whole(built(card, randomise, strides, kernel), scorings("head")[kind], tiles, photo(*size), shift)


@pytest.mark.parametrize("kind", [kind for kind in scorings("head") if "class" in kind])
@pytest.mark.parametrize("cuts", [("one",), ("act:24", "three"), ("two.1",)])
def test_a_class_is_exact_at_any_size_behind_a_cut(card, randomise, photo, kind, cuts):
    network = built(card, randomise)
    assert_whole(network, scorings("head")[kind], Tiles(tile=16, cuts=cuts), photo(87, 61), (-7, 19))


def test_a_class_is_not_exact_in_tiles(card, randomise):
    network, scoring = built(card, randomise), scorings("head")["a class"]
    for tiles in (Tiles(tile=16), Tiles(tile=16, cuts=("one:16",))):
        with pytest.raises(UsageError, match="head of small sees the whole image at once"):
            gradient_fn(network, scoring, tiles)


@hypothesis.settings(deadline=None, max_examples=5)
@hypothesis.given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), shift=shifts)
@hypothesis.example(size=(1, 1), shift=(1, 1))
def test_an_image_smaller_than_the_network_sees(card, randomise, photo, size, shift):
    """It is repeated up to what the network sees, and then looked at as a whole."""
    network, scoring = built(card, randomise, min_side=24), scorings("head")["balanced"]
    whole, staged = (
        gradient_fn(network, scoring, tiles)(photo(*size), shift)
        for tiles in (Tiles(tile="none"), Tiles(tile=16, cuts=("one:16", "two")))
    )
    assert staged[0] == pytest.approx(whole[0], rel=1e-11)
    torch.testing.assert_close(staged[1], whole[1], rtol=0, atol=1e-12 * whole[1].abs().max().item())


def test_stages_that_see_everything_are_one(card, randomise):
    """An octave that fits one window is looked at once, and not run forward in vain."""
    network, scoring = built(card, randomise), scorings("head")["energy"]
    of = stages_of(network, scoring, Tiles(tile=64, cuts=("act:128", "two")))
    assert [stage.cut for stage in of((64, 50))] == [None]
    assert [stage.cut for stage in of((65, 50))] == ["act", None]
    assert [stage.cut for stage in of((65, 129))] == ["act", "two.2", None]
    assert [stage.tile for stage in of((65, 129))] == [64, 64, None]


@pytest.mark.parametrize("cut", ["one.far", "one.near", "norm", "stem"])
def test_no_cut_where_something_passes_it_by(card, randomise, cut):
    with pytest.raises(UsageError, match=rf"small cannot be cut at {cut}.*it can be at act, .*one.add, two.1, two.2"):
        stages_of(built(card, randomise), scorings("head")["energy"], Tiles(tile=16, cuts=(cut,)))


def test_cuts_are_spelt():
    assert str(Cut.parse("blocks.2.1:1024")) == "blocks.2.1:1024"
    assert Cut.parse("features.9") == Cut("features.9", None)
    for wrong in ("", "a:", "a:0", "a:-4", "a b"):
        with pytest.raises(SettingsError, match=r"is not a cut; one is spelt NAME or NAME:TILE"):
            Cut.parse(wrong)


def test_a_layer_in_front_of_a_cut_belongs_to_the_stage_that_ends_there(card, randomise, photo):
    network = built(card, randomise)
    scoring = Scoring((Energy(EARLY), Energy(MIDDLE)), balanced=True)
    first, second = stages_of(network, scoring, Tiles(tile=16, cuts=("one",)))((99, 99))
    assert (first.gradient_indices, first.downstream_indices, second.gradient_indices) == ((0, 1), (1,), (1,))
    assert_whole(network, scoring, Tiles(tile=16, cuts=("one",)), photo(99, 99), (3, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "cuts", "tile"),
    [
        (("blocks.3.2",), ("blocks.1.1",), 64),
        (("blocks.3.2", "blocks.1.0"), ("blocks.0.0.bn2:96", "blocks.2.1"), 64),
        (("classifier",), ("blocks.2.1",), 96),
    ],
)
def test_the_default_network_in_float32(photo, layers, cuts, tile):
    network = load_network(Eye())
    nodes = [node for layer in layers for node in network.resolve(layer)]
    scoring = Scoring(tuple(Energy(node) for node in nodes), balanced=len(nodes) > 1)
    image = 0.25 + photo(211, 173, torch.float32) / 2
    assert_whole(network, scoring, Recipe(tile=tile, cuts=cuts), image, (11, -23), 1e-5, 1e-5)


def test_places_to_cut_the_default_network():
    points = cut_points(load_network(Eye()), ("blocks.4.2.add",))
    assert {"blocks.0.0.bn2", "blocks.1.1.add", "blocks.3.2.add"} < set(points)
    assert not {"blocks.1.1.conv_pw", "blocks.4.2.add", "blocks.5.0.bn1"} & set(points)
