"""Frozen clamps and pools against PyTorch's own, and what they keep for the way back."""

import copy
import operator
import subprocess
import sys
from functools import partial
from math import inf

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from phosphene.engine.algorithms import Direct, FusedGemm, SubpixelStem, TorchGemm, Winograd, WinogradStem
from phosphene.engine.clamp import FrozenClamp, Grad, clamp_, clamped_sum, masked
from phosphene.engine.conv import FrozenConv
from phosphene.engine.cpu import loops
from phosphene.engine.pool import FrozenMaxPool, FrozenMeanPool
from phosphene.engine.rewrite import rewrite_graph
from phosphene.engine.tuning import PYTORCH_ONLY, Policy, Tuning
from phosphene.networks.network import Network
from phosphene.networks.registry import named
from phosphene.recipe.settings import Eye
from phosphene.setup.session import load_network

SHAPES = [(2, 5, 7, 9), (3, 1, 4, 4), (4, 10), (1, 70, 123, 125), (2, 1, 1024, 513)]
LIMITS = [(0.0, inf), (0.0, 0.6), (-0.5, 0.5)]
POOLS = [
    nn.MaxPool2d(3, 2),
    nn.MaxPool2d((2, 3), (1, 2), (1, 1), dilation=(2, 1)),
    nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    nn.MaxPool2d((17, 16), stride=1),
    nn.AvgPool2d(3, 1, 1),
    nn.AvgPool2d((3, 2), padding=(1, 0), count_include_pad=False),
    nn.AvgPool2d(2, ceil_mode=True, divisor_override=3),
]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved_by(function, *inputs):
    """What `function` gives, and the tensors that its way back keeps."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: saved.append(kept) or kept, lambda kept: kept):
        return function(*inputs), saved


POLICIES = {
    "pytorch": PYTORCH_ONLY,
    "compiled": Policy(tuning=Tuning(large_tensor=inf)),
    "large": Policy(compiled=False, tuning=Tuning(large_tensor=0)),
}
"""By PyTorch, or by kernels: because a network is worth compiling for, or because a tensor is large."""


@pytest.fixture(params=POLICIES)
def way(request):
    return request.param


@pytest.fixture
def policy(way):
    return POLICIES[way]


@pytest.mark.parametrize(
    ("name", "shape", "layout", "compiles"),
    [
        ("pytorch", (1, 2, 2000, 2000), torch.channels_last, False),
        ("compiled", (1, 2, 3, 4), torch.channels_last, True),
        ("compiled", (1, 2, 3, 4), torch.contiguous_format, False),
        ("large", (1, 2, 3, 4), torch.contiguous_format, True),
        ("large", (2, 3, 4), torch.contiguous_format, False),
    ],
)
def test_where_kernels_clamp(name, shape, layout, compiles):
    x = torch.empty(shape, device="meta" if max(shape) > 10 else "cpu").contiguous(memory_format=layout)
    assert POLICIES[name].compiles(x) == compiles
    assert not POLICIES[name].compiles(x.double())


def test_a_large_tensor_is_one_of_a_million():
    assert Policy(compiled=False).compiles(torch.empty(1, 1, 1024, 1024))
    assert not Policy(compiled=False).compiles(torch.empty(1, 1, 1024, 1023))


def test_what_a_process_did_before_makes_no_difference():
    """The default network's small clamps are PyTorch's, though other tests have loaded the kernels."""
    loops.load_all()
    frozen = rewrite_graph(fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), True, Tuning())
    with torch.profiler.profile() as profile:
        frozen(random(1, 3, 9, 9).contiguous(memory_format=torch.channels_last))
    assert "aten::clamp_" in {event.name for event in profile.events()}


def test_a_small_clamp_leaves_channels_where_they_are(way, policy):
    if way == "large":
        pytest.skip("large tensors always get their channels last")
    x, addend = random(1, 5, 7, 9), random(1, 5, 7, 9, seed=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        y, mask = clamped_sum(x.to(memory_format=layout), addend.to(memory_format=layout), 0.0, 1.0, policy)
        for found in (y, mask, masked(Grad(y, False), mask, policy), clamp_(y, 0.0, 0.5, policy)[0]):
            assert found.is_contiguous(memory_format=layout)


@pytest.mark.slow
def test_all_kernels_can_be_made_ready():
    script = """
