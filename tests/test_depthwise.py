"""Depthwise convolutions with their 1x1 expansion by our own kernels, against PyTorch and its autograd."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from phosphene.engine import freeze
from phosphene.engine.conv import FrozenConv
from phosphene.engine.depthwise import FrozenDepthwise
from phosphene.libraries import Conv2dSame
from phosphene.networks.graph import cut, trace

ALWAYS, NEVER = 2**8, 0
"""Strides in front of a module, and so areas of an image, that are large enough for the kernels, and that are not."""


def reference(x, expand, depthwise, low=0.0, high=6.0):
    """What is computed, in float64; timm pads as TensorFlow does."""
    if expand is not None:
        x = F.conv2d(x, expand.weight.double(), expand.bias.double()).clamp(low, high)
    y = type(depthwise).forward(depthwise.double(), x)
    return y.clamp(low, high)


def modules(taps=3, stride=1, padding=1, in_channels=24, channels=48):
    """A 1x1 convolution, if there is one, and a depthwise one, whose results lie on both sides of both clamps."""
    torch.manual_seed(0)
    options = {"stride": stride, "groups": channels}
    depthwise = (
        Conv2dSame(channels, channels, taps, **options)
        if padding == "same"
        else nn.Conv2d(channels, channels, taps, padding=padding, **options)
    )
    expand = nn.Conv2d(in_channels, channels, 1) if in_channels else None
    for conv in (depthwise, expand):
        if conv is not None:
            conv.weight.data *= 6
            conv.bias.data.normal_(1, 2)
    return expand, depthwise


def fused(expand, depthwise, stride_before=ALWAYS):
    first = None if expand is None else FrozenConv(expand, 0.0, 6.0)
    return FrozenDepthwise(FrozenConv(depthwise, 0.0, 6.0), first, stride_before)


def both(compute, x, seed=1):
    """The result, and the gradient of its product with random numbers."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = compute(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y)
    return y.detach(), torch.autograd.grad(y, x, dy)[0]


def assert_alike(found, wanted):
    """Up to rounding, but for the few numbers that it puts on the other side of a clamp."""
    for one, other in zip(found, wanted, strict=True):
        far = (one - other).abs() > 1e-5 * (1 + other.abs().max())
        assert far.float().mean() < 1e-3


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    taps=st.sampled_from((3, 5)),
    stride=st.sampled_from((1, 2)),
    padding=st.sampled_from(("same", 0, 1, 2, 4)),
    in_channels=st.sampled_from((0, 1, 17, 24, 40, 112)),
    channels=st.sampled_from((16, 32, 48, 144)),
)
def test_it_is_what_pytorch_computes(batch, size, taps, stride, padding, in_channels, channels):
    if padding != "same" and min(size) + 2 * padding < taps:
        return
    expand, depthwise = modules(taps, stride, padding, in_channels, channels)
    x = torch.randn(batch, in_channels or channels, *size)
    found = both(fused(expand, depthwise), x)
    assert_alike(found, both(lambda x: reference(x, expand, depthwise), x.double()))


@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_neither_strips_nor_threads_nor_neighbours_change_a_bit(taps, stride):
    """A crop with all that its window sees has the whole image's bits, and so has each image of a batch."""
    compute, x = fused(*modules(taps, stride, padding=0)), torch.randn(2, 24, 150, 131)
    y, dx = both(compute, x)
    assert torch.equal(
        compute(x[1:, :, 40:97, 22:90]),
        y[1:, :, 40 // stride :, 22 // stride :][:, :, : (57 - taps) // stride + 1, : (68 - taps) // stride + 1],
    )
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert all(map(torch.equal, both(compute, x), (y, dx)))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("in_channels", [0, 16, 24])
def test_any_layout_is_read(in_channels):
    """Planes, channels last, channels of a larger tensor, every second pixel; and so is any layout of a gradient."""
    expand, depthwise = modules(5, 2, "same", in_channels)
    if expand is not None:
        expand.weight.data = expand.weight.data.transpose(0, 1).contiguous().transpose(0, 1)
    compute, channels = fused(expand, depthwise), in_channels or 48
    wide = torch.randn(1, channels + 8, 23, 38)
    wanted = both(compute, wide[:, 4:-4].contiguous())
    for x in (wide, wide.to(memory_format=torch.channels_last)):
        assert all(map(torch.equal, both(compute, x[:, 4:-4]), wanted))
    sparse = F.interpolate(wide, scale_factor=2)[:, 4:-4, ::2, ::2]
    y = compute(sparse.requires_grad_())
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    for upstream in (dy, dy.to(memory_format=torch.channels_last), dy.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(torch.autograd.grad(y, sparse, upstream, retain_graph=True)[0], wanted[1])


@pytest.mark.parametrize("in_channels", [0, 24])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_goes_where_pytorch_lets_it_go(value, in_channels):
    expand, depthwise = modules(5, 1, 2, in_channels)
    x = torch.randn(1, in_channels or 48, 20, 19)
    x[0, 3, 7, 11] = value
    for a, b in zip(both(fused(expand, depthwise), x), both(fused(expand, depthwise, NEVER), x), strict=True):
        assert torch.equal(a.isnan(), b.isnan())
        torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-4, atol=1e-4)


class Mobile(nn.Module):
    """Two inverted residuals, the second of which adds what it reads."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(*self.block(8, 48, 24, 2))
        self.second = nn.Sequential(*self.block(24, 96, 24, 1))

    def block(self, read, wide, written, stride):
        yield from (nn.Conv2d(read, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        yield from (nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        yield from (nn.Conv2d(wide, written, 1, bias=False), nn.BatchNorm2d(written))

    def forward(self, x):
        x = self.first(x)
        return x + self.second(x)


def frozen(nodes, fast=True):
    torch.manual_seed(0)
    module = Mobile().eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.bias.data.normal_(1, 2)
    graph, named = trace(module)
    return freeze(cut(module, graph, {name: named[name] for name in nodes}), fast=fast)


def parts(network):
    return [
        (part.stride_before, part.expand is not None) for part in network.modules() if isinstance(part, FrozenDepthwise)
    ]


def test_a_network_is_fused_where_nobody_else_reads_what_stands_between():
    assert parts(frozen(["add"])) == [(1, True), (2, True)]
    assert parts(frozen(["first.2", "add"])) == [(1, False), (2, True)]
    assert parts(frozen(["add"], fast=False)) == []


def test_a_fused_network_has_the_gradient_of_the_plain_one():
    x = torch.randn(1, 8, 257, 258)
    (one, other) = (both(lambda x, fast=fast: frozen(["add"], fast)(x)["add"], x) for fast in (True, False))
    assert_alike(one, other)


def test_small_images_are_left_to_pytorch_and_fake_ones_are_foretold():
    compute = fused(*modules(), stride_before=4)
    small, large = torch.randn(1, 24, 63, 64, requires_grad=True), torch.randn(1, 24, 64, 64, requires_grad=True)
    assert compute(small).grad_fn.name() != compute(large).grad_fn.name()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(large)
        y = compute(fake)
        (upstream,) = torch.autograd.grad(y.sum(), fake)
    assert (y.shape, upstream.shape) == ((1, 48, 64, 64), large.shape)
