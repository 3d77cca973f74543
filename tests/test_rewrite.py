"""Each pass over a graph alone: what it changes, what it leaves, and that the network stays the same."""

import operator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import phosphene
from phosphene.engine import rewrite as passes
from phosphene.engine.clamp import FrozenClamp
from phosphene.engine.conv import FrozenConv
from phosphene.engine.depthwise import FrozenDepthwise
from phosphene.engine.pool import FrozenMaxPool, FrozenMeanPool
from phosphene.engine.tuning import Policy

POLICY = Policy()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Net(nn.Module):
    """A forward function over a few layers."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def changed(function, *names, channels=16, **layers):
    """The graph after the passes named, which is the same network, forward and back."""
    module = Net(function, **layers).eval().requires_grad_(False)
    x = torch.randn(2, channels, 9, 8).requires_grad_(True)
    wanted = module(x)
    (slope,) = torch.autograd.grad(wanted.square().sum(), x)
    network = fx.symbolic_trace(module)
    for name in names:
        network = getattr(passes, name)(network, *([] if name == "fold_batch_norms" else [POLICY]))
    network.recompile()
    network.graph.lint()
    found = network(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], slope, rtol=1e-3, atol=1e-3)
    return network


def called(network):
    """The kinds of modules that are called, in order."""
    return [type(network.get_submodule(node.target)) for node in network.graph.nodes if node.op == "call_module"]


def conv1(channels=16, filters=16, **options):
    return nn.Conv2d(channels, filters, 1, **options)


def test_a_batch_norm_goes_into_the_weights_in_front_of_it():
    norm = nn.BatchNorm2d(16)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    network = changed(lambda m, x: m.norm(m.conv(x)), "fold_batch_norms", conv=conv1(), norm=norm)
    assert called(network) == [nn.Conv2d]


def test_a_batch_norm_stays_where_someone_else_reads_the_convolution():
    def forward(m, x):
        y = m.conv(x)
        return m.norm(y) + y

    layers = {"conv": conv1(), "norm": nn.BatchNorm2d(16)}
    assert called(changed(forward, "fold_batch_norms", **layers)) == [nn.Conv2d, nn.BatchNorm2d]


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def doubled_conv():
    conv = conv1()
    nn.utils.parametrize.register_parametrization(conv, "weight", Doubled())
    return conv


@pytest.mark.parametrize(
    ("conv", "norm"),
    [
        (conv1, lambda: nn.BatchNorm2d(16, track_running_stats=False)),
        (doubled_conv, lambda: nn.BatchNorm2d(16)),
    ],
    ids=["no running statistics", "a parametrized convolution"],
)
def test_a_batch_norm_stays_where_the_two_are_not_one_convolution(conv, norm):
    layers = {"conv": conv(), "norm": norm()}
    kinds = [type(layer) for layer in layers.values()]
    assert called(changed(lambda m, x: m.norm(m.conv(x)), "fold_batch_norms", **layers)) == kinds
    dream = phosphene.dream("noise:32x32", model=nn.Sequential(nn.Conv2d(3, 16, 3), *layers.values()), size=32, steps=1)
    assert not torch.equal(dream.image, dream.photograph)


def test_a_pool_goes_behind_a_kernel_of_one_pixel():
    def forward(m, x):
        return m.conv(F.avg_pool2d(x, 3, 1, 1)).relu()

    network = changed(forward, "swap_pool_and_1x1", conv=conv1(filters=5))
    assert called(network) == [nn.Conv2d, FrozenMeanPool]
    assert next(part for part in network.modules() if isinstance(part, FrozenMeanPool)).low == 0


@pytest.mark.parametrize("filters", [16, 32])
def test_a_pool_stays_where_that_would_not_make_it_smaller(filters):
    network = changed(lambda m, x: m.conv(F.avg_pool2d(x, 3, 1, 1)), "swap_pool_and_1x1", conv=conv1(filters=filters))
    assert called(network) == [nn.Conv2d]


def test_a_convolution_takes_its_clamp():
    network = changed(lambda m, x: F.relu6(m.conv(x)), "freeze_convolutions", conv=conv1())
    (conv,) = (part for part in network.modules() if isinstance(part, FrozenConv))
    assert (conv.low, conv.high) == (0, 6)
    assert [node.op for node in network.graph.nodes] == ["placeholder", "call_module", "output"]


def test_a_clamp_stays_where_someone_else_reads_in_front_of_it():
    def forward(m, x):
        y = m.conv(x)
        return y.relu() + y

    network = changed(forward, "freeze_convolutions", "freeze_clamps", conv=conv1())
    assert called(network) == [FrozenConv, FrozenClamp]


def test_a_fused_gemm_takes_the_sum_and_the_clamp_behind_it():
    network = changed(lambda m, x: (m.conv(x) + x).relu(), "freeze_convolutions", "freeze_clamps", conv=conv1())
    assert called(network) == [FrozenConv]
    assert operator.add not in {node.target for node in network.graph.nodes}


def test_another_convolution_leaves_the_sum_to_the_clamp():
    conv = nn.Conv2d(16, 16, 3, padding=1)
    network = changed(lambda m, x: (m.conv(x) + x).relu(), "freeze_convolutions", "freeze_clamps", conv=conv)
    assert called(network) == [FrozenConv, FrozenClamp]


def test_pools_are_frozen_where_their_settings_are_known():
    network = changed(lambda m, x: F.avg_pool2d(m.pool(x), 2), "freeze_pools", pool=nn.MaxPool2d(2))
    assert called(network) == [FrozenMaxPool, FrozenMeanPool]


def test_siblings_become_one():
    def forward(m, x):
        return torch.cat([m.one(x).relu(), m.two(x).relu(), m.bare(x)], 1)

    layers = {"one": conv1(filters=16), "two": conv1(filters=32), "bare": conv1()}
    network = changed(forward, "freeze_convolutions", "merge_1x1_siblings", **layers)
    assert sorted(len(part.bias) for part in network.modules() if isinstance(part, FrozenConv))[-1] == 48
    assert len(called(network)) == 2


def test_a_side_gradient_is_added_by_a_fused_gemm():
    def forward(m, x):
        x = m.first(x).relu()
        return m.conv(x) + x.sin()

    names = ("freeze_convolutions", "fuse_grad_accumulation")
    network = changed(forward, *names, first=conv1(), conv=conv1())
    first, conv = (part for part in network.modules() if isinstance(part, FrozenConv))
    assert (first.returns_input, conv.returns_input) == (False, True)
    assert not conv.owns_side_grad  # who knows what a sine hands back


def test_who_owns_a_gradient():
    def forward(m, x):
        once = m.second(m.first(x).relu()).relu()
        return m.third(once) + once

    layers = {name: nn.Conv2d(16, 16, 3, padding=1) for name in ("first", "second", "third")}
    network = changed(forward, "freeze_convolutions", "find_owned_grads", **layers)
    assert [part.owns_grad for part in network.modules() if isinstance(part, FrozenConv)] == [True, False, False]


def test_a_depthwise_convolution_takes_the_clamped_1x1_in_front():
    def forward(m, x):
        return m.wide(m.expand(x).relu()).relu()

    layers = {"expand": conv1(filters=32), "wide": nn.Conv2d(32, 32, 3, padding=1, groups=32)}
    assert called(changed(forward, "freeze_convolutions", "fuse_depthwise", **layers)) == [FrozenDepthwise]


def test_all_passes_are_tested_here():
    names = {each.__name__ for each in passes.PASSES} | {"fold_batch_norms"}
    source = Path(__file__).read_text()
    assert all(f'"{name}"' in source for name in names)