import torch
from phosphene.engine import prepare
from phosphene.engine.cpu import loops
from phosphene.engine.cpu.kernel import Kernel
kernels = [value for value in vars(loops).values() if isinstance(value, Kernel)]
assert len(kernels) == 7
assert not any("compiled" in vars(kernel) for kernel in kernels)
prepare((1024, 1024), torch.device("cpu"))
assert all("compiled" in vars(kernel) for kernel in kernels)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_clamp_is_that_of_pytorch(shape, limits, layout, dtype, policy):
    if len(shape) != 4 and layout == torch.channels_last:
        pytest.skip("only images have channels")
    tenths = (10 * random(*shape).to(dtype)).round() / 10  # so that some are the limits themselves
    x = tenths.contiguous(memory_format=layout).requires_grad_(True)
    upstream = random(*shape, seed=1).to(dtype)
    before = x.detach().clone()
    found, saved = saved_by(FrozenClamp(*limits, policy), x)
    wanted = F.hardtanh(x, *limits)
    assert torch.equal(found, wanted)
    assert torch.equal(x, before)
    assert torch.equal(*(torch.autograd.grad(y, x, upstream)[0] for y in (found, wanted)))
    assert [kept.dtype for kept in saved] == [torch.bool]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("other", [(2, 5, 7, 9), (5, 1, 1)])
def test_a_sum_is_clamped_as_one(other, layout, policy):
    x, y = ((8 * random(*shape, seed=seed)).round() / 8 for seed, shape in enumerate([(2, 5, 7, 9), other]))
    x = x.to(memory_format=layout).requires_grad_(True)
    y.requires_grad_(True)
    upstream = random(2, 5, 7, 9, seed=2)
    before = x.detach().clone(), y.detach().clone()
    found, wanted = FrozenClamp(0.0, 1.0, policy)(x, y), F.hardtanh(x + y, 0.0, 1.0)
    assert torch.equal(found, wanted)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    for term in (x, y):
        mine, theirs = (torch.autograd.grad(total, term, upstream, retain_graph=True)[0] for total in (found, wanted))
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("clamp", [clamp_, lambda x, *rest: clamped_sum(x, torch.zeros_like(x), *rest)])
def test_what_is_not_a_number_is_not_hidden(clamp, policy):
    y, mask = clamp(torch.tensor([torch.nan, 1.0, -inf, inf]).repeat(1, 1, 3, 1), 0.0, 6.0, policy)
    assert y[0, 0].isnan().unique(dim=0).tolist() == [[True, False, False, False]]
    assert mask[0, 0].unique(dim=0).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_gradient_is_overwritten_only_where_that_is_allowed(layout, policy):
    upstream, mask = random(1, 2, 400, 2).to(memory_format=layout), random(1, 2, 400, 2, seed=1) > 0
    before = upstream.clone()
    assert torch.equal(masked(Grad(upstream, False), mask, policy), before * mask)
    assert torch.equal(upstream, before)
    assert torch.equal(masked(Grad(upstream, True), mask, policy), before * mask)


