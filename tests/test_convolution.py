"""Frozen convolutions against PyTorch's own in float64, and what a step of our models costs, counted."""

import copy
import os
import platform
import subprocess
import sys

import pytest
import torch
from operations import Operations
from timm.layers import Conv2dSame
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from phosphene.dreaming.objective import Energy, Scoring
from phosphene.dreaming.stages import whole_image_gradient
from phosphene.engine.algorithms import Direct, FusedGemm, SubpixelStem, TorchGemm, Winograd, WinogradStem
from phosphene.engine.clamp import Grad
from phosphene.engine.conv import FrozenConv
from phosphene.engine.layout import pixels
from phosphene.engine.tuning import Policy, Tuning
from phosphene.networks.network import Network
from phosphene.recipe.settings import Eye, Recipe
from phosphene.setup.builders import stages_of
from phosphene.setup.session import load_network

torch.manual_seed(0)
CASES = [
    (Winograd, nn.Conv2d(64, 64, 3)),
    (Winograd, nn.Conv2d(70, 96, 3, padding=1)),
    (Winograd, nn.Conv2d(96, 65, 3, padding=(2, 0), bias=False)),
    (Winograd, nn.Conv2d(16, 48, 5, padding=2)),
    (Winograd, nn.Conv2d(33, 17, 5, padding=(1, 4))),
    (Winograd, nn.Conv2d(40, 16, (1, 7), padding=(0, 3))),
    (Winograd, nn.Conv2d(16, 80, (7, 1), padding=(6, 0))),
    (Winograd, nn.Conv2d(24, 24, (1, 3))),
    (TorchGemm, nn.Conv2d(5, 7, 1)),
    (FusedGemm, nn.Conv2d(16, 16, 1)),
    (FusedGemm, nn.Conv2d(48, 80, 1, bias=False)),
    (TorchGemm, nn.Conv2d(16, 33, 1)),
    (TorchGemm, nn.Conv2d(33, 16, 1)),
    (FusedGemm, nn.Conv2d(48, 16, 1, stride=2)),
    (FusedGemm, nn.Conv2d(64, 96, 1, stride=(1, 3))),
    (WinogradStem, nn.Conv2d(15, 64, 3, padding=1)),
    (WinogradStem, nn.Conv2d(3, 64, 3, padding=1)),
    (WinogradStem, Conv2dSame(3, 64, 3, stride=2)),
    (WinogradStem, Conv2dSame(3, 17, 3, stride=2)),
    (Winograd, Conv2dSame(24, 16, 3, stride=2)),
    (Winograd, Conv2dSame(24, 16, (4, 2))),
    (Direct, nn.Conv2d(64, 15, 3, padding=1)),
    (Direct, nn.Conv2d(3, 64, 7, padding=2)),
    (Direct, nn.Conv2d(16, 16, (3, 7), padding=3)),
    (Winograd, nn.Conv2d(64, 64, 3, padding=1, stride=2)),
    (Winograd, nn.Conv2d(16, 18, 3, stride=2)),
    (Winograd, nn.Conv2d(17, 16, (2, 5), padding=(1, 3), stride=(3, 2))),
    (Winograd, nn.Conv2d(16, 24, (1, 7), padding=(2, 3), stride=(2, 2))),
    (Winograd, nn.Conv2d(64, 64, 3, padding=3)),
    (Winograd, nn.Conv2d(16, 16, (2, 3), padding=1)),
    (Direct, nn.Conv2d(64, 64, 3, padding=2, dilation=2)),
    (Direct, nn.Conv2d(64, 64, 3, padding=1, groups=64)),
    (TorchGemm, nn.Conv2d(8, 9, 1, stride=2)),
    (TorchGemm, nn.Conv2d(70, 8, 1, stride=(3, 1), bias=False)),
    (Direct, nn.Conv2d(8, 8, 1, padding=1)),
    (WinogradStem, nn.Conv2d(3, 16, 3, stride=2)),
    (SubpixelStem, nn.Conv2d(3, 15, 3, stride=2)),
    (WinogradStem, nn.Conv2d(3, 64, 4, stride=4)),
    (WinogradStem, nn.Conv2d(3, 64, 7, padding=3, stride=2)),
    (WinogradStem, nn.Conv2d(4, 64, (5, 7), padding=(0, 1), stride=(3, 2))),
    (WinogradStem, Conv2dSame(3, 64, 5, stride=2)),
    (WinogradStem, Conv2dSame(3, 70, 4, stride=2)),
    (SubpixelStem, Conv2dSame(8, 8, 3, stride=2)),
    (Direct, Conv2dSame(8, 8, 5, stride=2, groups=8)),
    (Direct, Conv2dSame(8, 8, 1, stride=2)),
    (Winograd, Conv2dSame(64, 64, 3)),
    (SubpixelStem, Conv2dSame(8, 8, (4, 3), stride=(1, 3))),
    (SubpixelStem, Conv2dSame(3, 5, (3, 5), stride=(3, 2))),
    (SubpixelStem, nn.Conv2d(8, 12, 2, padding=4, stride=2)),
    (SubpixelStem, nn.Conv2d(3, 9, (4, 5), padding=(0, 9), stride=(4, 1))),
    (Direct, nn.Conv2d(8, 12, 2, padding=1, stride=3)),
    (Direct, nn.Conv2d(16, 12, 3, stride=2)),
    (Direct, nn.Conv2d(3, 9, 3, padding=2, stride=2, dilation=2)),
    (Direct, nn.Conv2d(8, 8, (1, 7), padding=(0, 3))),
]
SIZES = [(9, 23), (16, 8), (5, 6)]


