"""The engine's door: what goes in, what comes out, and how it lies in memory."""

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from phosphene import engine
from phosphene.dreaming.gradient import differentiate
from phosphene.dreaming.objective import Energy, Mean, Scoring
from phosphene.engine import reference
from phosphene.engine.algorithms import Direct, Winograd, WinogradStem
from phosphene.engine.clamp import Grad
from phosphene.engine.conv import FrozenConv
from phosphene.engine.cpu import loops
from phosphene.engine.cpu.gemm import pack
from phosphene.engine.cpu.pointwise import convolve_1x1
from phosphene.engine.cpu.winograd import transformed


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


def test_a_convolution_of_three_axes_is_left_as_it_is():
    """As lambda networks have: its weights have no channels last."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Unflatten(1, (1, 4)), nn.Conv3d(1, 2, (1, 3, 3))).eval()
    traced = fx.symbolic_trace(module)
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    output.args = ({"last": output.args[0]},)
    traced.recompile()
    images = torch.rand(1, 3, 9, 9)
    wanted = module(images)
    torch.testing.assert_close(engine.freeze(traced, fast=True)(images)["last"], wanted, rtol=1e-4, atol=1e-5)


class Keywords(nn.Module):
    """Calls layers by keyword."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.act = nn.ReLU()

    def forward(self, images):
        return {"last": self.act(input=self.norm(input=self.conv(input=images)))}


def test_layers_may_be_called_by_keyword():
    torch.manual_seed(0)
    module, images = Keywords().eval(), torch.rand(1, 3, 9, 9)
    found = engine.freeze(fx.symbolic_trace(module), fast=True)(images)["last"]
    torch.testing.assert_close(found, module(images)["last"], rtol=1e-4, atol=1e-5)


def test_gradients_reach_a_layer_in_its_own_layout():
    """Channels last, whatever the number of images and terms: else each layer would copy what it gets."""
    network, _ = frozen()
    seen = []

    def features(images):
        named = network(images)
        for value in named.values():
            value.grad_fn.register_prehook(lambda given: seen.append(given[0]))
        return {"one": named["one"], "two": named["two"]}

    images = [torch.rand(3, 9, 11) for _ in range(3)]
    for score in (Energy("one"), Mean("one"), Energy("one", channels=(2, 5))):
        differentiate(features, Scoring((score, Energy("two")), balanced=True), images, [(0.0, 0.0)] * 3)
    gradients = [gradient for gradient in seen if gradient is not None]
    assert len(gradients) == 6
    assert all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in gradients)


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


def test_pytorch_can_compute_all_of_it(monkeypatch):
    """`PHOSPHENE_ENGINE=reference`: to tell whether a kernel is at fault."""
    fast, module = frozen()
    assert {type(part.algorithm) for part in fast.modules() if isinstance(part, FrozenConv)} == {WinogradStem, Winograd}
    monkeypatch.setenv("PHOSPHENE_ENGINE", "reference")
    plain, _ = frozen()
    assert {type(part.algorithm) for part in plain.modules() if isinstance(part, FrozenConv)} == {Direct}
    assert plain.grid == 1
    images = torch.rand(1, 3, 14, 12)
    torch.testing.assert_close(plain(images)["one"], module(images)["one"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(plain(images)["two"], fast(images)["two"], rtol=1e-4, atol=1e-5)


LAST = torch.channels_last
WINDOW = reference.Window((3, 2), (2, 1), (1, 1), (1, 1))


def images(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(memory_format=LAST)


def test_loops_compute_what_their_references_do():
    x, y, mask = images(0, 2, 5, 9, 8), images(1, 2, 5, 9, 8), images(2, 2, 5, 9, 8) > 0
    for one, other in zip(loops.clamp_(x.clone(), 0, 1), reference.clamp_(x.clone(), 0, 1), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(loops.clamp_sum(x, y, 0, 1), reference.clamp_sum(x, y, 0, 1), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(loops.masked_copy(x, mask), reference.masked(x, mask))
    assert torch.equal(loops.mask_inplace(x.clone(memory_format=LAST), mask), reference.masked(x, mask))
    wanted, places = reference.max_pool(x, WINDOW)
    found, spots = loops.max_pool(x, WINDOW, wanted.shape)
    assert torch.equal(found, wanted)
    back = loops.max_pool_backward(wanted, spots, x.shape, WINDOW)
    torch.testing.assert_close(back, reference.max_pool_backward(wanted, places, x.shape, WINDOW, False))
    wanted = reference.mean_pool(x, (3, 3), (1, 1), mask)
    found = torch.empty_like(wanted, memory_format=LAST)
    loops.mean_pool(x, mask, (3, 3), (1, 1), None, -torch.inf, torch.inf, found, None)
    torch.testing.assert_close(found, wanted)


def test_convolutions_compute_what_their_references_do():
    x, mask, addend = images(0, 2, 16, 9, 8), images(1, 2, 16, 9, 8) > 0, images(2, 2, 32, 9, 8)
    weight, bias = images(3, 32, 16, 1, 1)[:, :, 0, 0], images(4, 1, 32, 1, 1).flatten()
    found, _ = convolve_1x1(x, pack(weight.T[None]), bias, mask=mask, addend=addend)
    torch.testing.assert_close(found, reference.gemm_1x1(x, weight, bias, mask, addend), rtol=1e-5, atol=1e-5)
    for taps, stride in ((3, 1), (3, 2), (5, 1)):
        weight = images(5, 32, 16, taps, taps)
        wanted = reference.convolve(x, weight, bias, (stride, stride), (1, 1), (0, 0))
        size = (wanted.shape[2], wanted.shape[3])
        found, _ = transformed(weight, (stride, stride), back=False).convolve(x, bias, size, (1, 1))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
        kept = wanted > 0
        conv = nn.Conv2d(16, 32, taps, stride, 1, bias=False)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        frozen_conv = FrozenConv(conv, 0.0)
        (back, _) = frozen_conv.algorithm.backward_input(Grad(wanted, False), kept, x.shape)
        through = reference.convolve_backward(wanted, weight, x.shape, (stride, stride), (1, 1), (0, 0), kept)
        torch.testing.assert_close(back, through, rtol=1e-4, atol=2e-2)