def test_a_part_of_a_gradient_is_masked_alone(policy):
    whole, mask = random(1, 6, 5, 7).to(memory_format=torch.channels_last), random(1, 3, 5, 7, seed=1) > 0
    before = whole.clone()
    assert torch.equal(masked(Grad(whole[:, 2:5], False), mask, policy), before[:, 2:5] * mask)
    assert torch.equal(whole, before)


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_pool_is_that_of_pytorch_and_keeps_no_input(layout, pool, way, policy):
    x = random(2, 5, 19, 21).mul(3).round().to(memory_format=layout)  # so that maxima are equal
    x[0, 0, 3, 5], x[1, 1] = torch.nan, -torch.inf
    x.requires_grad_(True)
    is_max = isinstance(pool, nn.MaxPool2d)
    frozen = FrozenMaxPool(pool, policy) if is_max else FrozenMeanPool(pool, None, -inf, inf, PYTORCH_ONLY)
    found, saved = saved_by(frozen, x)
    wanted = pool(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    upstream = random(*wanted.shape, seed=1)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, upstream)[0] for y in (found, wanted)))
    compiled = isinstance(pool, nn.MaxPool2d) and (
        way == "large" or (way == "compiled" and layout == torch.channels_last)
    )
    number = 1 if compiled and pool.kernel_size != (17, 16) else 4
    assert [kept.nbytes for kept in saved] == [number * found.numel()] * isinstance(pool, nn.MaxPool2d)