@pytest.fixture(params=["AVX2", "AVX512"])
def processor(request, monkeypatch):
    """The algorithms of a processor, whichever runs the tests."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    return request.param


def on(algorithm, processor):
    """With AVX-512 a kernel of one pixel is PyTorch's too."""
    return Direct if (algorithm, processor) == (TorchGemm, "AVX512") else algorithm


def exact(conv, x, low, high):
    """The clamped convolution of `x` and its gradient, in float64, where it is clamped as the result in float32 was."""
    x = x.double().requires_grad_(True)
    y = copy.deepcopy(conv).double()(x)
    return x, y, y.clamp(low, high)


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("algorithm", "conv"), CASES, ids=lambda value: str(value).removeprefix("Conv2d"))
def test_the_map_and_its_gradient_are_those_of_a_convolution(algorithm, conv, size, processor):
    conv.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, conv.in_channels, *size, generator=generator).requires_grad_(True)
    frozen = FrozenConv(conv)
    assert type(frozen.algorithm_for(images)) is on(algorithm, processor)
    x, y, _ = exact(conv, images.detach(), -torch.inf, torch.inf)
    upstream = torch.randn(y.shape, generator=generator)
    found = frozen(images)
    assert relative(found, y) < 1e-5
    (wanted,) = torch.autograd.grad(y, x, upstream.double())
    assert relative(torch.autograd.grad(found, images, upstream)[0], wanted) < 1e-5


STEMS = [conv for algorithm, conv in CASES if algorithm is WinogradStem and max(conv.stride) > 1]


