"""Products that pass over zeros against those that do not."""

from itertools import product

import pytest
import torch
from torch import nn

from phosphene.engine.algorithms import FusedGemm
from phosphene.engine.conv import FrozenConv
from phosphene.engine.cpu.gemm import WIDTHS, WORD, pack
from phosphene.engine.cpu.pointwise import convolve_1x1
from phosphene.engine.tuning import Tuning

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def both_ways(*arguments, **options):
    """What comes out, and what is left of the input, where zeros are passed over always, and never."""
    found = []
    for few in (2.0, 0.0):
        seen = torch.full(arguments[0].shape, -7.0).to(memory_format=LAST)
        tuning = Tuning(skip_zeros_below=few)
        found.append((*convolve_1x1(*arguments, masked=seen, tuning=tuning, **options), seen))
    return found


def images(channels, share, size=(13, 5)):
    """Random numbers, of which a share is not zero."""
    shape = (2, channels, *size)
    return (torch.randn(shape) * (torch.rand(shape) < share)).to(memory_format=LAST)


@pytest.mark.parametrize(("channels", "filters"), list(product((16, WORD, 2 * WORD + 48), (16, 64, 96, 112, 176, 320))))
def test_the_bits_are_the_same(channels, filters):
    kernel, shift = pack(torch.randn(1, channels, filters)), torch.randn(filters)
    other, passed = torch.randn(2, filters, 13, 5).to(memory_format=LAST), images(channels, 0.5).bool()
    limits = {"limits": (0.0, 6.0)}
    for options in ({}, limits, {"addend": other} | limits, {"mask": passed, "addend": other}, {"mask": passed}):
        for share in (0.0, 0.1, 0.5, 1.0):
            one, same = both_ways(images(channels, share), kernel, shift, **options)
            assert all(a is b is None or same_bits(a, b) for a, b in zip(one, same, strict=True))


def same_bits(a, b):
    return torch.equal(a, b) if a.dtype == torch.bool else torch.equal(a.view(torch.int32), b.view(torch.int32))


def test_it_is_the_product():
    x, kernel, shift = images(80, 0.4), torch.randn(80, 224), torch.randn(224)
    wanted = torch.einsum("bchw,cf->bfhw", x.double(), kernel.double()) + shift.view(-1, 1, 1)
    for y, _, seen in both_ways(x, pack(kernel[None]), shift):
        torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(seen, x)


def test_an_infinite_weight_is_left_to_pytorch():
    """Passed over or not, zero times infinity would depend on how many other zeros there are."""
    conv = nn.Conv2d(64, 64, 1).requires_grad_(False)
    assert isinstance(FrozenConv(conv).algorithm, FusedGemm)
    conv.weight[3, 5] = torch.inf
    frozen = FrozenConv(conv)
    assert not isinstance(frozen.algorithm, FusedGemm)
    assert frozen(images(64, 0.0)).isnan().any(0).any(-1).any(-1).nonzero().tolist() == [[3]]


def test_what_is_not_a_number_is_not_passed_over():
    x = images(64, 0.0)
    x[1, 40, 3, 2] = torch.nan
    for y, _, _ in both_ways(x, pack(torch.randn(1, 64, 16 * WIDTHS[-1])), torch.zeros(16 * WIDTHS[-1])):
        assert torch.equal(y.isnan().any(1).nonzero(), torch.tensor([[1, 3, 2]]))