class Everything(nn.Module):
    """Clamps and pools as modules, functions and methods, with all that stands in the way of freezing them."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.relu = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU()
        self.with_places = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x):
        x = self.conv(x)
        x = F.relu(x + x.flip(2)) + F.relu6(torch.add(x, x.flip(3), alpha=2))
        total = x + 1
        x = self.relu(total) * total
        x = F.relu(input=x - 1).relu() + (x + 0.5).relu()
        x = F.avg_pool2d(self.pool(x), 2, 1, 0, True, False)
        x = F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
        x = F.max_pool2d(x, 2, 1, 0, 1, True)
        return self.with_places(x)[0]


def test_all_that_can_be_frozen_is_and_the_rest_stays():
    module = Everything().double().eval().requires_grad_(False)
    frozen = fx.symbolic_trace(module)
    rewrite_graph(frozen, True, Tuning())
    parts = [type(part) for part in frozen.modules()]
    assert parts.count(FrozenClamp) == 6
    assert parts.count(FrozenMaxPool) == 3
    x = random(1, 3, 16, 18).double().requires_grad_(True)
    found, wanted = frozen(x), module(x)
    torch.testing.assert_close(found, wanted)
    upstream = random(*wanted.shape, seed=1).double()
    torch.testing.assert_close(*(torch.autograd.grad(y, x, upstream)[0] for y in (found, wanted)))


class Branches(nn.Module):
    """What an inception block does, with all that stands in the way of joining its branches."""

    def __init__(self):
        super().__init__()
        names = ("one", "two", "three", "bare", "strided", "wide", "pooled", "padded", "unbiased", "same", "more")
        options = {"strided": {"stride": 2}, "unbiased": {"bias": False}, "padded": {"padding": 1}}
        for channels, name in enumerate(names, 2):
            kernel = 3 if name == "wide" else 1
            setattr(self, name, nn.Conv2d(12, 14 if name == "more" else channels, kernel, **options.get(name, {})))

    def forward(self, x):
        x = x.sin()
        pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)
        branches = [self.one(x).relu(), self.two(x).relu(), F.relu6(self.three(x)), self.bare(x)]
        branches += [self.pooled(pool(x)).relu(), self.unbiased(pool(x, count_include_pad=False))]
        branches += [self.more(pool(x)), self.padded(pool(x, padding=0)).relu()]
        shared, skipped = pool(x), F.avg_pool2d(x, 2)
        branches += [self.same(shared), shared]
        return torch.cat(branches, 1), self.strided(x).relu(), self.wide(x).relu(), self.same(skipped)


def test_branches_that_read_the_same_are_joined():
    module = Branches().double().eval().requires_grad_(False)
    frozen = fx.symbolic_trace(module)
    rewrite_graph(frozen, True, Tuning())
    joined = [(name, conv.low, len(conv.bias)) for name, conv in frozen.named_modules() if name.startswith("merged")]
    assert sorted(size for _, _, size in joined) == [2 + 3, 5 + 8 + 10]
    x = random(2, 12, 9, 8).double().requires_grad_(True)
    found, wanted = frozen(x), module(x)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    upstreams = [random(*y.shape, seed=k).double() for k, y in enumerate(wanted)]
    torch.testing.assert_close(*(torch.autograd.grad(y, x, upstreams)[0] for y in (found, wanted)))


def test_pools_read_no_more_channels_than_the_kernel_behind_them_gives():
    frozen = fx.symbolic_trace(Branches().eval().requires_grad_(False))
    rewrite_graph(frozen, True, Tuning())
    channels = []
    for part in frozen.modules():
        if isinstance(part, FrozenMeanPool):
            part.register_forward_hook(lambda _, inputs, __: channels.append(inputs[0].shape[1]))
    frozen(random(1, 12, 9, 8))
    assert sorted(channels) == [8, 10, 12, 12, 12, 12]


WAYS = {
    **{f"efficientnet_lite{size}": {Direct, TorchGemm, SubpixelStem} for size in range(3)},
    "inception_v3": {WinogradStem, FusedGemm, Winograd},
    "resnet50": {WinogradStem, FusedGemm, Winograd},
    "vgg19": {WinogradStem, Winograd},
}


class Residual(nn.Module):
    """Blocks as resnet50 has them: the first with a kernel of one pixel beside it, the second without."""

    def __init__(self):
        super().__init__()
        self.stem, self.beside = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 32, 1)
        shapes = {"first": (16, 16, 1), "wide": (16, 16, 3), "last": (16, 32, 1)}
        for block in ("one", "two"):
            for name, (channels, filters, kernel) in shapes.items():
                channels = 32 if (block, name) == ("two", "first") else channels
                setattr(self, f"{block}_{name}", nn.Conv2d(channels, filters, kernel, padding=kernel // 2))

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.one_last(self.one_wide(self.one_first(x).relu()).relu())
        one = F.relu(y + self.beside(x))
        y = self.two_last(self.two_wide(self.two_first(one).relu()).relu())
        y += one
        return one, y.relu()


class Strided(nn.Module):
    """A block that halves its image, as resnet50 has them: `beside` has a stride, and is read after `first`."""

    def __init__(self, also):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.first, self.last, self.beside = (nn.Conv2d(16, 16, 1, stride=step) for step in (1, 1, 2))
        self.also = also

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.last(self.wide(self.first(x).relu()).relu())
        return self.also(x), (y + self.beside(x)).relu()


ALSO = {"none": lambda _: torch.zeros(1), "raised": lambda x: x, "pool": nn.MaxPool2d(3), "sum": lambda x: x + 1}


@pytest.mark.parametrize("also", ALSO)
def test_a_stride_passes_its_input_on(also, randomise):
    module = randomise(Strided(ALSO[also])).requires_grad_(False)
    frozen = fx.symbolic_trace(copy.deepcopy(module))
    rewrite_graph(frozen, True, Tuning())
    convs = [part for part in frozen.modules() if isinstance(part, FrozenConv) and part.returns_input]
    assert [(conv.stride, conv.owns_side_grad) for conv in convs] == [((2, 2), also == "none")]
    x = random(2, 3, 21, 18).requires_grad_(True)
    found, wanted = frozen(x), module.double()(x.double())
    for layers in ((0, 1), (1,)):
        losses = (sum(results[k].double().square().sum() for k in layers) for results in (found, wanted))
        torch.testing.assert_close(
            *(torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_and_their_gradients_are_taken_along(randomise, dtype):
    module = randomise(Residual()).requires_grad_(False)
    frozen = fx.symbolic_trace(copy.deepcopy(module))
    rewrite_graph(frozen, True, Tuning())
    parts = list(frozen.modules())
    assert FrozenClamp not in map(type, parts)
    assert not {operator.add, operator.iadd} & {node.target for node in frozen.graph.nodes}
    names = {tuple(conv.bias.tolist()): name for name, conv in module.named_children()}
    convs = {names[tuple(part.bias.tolist())]: part for part in parts if isinstance(part, FrozenConv)}
    assert {name for name, conv in convs.items() if conv.returns_input} == {"one_first", "two_first"}
    assert {name for name, conv in convs.items() if not conv.owns_grad} == {"beside", "two_last"}
    frozen.to(dtype)
    x = random(2, 3, 21, 18).requires_grad_(True)
    found, wanted = frozen(x.to(dtype)), module.double()(x.double())
    close = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-3}
    for layers in ((0, 1), (0,), (1,)):
        losses = (sum(results[k].double().square().sum() for k in layers) for results in (found, wanted))
        torch.testing.assert_close(*(torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses), **close)


class Sums(nn.Module):
    """Sums with a convolution that are clamped, and cannot all be taken along."""

    def __init__(self):
        super().__init__()
        self.wide, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 1)
        self.bias = nn.Parameter(random(32, 1, 1))

    def forward(self, x):
        x = self.wide(x)
        y, small, itself = self.last(x), self.last(F.avg_pool2d(x, 5)), self.last(x)
        mean = y.mean((2, 3), keepdim=True)
        return [
            F.relu(self.last(x) + mean),
            F.relu(y + small),
            F.relu(self.bias + self.last(x)),
            F.relu(itself + itself),
        ]


def test_sums_that_are_broadcast(randomise):
    module = randomise(Sums()).requires_grad_(False)
    frozen = fx.symbolic_trace(copy.deepcopy(module))
    rewrite_graph(frozen, True, Tuning())
    x = random(2, 16, 5, 5).requires_grad_(True)
    for found, wanted in zip(frozen(x), module(x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        upstreams = (torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (found, wanted))
        torch.testing.assert_close(*upstreams, rtol=1e-3, atol=1e-3)


def test_without_filtered_kernels_nothing_needs_numba():
    for channels, filtered in ((3, False), (16, True)):
        module = nn.Sequential(nn.Conv2d(channels, 32, 3, stride=2), nn.ReLU(), nn.Conv2d(32, 16, 1))
        frozen = fx.symbolic_trace(module.requires_grad_(False))
        rewrite_graph(frozen, True, Tuning())
        ways = {type(conv.algorithm) for conv in frozen.modules() if isinstance(conv, FrozenConv)}
        assert bool(ways & {WinogradStem, FusedGemm, Winograd}) == filtered


@pytest.mark.parametrize("card", named(), ids=lambda card: card.name)
def test_a_network_frozen_is_the_network(card, photo):
    """In float64, to rounding: what is folded, joined, reordered and frozen is linear, or done alike.

    The graph is the one for float32, where more is taken along.
    """
    network = load_network(Eye(model=card.name, weights="untrained"))
    module = copy.deepcopy(network.module).double().eval()
    layer = card.layers[-1]
    seen = []
    module.get_submodule(card.aliases.get(layer, layer)).register_forward_hook(lambda _, __, found: seen.append(found))
    image = photo(card.min_side + 21, card.min_side + 34, torch.float64).requires_grad_(True)
    (node,) = network.resolve(layer)
    features = Network(card, copy.deepcopy(network.module).double(), network.weights).features((node,))
    ways = {type(part.algorithm) for part in features.modules() if isinstance(part, FrozenConv)}
    assert ways | {TorchGemm} == WAYS[card.name.removeprefix("keras/")] | {TorchGemm}  # there is none with AVX-512
    module((image[None] - features.mean) / features.std)
    found = features(image[None])[node]
    torch.testing.assert_close(found, seen[0], rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(y.square().sum(), image)[0] for y in (found, seen[0])]
    assert (gradients[0] - gradients[1]).norm() < 1e-9 * gradients[1].norm()