@pytest.mark.parametrize("size", [(16, 19), (17, 16), (7, 8)])
@pytest.mark.parametrize("conv", [*STEMS, nn.Conv2d(3, 24, 7, stride=7)], ids=str)
def test_a_stem_without_our_own_kernels(conv, size):
    conv.requires_grad_(False)
    frozen = FrozenConv(conv, 0.0, policy=Policy(compiled=False))
    assert type(frozen.algorithm) is SubpixelStem
    images = torch.randn(2, conv.in_channels, *size, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    x, y, clamped = exact(conv, images.detach(), 0.0, torch.inf)
    found = frozen(images)
    assert relative(found, clamped) < 1e-5
    (wanted,) = torch.autograd.grad(y, x, (found > 0).double())
    assert relative(torch.autograd.grad(found, images, torch.ones_like(found))[0], wanted) < 1e-5


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("limits", [(0.0, torch.inf), (0.0, 0.4)])
@pytest.mark.parametrize(("algorithm", "conv"), CASES, ids=lambda value: str(value).removeprefix("Conv2d"))
def test_nothing_passes_where_it_is_clamped(algorithm, conv, limits):
    conv.requires_grad_(False)
    images = torch.randn(1, conv.in_channels, 11, 9, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    found = FrozenConv(conv, *limits)(images)
    x, y, clamped = exact(conv, images.detach(), *limits)
    torch.testing.assert_close(found.double(), clamped, rtol=1e-4, atol=1e-5)
    upstream = torch.ones_like(found)
    passed = (found > limits[0]) & (found < limits[1])
    assert 0.1 < passed.float().mean() < 0.9
    (wanted,) = torch.autograd.grad(y, x, upstream.double() * passed)
    assert relative(torch.autograd.grad(found, images, upstream)[0], wanted) < 1e-5


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("limits", [(-torch.inf, torch.inf), (0.0, torch.inf), (0.0, 0.4)])
@pytest.mark.parametrize("owns_grad", [False, True])
@pytest.mark.parametrize(("algorithm", "conv"), CASES, ids=lambda value: str(value).removeprefix("Conv2d"))
def test_a_sum_and_others_that_read_the_input(algorithm, conv, limits, owns_grad):
    """What a residual block needs: `addend` is added in front of the clamp, and the input's other gradient behind."""
    conv.requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    frozen = FrozenConv(conv, *limits)
    frozen.returns_input, frozen.owns_grad = True, owns_grad
    images = torch.randn(2, conv.in_channels, 13, 10, generator=generator).requires_grad_(True)
    x, y, _ = exact(conv, images.detach(), *limits)
    addend = torch.randn(y.shape, generator=generator).requires_grad_(True)
    found, passed_on = frozen(images, addend)
    assert torch.equal(passed_on, images)
    total = y + addend.double()
    torch.testing.assert_close(found.double(), total.clamp(*limits), rtol=1e-4, atol=1e-4)
    upstream, side = torch.randn(y.shape, generator=generator), torch.randn(images.shape, generator=generator)
    through = upstream.double() * ((found > limits[0]) & (found < limits[1]))
    wanted = torch.autograd.grad(y, x, through)[0] + side
    for layout in (torch.contiguous_format, torch.channels_last):
        upstreams = [one.clone(memory_format=layout) for one in (upstream, side)]
        of_images, of_addend = torch.autograd.grad((found, passed_on), (images, addend), upstreams, retain_graph=True)
        assert relative(of_images, wanted) < 1e-5
        assert torch.equal(of_addend, through.float())
        assert torch.equal(upstreams[1], side)
        assert owns_grad or torch.equal(upstreams[0], upstream)
    alone = side.clone()
    assert torch.equal(torch.autograd.grad(passed_on, images, alone)[0].add_(1), side + 1)
    assert torch.equal(alone, side)


@pytest.mark.parametrize("stride", [2, (1, 3)])
def test_a_stride_adds_to_what_others_send_back(stride):
    frozen = FrozenConv(nn.Conv2d(32, 48, 1, stride=stride).requires_grad_(False), 0.0)
    frozen.returns_input, images = True, torch.randn(2, 32, 13, 10, requires_grad=True)
    found, passed_on = frozen(images)
    upstream, side = torch.randn_like(found), torch.randn_like(images)
    wanted = torch.autograd.grad((found, passed_on), images, (upstream, side), retain_graph=True)[0]
    frozen.owns_side_grad, kept = True, side.clone()
    (seen,) = torch.autograd.grad((found, passed_on), images, (upstream, kept), retain_graph=True)
    assert torch.equal(seen, wanted)
    assert seen.data_ptr() == kept.data_ptr()
    (alone,) = torch.autograd.grad(found, images, upstream)
    torch.testing.assert_close(alone + side, wanted)


@pytest.mark.parametrize("conv", [nn.Conv2d(32, 48, 3, padding=1), nn.Conv2d(32, 48, 1)], ids=str)
def test_some_channels_of_a_larger_tensor(conv):
    frozen, last = FrozenConv(conv.requires_grad_(False), 0.0), torch.channels_last
    whole = torch.randn(2, 70, 9, 11).to(memory_format=last)
    (found, mask), (wanted, same) = (frozen.algorithm.forward(x) for x in (whole[:, 5:37], whole[:, 5:37].clone()))
    assert torch.equal(found, wanted)
    assert torch.equal(mask, same)
    shape = whole[:, 5:37].shape
    backs = [
        frozen.algorithm.backward_input(Grad(y, False), mask, shape)[0]
        for y in (whole[:, 9:57], whole[:, 9:57].clone())
    ]
    assert torch.equal(*backs)


def test_pixels_are_copied_only_where_they_lie_otherwise():
    x = torch.randn(2, 7, 5, 6).to(memory_format=torch.channels_last)
    for part, pitch in ((x, 7), (x[:, 2:5], 7), (x[:1], 7), (x[:, :, 1:], 7)):
        start, found = pixels(part)
        flat = start.as_strided((start.numel(),), (1,))
        copied = start.data_ptr() != part.data_ptr()
        assert (found, copied) == ((pitch, False) if part.shape[2] == 5 else (7, True))
        places = [flat[place * found :][: part.shape[1]] for place in range(part.numel() // part.shape[1])]
        assert torch.equal(torch.stack(places), part.permute(0, 2, 3, 1).flatten(0, 2))
    assert pixels(x.contiguous())[1] == 7
    assert torch.equal(pixels(x.contiguous())[0], pixels(x)[0])


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("transformed", [1, 130_000, 13_000_000])
def test_the_bits_do_not_depend_on_how_tiles_are_shared_out(transformed, threads):
    plain = nn.Conv2d(20, 36, 3, padding=1).requires_grad_(False)
    conv = FrozenConv(plain, 0.0)
    images = torch.randn(2, 20, 4 * 11 - 1, 4 * 13 - 2)
    wanted = conv(images)
    assert relative(wanted, exact(plain, images, 0.0, torch.inf)[2]) < 1e-5
    torch.set_num_threads(threads)
    assert torch.equal(FrozenConv(plain, 0.0, policy=Policy(tuning=Tuning(transformed=transformed)))(images), wanted)


@pytest.mark.parametrize("blocks", [1, 5])
def test_the_bits_do_not_depend_on_how_pixels_are_shared_out(blocks, threads):
    plain = nn.Conv2d(32, 48, 1).requires_grad_(False)
    images, other = torch.randn(2, 32, 11, 13), torch.randn(2, 48, 11, 13)
    wanted = FrozenConv(plain, 0.0)(images, other)
    conv = FrozenConv(plain, 0.0, policy=Policy(tuning=Tuning(pixel_blocks=blocks)))
    torch.set_num_threads(threads)
    assert torch.equal(conv(images, other), wanted)
    assert torch.equal(conv(images[:, :, 1:, 3:], other[:, :, 1:, 3:]), wanted[:, :, 1:, 3:])


def test_a_nan_spoils_only_what_sees_it():
    frozen = FrozenConv(nn.Conv2d(16, 16, 3, padding=1).requires_grad_(False), 0.0)
    image = torch.randn(1, 16, 40, 40)
    image[0, 3, 20, 20] = torch.nan
    seen = frozen(image).isnan().any(dim=1)[0]
    rows, columns = torch.nonzero(seen, as_tuple=True)
    assert len(rows) > 0
    assert (rows.min() >= 16, rows.max() < 24, columns.min() >= 16, columns.max() < 24) == (True,) * 4


def test_a_crop_that_begins_on_the_grid_has_the_same_bits():
    frozen = FrozenConv(nn.Conv2d(64, 80, 3, padding=1).requires_grad_(False))
    image = torch.randn(1, 64, 60, 44)
    whole, crop = frozen(image), frozen(image[:, :, 8:, 12:])
    assert torch.equal(crop[:, :, 4:, 4:], whole[:, :, 12:, 16:])
    assert not torch.equal(frozen(image[:, :, 9:, 12:])[:, :, 4:, 4:], whole[:, :, 13:, 16:])


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 32, 7, stride=2, padding=3), nn.Conv2d(16, 32, 3, padding=1)], ids=str)
def test_a_gradient_from_the_grid_on_has_the_same_bits(conv):
    frozen = FrozenConv(conv.requires_grad_(False))
    step, grid = frozen.stride[0], frozen.algorithm.grid
    upstream = torch.randn(1, 32, 30, 26)

    def back(y):
        shape = torch.Size([1, conv.in_channels, step * y.shape[2], step * y.shape[3]])
        return frozen.algorithm.backward_input(Grad(y, False), None, shape)[0]

    whole, on, off = (
        back(upstream),
        back(upstream[:, :, grid:, 2 * grid :]),
        back(upstream[:, :, grid + 1 :, 2 * grid :]),
    )
    assert torch.equal(on[:, :, 8:, 8:], whole[:, :, grid * step + 8 :, 2 * grid * step + 8 :])
    assert not torch.equal(off[:, :, 8:, 8:], whole[:, :, (grid + 1) * step + 8 :, 2 * grid * step + 8 :])


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 1), (1, 13)])
@pytest.mark.parametrize("batch", [1, 3])
def test_few_places(size, batch):
    """Fewer than a block of the product, or one more."""
    conv = nn.Conv2d(16, 32, 1).requires_grad_(False)
    frozen = FrozenConv(conv, 0.0)
    images = torch.randn(batch, 16, *size).requires_grad_(True)
    other = torch.randn(batch, 32, *size)
    found = frozen(images, other)
    _, y, _ = exact(conv, images.detach(), 0.0, torch.inf)
    torch.testing.assert_close(found.double(), (y + other).clamp(0), rtol=1e-4, atol=1e-5)
    (upstream,) = torch.autograd.grad(found.sum(), images)
    torch.testing.assert_close(upstream, torch.einsum("nfhw,fc->nchw", (found > 0).float(), conv.weight[:, :, 0, 0]))
    with torch.no_grad():
        images[-1, 0, -1, -1] = torch.nan
    spoiled = frozen(images, other).isnan()
    assert spoiled[-1, :, -1, -1].all()
    assert spoiled.sum() == 32


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is of x86-64")
def test_processors_with_shorter_vectors(tmp_path):
    script = """
import torch
from torch import nn
from phosphene.engine.conv import FrozenConv
from phosphene.engine.cpu.vectors import LANES
assert LANES == 8
for conv in (nn.Conv2d(24, 40, 3, padding=1), nn.Conv2d(48, 16, 1), nn.Conv2d(3, 32, 3, stride=2)):
    conv.requires_grad_(False)
    frozen = FrozenConv(conv, 0.0)
    x = torch.randn(2, conv.in_channels, 11, 13, requires_grad=True)
    y, wanted = frozen(x), conv(x).relu()
    assert (y - wanted).norm() < 1e-5 * wanted.norm()
    a, b = (torch.autograd.grad(z, x, (wanted > 0.01).float())[0] for z in (y, wanted))
    assert (a - b).norm() < 1e-5 * b.norm()
    print(type(frozen.algorithm).__name__)
"""
    settings = {
        "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma", "ATEN_CPU_CAPABILITY": "avx2",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }  # fmt: skip
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.stdout.split() == ["Winograd", "FusedGemm", "WinogradStem"], done.stderr


