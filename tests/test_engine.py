"""The engine's door: what goes in, what comes out, and how it lies in memory."""

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from phosphene import engine
from phosphene.dreaming.gradient import differentiate
from phosphene.dreaming.objective import Energy, Mean, Scoring


class Two(nn.Module):
    """Two layers that are shown, one of which the other reads."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2)
        self.flat = nn.Linear(32, 5)

    def forward(self, images):
        one = self.first(images).relu()
        two = self.second(one).relu()
        return {"one": one, "two": two, "flat": self.flat(two.mean((2, 3))), "tokens": two.flatten(2).transpose(1, 2)}


def frozen(fast=True):
    torch.manual_seed(0)
    module = Two().eval()
    return engine.freeze(fx.symbolic_trace(module), fast=fast), module


@pytest.mark.parametrize("fast", [True, False])
def test_a_frozen_network_is_the_network(fast):
    network, module = frozen(fast)
    images = torch.rand(2, 3, 14, 12).requires_grad_(True)
    found, wanted = network(images), module(images)
    assert list(found) == list(wanted)
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5)
    for names in (list(found), ["two"], ["one", "flat"]):
        sums = [sum(values[name].square().sum() for name in names) for values in (found, wanted)]
        one, other = (torch.autograd.grad(total, images, retain_graph=True)[0] for total in sums)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert not [part for part in network.parameters() if part.requires_grad]
    assert not network.training


def test_gradients_reach_a_layer_in_its_own_layout():
    """Channels last, whatever the number of images and terms: else each layer would copy what it gets."""
    network, _ = frozen()
    seen = []

    def features(images):
        named = network(images)
        for value in named.values():
            value.grad_fn.register_prehook(lambda slopes: seen.append(slopes[0]))
        return {"one": named["one"], "two": named["two"]}

    images = [torch.rand(3, 9, 11) for _ in range(3)]
    for score in (Energy("one"), Mean("one"), Energy("one", channels=(2, 5))):
        differentiate(features, Scoring((score, Energy("two")), balanced=True), images, [(0.0, 0.0)] * 3)
    slopes = [slope for slope in seen if slope is not None]
    assert len(slopes) == 6
    assert all(slope.is_contiguous(memory_format=torch.channels_last) for slope in slopes)


def test_what_is_not_an_image_may_be_shown():
    network, _ = frozen()
    images = torch.rand(1, 3, 9, 11).requires_grad_(True)
    tokens = network(images)["tokens"]
    wanted = torch.autograd.grad(network(images)["two"].sum(), images)[0]
    (found,) = torch.autograd.grad(tokens.transpose(1, 2), images, torch.ones(1, 32, 20))
    torch.testing.assert_close(found, wanted)


def test_no_gradient_no_hook():
    network, _ = frozen()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 9, 9))["one"].shape == (1, 16, 9, 9)


def test_shapes_are_known_without_computing():
    network, _ = frozen()
    wanted = {name: value.shape for name, value in network(torch.rand(2, 3, 9, 10)).items()}
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(2, 3, 9, 10, requires_grad=True)
        found = network(images)
        assert {name: value.shape for name, value in found.items()} == wanted
        assert torch.autograd.grad(found["two"].sum(), images)[0].shape == images.shape


@pytest.mark.parametrize(("fast", "grid"), [(True, 4), (False, 1)])
def test_the_grid_is_of_what_is_computed_together(fast, grid):
    assert frozen(fast)[0].grid == grid


def test_versions_are_those_of_what_computes():
    assert engine.versions()["torch"] == torch.__version__.split("+")[0]
    assert set(engine.versions()) == {"torch", "numba"}
