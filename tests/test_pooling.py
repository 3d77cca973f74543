"""Average pools of our own, with what is added behind them and the clamp behind that, against PyTorch's in float64."""

from math import inf
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from phosphene.engine.cpu import loops
from phosphene.engine.layout import pixels
from phosphene.engine.pool import FrozenMeanPool
from phosphene.engine.rewrite import rewrite_graph
from phosphene.engine.tuning import Policy, Tuning

LAST = torch.channels_last
UNCLAMPED = (-inf, inf)


def mean(size=3, padding=1, shift=None, limits=UNCLAMPED):
    return FrozenMeanPool(nn.AvgPool2d(size, 1, padding), shift, *limits, Policy())


def gradient(y, x, upstream):
    return torch.autograd.grad(y, x, upstream)[0]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


axis = st.integers(1, 9).flatmap(lambda taps: st.tuples(st.just(taps), st.integers(0, taps // 2), st.integers(1, 10)))


@settings(deadline=None)
@given(
    st.integers(1, 2), st.sampled_from([1, 5, 16, 40]), axis, axis, st.booleans(),
    st.sampled_from([UNCLAMPED, (0.0, inf), (-0.2, 0.3)]), st.sampled_from([1, 2, 3]),
)  # fmt: skip
@example(1, 40, (1, 0, 3), (6, 2, 2), False, UNCLAMPED, 1)
@example(1, 40, (1, 0, 3), (6, 3, 1), False, UNCLAMPED, 2)
@example(2, 16, (1, 0, 3), (7, 3, 2), False, UNCLAMPED, 2)
def test_a_mean_is_that_of_pytorch(batch, channels, down, across, shifted, limits, threads):
    assume(all(side + 2 * pad >= taps for taps, pad, side in (down, across)))
    size, padding, sides = zip(down, across, strict=True)
    shift = random(channels, seed=1) if shifted else None
    x = random(batch, channels, *sides).to(memory_format=LAST).requires_grad_(True)
    before, wide = torch.get_num_threads(), x.double()
    torch.set_num_threads(threads)
    try:
        with patch.object(loops, "mean_pool", wraps=loops.mean_pool) as ours:
            y = mean(size, padding, shift, limits)(x)
            upstream = random(*y.shape, seed=2)
            found = gradient(y, x, upstream)
    finally:
        torch.set_num_threads(before)
    assert ours.call_count == 2
    wanted = F.avg_pool2d(wide, size, 1, padding) + (0 if shift is None else shift.double()[:, None, None])
    torch.testing.assert_close(y.double(), F.hardtanh(wanted, *limits), rtol=1e-6, atol=1e-6)
    through = (y > limits[0]) & (y < limits[1])  # as it was rounded
    torch.testing.assert_close(found.double(), gradient(wanted, wide, upstream * through), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("limits", [UNCLAMPED, (0.0, inf)])
def test_channels_of_a_larger_tensor_are_read_where_they_lie(limits):
    wide, upstreams = random(1, 48, 6, 7).to(memory_format=LAST), random(1, 48, 6, 7, seed=1).to(memory_format=LAST)
    pool, part = mean(shift=random(16, seed=2), limits=limits), slice(8, 24)
    x, copied = (values.requires_grad_(True) for values in (wide[:, part], wide[:, part].clone()))
    assert pixels(x)[0].data_ptr() == x.data_ptr()
    y = pool(x)
    found = gradient(y, x, upstreams[:, part])
    same = pool(copied)
    assert torch.equal(y, same)
    assert torch.equal(found, gradient(same, copied, upstreams[:, part].clone()))


def test_what_is_not_a_number_stays_within_its_windows():
    x = torch.zeros(1, 16, 7, 7)
    x[0, 3, 2, 3] = torch.nan
    found = mean()(x.to(memory_format=LAST)).isnan().nonzero()
    assert found.tolist() == [[0, 3, row, column] for row in (1, 2, 3) for column in (2, 3, 4)]


@pytest.mark.parametrize("options", [{"count_include_pad": False}, {"divisor_override": 5}, {"stride": 2}], ids=str)
def test_pools_that_divide_otherwise_or_skip_places_are_left_to_pytorch(options):
    pool = nn.AvgPool2d(**{"kernel_size": 3, "stride": 1, "padding": 1} | options)
    x = random(1, 16, 8, 9).to(memory_format=LAST).requires_grad_(True)
    y, wanted = FrozenMeanPool(pool, None, *UNCLAMPED, Policy())(x), pool(x)
    assert torch.equal(y, wanted)
    upstream = random(*y.shape, seed=1)
    assert torch.equal(gradient(y, x, upstream), gradient(wanted, x, upstream))


def test_an_image_smaller_than_the_window_is_refused():
    with pytest.raises(RuntimeError, match="too small"):
        mean(5, 0)(random(1, 16, 4, 8))


def test_a_single_image_is_pooled_as_pytorch_does_it():
    assert torch.equal(mean()(random(16, 6, 7)), F.avg_pool2d(random(16, 6, 7), 3, 1, 1))


class Branch(nn.Module):
    """As an inception block pools, behind a convolution for which our own kernels are loaded."""

    def __init__(self):
        super().__init__()
        self.filtered, self.conv = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 16, 1)

    def forward(self, x):
        return self.conv(F.avg_pool2d(self.filtered(x), 3, 1, 1)).relu()


@pytest.mark.parametrize("fast", [True, False])
def test_a_branch_takes_its_bias_and_clamp_along(fast):
    torch.manual_seed(0)
    branch = Branch().eval().requires_grad_(False)
    frozen = fx.symbolic_trace(branch)
    rewrite_graph(frozen, fast, Tuning())
    (pool,) = (part for part in frozen.modules() if isinstance(part, FrozenMeanPool))
    assert (pool.compiled, pool.low, pool.high) == (fast, 0.0, inf)
    assert torch.equal(pool.bias, branch.conv.bias)
    assert [node.op for node in frozen.graph.nodes].count("call_module") == 3
    x = random(1, 16, 9, 8).to(memory_format=LAST).requires_grad_(True)
    with patch.object(loops, "mean_pool", wraps=loops.mean_pool) as ours:
        found, wanted = frozen(x), branch(x)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        upstream = random(*wanted.shape, seed=1)
        torch.testing.assert_close(gradient(found, x, upstream), gradient(wanted, x, upstream), rtol=1e-4, atol=1e-5)
    assert ours.call_count == 2 * fast