@pytest.mark.parametrize(
    ("capability", "machine", "algorithm"),
    [("DEFAULT", "x86_64", Direct), ("DEFAULT", "arm64", Winograd), ("SVE256", "aarch64", Winograd)],
)
def test_processors_without_fused_products_filter_nothing(capability, machine, algorithm, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert type(FrozenConv(nn.Conv2d(64, 64, 3).requires_grad_(False)).algorithm) is algorithm


@pytest.mark.parametrize("stride", [1, 2])
def test_an_image_smaller_than_the_kernel(stride):
    conv = nn.Conv2d(16, 16, 3, stride=stride).requires_grad_(False)
    for module in (conv, FrozenConv(conv)):
        with pytest.raises(RuntimeError, match=r"size|smaller"):
            module(torch.zeros(1, 16, 2, 9))


def test_other_precisions_take_the_direct_way():
    conv = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    image = torch.randn(1, 64, 9, 9, dtype=torch.float64)
    frozen = FrozenConv(conv.double())
    torch.testing.assert_close(frozen(image), conv(image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("conv", [conv for _, conv in CASES], ids=str)
def test_shapes_are_known_without_computing(conv):
    frozen = FrozenConv(conv.requires_grad_(False), 0.0)
    wanted = frozen(torch.randn(2, conv.in_channels, 9, 14)).shape
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert frozen(torch.empty(2, conv.in_channels, 9, 14)).shape == wanted


class Read(nn.Module):
    """A clamped convolution that one convolution reads, and one that others read too."""

    def __init__(self):
        super().__init__()
        self.once, self.twice, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = self.twice(self.once(x).relu()).relu()
        return x + self.last(x).relu()


def test_only_a_gradient_that_nobody_else_reads_is_overwritten(card, randomise, photo):
    module, image = randomise(Read().double()), photo(9, 8).requires_grad_(True)
    features = Network(card(), copy.deepcopy(module), "none").features(("add",))
    assert [part.owns_grad for part in features.modules() if isinstance(part, FrozenConv)] == [True, False, False]
    frozen, plain = features(image[None])["add"], module((image[None] - features.mean) / features.std)
    found, wanted = (torch.autograd.grad(y.square().sum(), image, retain_graph=True)[0] for y in (frozen, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fast", [True, False])
def test_tiles_begin_on_the_grid(fast):
    network = load_network(Eye(model="resnet50", weights="untrained", fast=fast))
    scoring = Scoring((Energy(*network.resolve("layer2.3")),))
    (stage,) = stages_of(network, scoring, Recipe(tile=256))((900, 900))
    assert stage.strides == dict.fromkeys(scoring.layers, 8)
    assert stage.stride == (4 * 8 if fast else 8)


STEPS = {
    "efficientnet_lite0": ("blocks.4.2", 0.972, 5.453),
    "inception_v3": ("Mixed_6c", 3.301, 4.515),
    "resnet50": ("layer3.5", 8.771, 9.880),
    "vgg19": ("features.28", 17.879, 16.024),
}
"""Of a step at 192x256: the layer, giga-operations (multiplications and additions), and megabytes that it saves."""


@pytest.mark.parametrize("model", STEPS)
def test_what_a_step_costs(model):
    """The work and the memory of a step, which no machine's noise can hide: more than before is a regression."""
    layer, operations, megabytes = STEPS[model]
    network = load_network(Eye(model=model, weights="untrained"))
    scoring = Scoring((Energy(*network.resolve(layer)),))
    gradient_of = whole_image_gradient(network.features(scoring.layers), scoring)
    saved = {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Operations() as operations_done, torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        gradient_of(torch.rand(3, 192, 256), (0, 0))
    assert operations_done.total / 1e9 == pytest.approx(operations, rel=0.005)
    assert sum(saved.values()) / 1e6 == pytest.approx(megabytes, rel=0.005)


@pytest.mark.slow
def test_kernels_need_no_folder_to_be_kept_in():
    """As where neither the package's folder nor the home can be written."""
    script = """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
import torch
from phosphene.engine.cpu import winograd
weight = torch.randn(16, 16, 3, 3)
image = torch.randn(1, 16, 9, 9)
weights = winograd.transformed(weight, (1, 1), back=False)
found, _ = weights.convolve(image, torch.zeros(16), (9, 9), (1, 1))
print(torch.allclose(found, torch.nn.functional.conv2d(image, weight, padding=1), atol=1e-3))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "True" in done.stdout, done.stderr


@pytest.mark.slow
def test_what_a_first_call_waits_for_is_said(tmp_path):
    script = """
import sys, torch
from phosphene.engine.cpu import kernel as launching
from phosphene.engine.cpu import winograd
from phosphene.engine.conv import FrozenConv
launching.PATIENCE = float(sys.argv[1])
conv = FrozenConv(torch.nn.Conv2d(16, 16, 3).requires_grad_(False))
conv(torch.zeros(1, 16, 9, 9)), conv(torch.zeros(1, 16, 9, 8))
print(winograd._filter_tiles.compiled.cache_hits)
"""
    settings = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script, patience], env=settings, capture_output=True, text=True, check=True
        )
        for patience in ("0.3", "20")
    )
    assert first.stderr == "preparing kernels for this processor: up to a minute the first time, then they are cached\n"
    assert (second.stderr, first.stdout, second.stdout) == ("", "0\n", "1\n")
