"""Steps that are recorded and played: the same bits as the network's own, whatever else happens meanwhile."""

import subprocess
import sys
import threading
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from phosphene.dreaming.gradient import whole_image_gradient
from phosphene.dreaming.objective import Energy, Mean, Scoring
from phosphene.engine import playing, repeating
from phosphene.engine import pool as pooling
from phosphene.engine.conv import FrozenConv
from phosphene.engine.cpu import kernel as launching
from phosphene.engine.cpu.kernel import Kernel, overheard
from phosphene.engine.playing import LINE, laid_out
from phosphene.engine.pool import FrozenMaximum
from phosphene.engine.recording import Operation
from phosphene.engine.repeating import Repeated
from phosphene.setup.memory import WORKSPACE, gradient_bytes
from phosphene.setup.session import load_network

LAYERS = {
    "inception_v3": ("maxpool2", "Mixed_6b"),
    "resnet50": ("layer1.1", "layer2.1"),
    "vgg19": ("features.8", "features.17"),
    "efficientnet_lite0": ("blocks.1.0", "blocks.3.1"),
}


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def frozen(*arguments, low=0.0, **settings):
    """A convolution by our own kernels, with seeded weights."""
    conv = nn.Conv2d(*arguments, **settings)
    for k, weight in enumerate(conv.parameters()):
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(k)) / 8
    return FrozenConv(conv.requires_grad_(False), low, inf)


class Turned(torch.autograd.Function):
    """Does nothing forth, and reads a constant on the way back."""

    constant = torch.tensor(-2.0)

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope * Turned.constant


class Branched(nn.Module):
    """Kernels and PyTorch's operations: views, a sum in place, a slice that is overwritten, a split and a cat."""

    def __init__(self):
        super().__init__()
        self.stem, self.one = frozen(3, 32, 3, padding=1), frozen(32, 48, 1)
        self.left, self.right, self.pool = frozen(16, 16, 3, padding=1), frozen(32, 16, 3, padding=1), nn.MaxPool2d(2)
        self.largest = FrozenMaximum(self.pool)
        self.ran = 0

    def forward(self, images):
        self.ran += 1
        x = self.stem((images - 0.5) * torch.linspace(1, 2, 3)[:, None, None])
        first, second = torch.split(self.one(x), [16, 32], 1)
        left, right = self.left(first), self.right(second)
        joined = Turned.apply(torch.cat([left, torch.tanh(right)], 1))
        shifted = joined.clone()
        shifted[:, :8] = joined[:, 8:16] + 1
        shifted.mul_(0.5)
        return {"early": x, "late": self.largest(shifted), "flat": joined.mean((2, 3))[:, :, None, None]}


@pytest.fixture
def branched():
    return Branched()


def step(network, images, chosen=("early", "late", "flat"), layout=torch.channels_last):
    """Results, and the gradient for slopes that depend on nothing but their shapes."""
    images = images.clone().requires_grad_(True)
    results = network(images)
    slopes = [picture(*results[name].shape, seed=9).to(memory_format=layout) for name in chosen]
    (gradient,) = torch.autograd.grad([results[name] for name in chosen], images, slopes)
    return {name: result.detach() for name, result in results.items()}, gradient


def agree(ours, theirs):
    (found, gradient), (expected, slope) = ours, theirs
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(gradient, slope)


@pytest.mark.parametrize("model", LAYERS)
@pytest.mark.parametrize("balanced", [False, True])
def test_a_dream_is_the_same_recorded_and_played(model, balanced, monkeypatch):
    network = load_network(model, "untrained", 0, "cpu", True)
    scoring = Scoring(tuple(Energy(*network.resolve(layer)) for layer in LAYERS[model]), balanced)
    features = network.features(scoring.layers)
    gradient_of = whole_image_gradient(Repeated(features, scoring.gradients), scoring)
    whole = whole_image_gradient(features, scoring)
    for k in range(3):
        image, shift = picture(3, 90, 107, seed=k), (3 * k, -5 * k)
        expected = whole(image, shift)
        if k:
            monkeypatch.setattr(features, "forward", None)
            monkeypatch.setattr(Kernel, "run", None)
        score, gradient = gradient_of(image, shift)
        monkeypatch.undo()
        assert score == expected[0]
        assert torch.equal(gradient, expected[1])


def test_each_shape_is_recorded_once(branched):
    repeated = Repeated(branched, 1)
    sizes = [(1, 3, 12, 14), (2, 3, 12, 14), (1, 3, 16, 14)]
    for seed in range(3):
        for size in sizes:
            agree(step(repeated, picture(*size, seed=seed)), step(Branched(), picture(*size, seed=seed)))
    assert branched.ran == len(sizes)


def test_threads_have_recordings_of_their_own(branched, monkeypatch):
    monkeypatch.setattr(launching, "MOST_THREADS", 2)
    repeated, images = Repeated(branched, 1), picture(1, 3, 64, 60)
    expected = step(Branched(), images)
    try:
        for threads in (1, 2, 1, 2):
            torch.set_num_threads(threads)
            agree(step(repeated, images), expected)
    finally:
        torch.set_num_threads(1)
    assert branched.ran == 2


def test_what_memory_holds_before_makes_no_difference(branched, monkeypatch):
    repeated, empty = Repeated(branched, 1), torch.empty
    agree(step(repeated, picture(1, 3, 12, 14)), step(Branched(), picture(1, 3, 12, 14)))
    monkeypatch.setattr(playing.torch, "empty", lambda *size, **kind: empty(*size, **kind).fill_(255))
    played = step(repeated, picture(1, 3, 12, 14, seed=1))
    monkeypatch.undo()
    agree(played, step(Branched(), picture(1, 3, 12, 14, seed=1)))
    assert branched.ran == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_may_lie_otherwise_than_recorded(branched, layout):
    repeated, images = Repeated(branched, 1), picture(2, 3, 12, 14)
    step(repeated, images)
    agree(step(repeated, images, layout=layout), step(Branched(), images, layout=layout))
    wide = picture(2, 3, 12, 28)[..., ::2]
    agree(step(repeated, wide), step(Branched(), wide))
    assert branched.ran == 1


def test_the_way_back_may_be_taken_again(branched):
    repeated, images = Repeated(branched, 2), picture(1, 3, 12, 14)
    for _ in range(2):
        pixels = images.clone().requires_grad_(True)
        results = repeated(pixels)
        gradients = []
        for names in (["late"], ["early"], ["late"], ["early", "flat"], ["late"]):
            slopes = [picture(*results[name].shape, seed=9) for name in names]
            chosen = [results[name] for name in names]
            gradients.append(torch.autograd.grad(chosen, pixels, slopes, retain_graph=True)[0])
            plain = step(Branched(), images, chosen=names, layout=torch.contiguous_format)
            assert torch.equal(gradients[-1], plain[1])
    assert torch.equal(gradients[0], gradients[2])
    assert branched.ran == 1


@given(st.lists(st.sets(st.sampled_from(["early", "late", "flat"]), min_size=1), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_ways_back_in_any_order(orders):
    """The first step takes some several times, and others behind them, which reach deeper."""
    branched, plain = Branched(), Branched()
    repeated = Repeated(branched, 2)
    for seed in range(2):
        images = picture(1, 3, 12, 14, seed=seed)
        pixels, alone = (images.clone().requires_grad_(True) for _ in range(2))
        results, wanted = repeated(pixels), plain(alone)
        for names in map(sorted, orders):
            slopes = [picture(*results[name].shape, seed=9) for name in names]
            gradients = (
                torch.autograd.grad([each[name] for name in names], source, slopes, retain_graph=True)[0]
                for each, source in ((results, pixels), (wanted, alone))
            )
            assert torch.equal(*gradients)
    assert branched.ran == 1


def test_a_way_back_is_taken_once_where_one_is_asked_for(branched):
    repeated, images = Repeated(branched, 1), picture(1, 3, 12, 14)
    for message in ("second time", "way back was taken"):
        pixels = images.clone().requires_grad_(True)
        late = repeated(pixels)["late"].sum()
        torch.autograd.grad(late, pixels, retain_graph=True)
        with pytest.raises(RuntimeError, match=message):
            torch.autograd.grad(late, pixels, retain_graph=True)


def test_a_way_back_on_other_threads_is_not_kept(branched, monkeypatch):
    monkeypatch.setattr(launching, "MOST_THREADS", 2)
    repeated, expected = (
        Repeated(branched, 2),
        step(Branched(), picture(1, 3, 64, 60), ["late"], torch.contiguous_format),
    )
    try:
        for back in (1, 2, 1, 2):
            torch.set_num_threads(2)
            images = picture(1, 3, 64, 60).requires_grad_(True)
            late = repeated(images)["late"]
            torch.set_num_threads(back)
            assert torch.equal(torch.autograd.grad([late], images, [picture(*late.shape, seed=9)])[0], expected[1])
    finally:
        torch.set_num_threads(1)
    assert branched.ran == 2


def test_other_results_are_recorded_when_they_are_asked_for(branched):
    repeated, images = Repeated(branched, 1), picture(1, 3, 12, 14)
    ran = []
    for chosen in (["late"], ["late"], ["early"], ["early"], ["early"]):
        agree(step(repeated, images, chosen), step(Branched(), images, chosen))
        ran.append(branched.ran)
    assert ran == [1, 1, 2, 3, 3]


def test_steps_may_overlap(branched):
    repeated = Repeated(branched, 1)
    step(repeated, picture(1, 3, 12, 14))
    images = [picture(1, 3, 12, 14, seed=k).requires_grad_(True) for k in range(3)]
    results = [repeated(each) for each in images]
    for k in (1, 0, 2):
        late = results[k]["late"]
        (gradient,) = torch.autograd.grad([late], images[k], [picture(*late.shape, seed=9)])
        assert torch.equal(gradient, step(Branched(), images[k].detach(), ["late"])[1])


def test_threads_play_at_the_same_time(branched):
    repeated, errors = Repeated(branched, 1), []
    pictures = [picture(1, 3, 40, 44, seed=k) for k in range(3)]
    expected = [step(Branched(), each) for each in pictures]

    def dream(k):
        try:
            for _ in range(12):
                agree(step(repeated, pictures[k]), expected[k])
        except BaseException as error:
            errors.append(error)

    runners = [threading.Thread(target=dream, args=(k,)) for k in range(3)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert errors == []


def noisy(images):
    return {"late": frozen(16, 16, 3)(images.repeat(1, 6, 1, 1)[:, :16] + torch.rand(1))}


def chosen_by_value(images):
    x = frozen(16, 16, 3)(images.repeat(1, 6, 1, 1)[:, :16])
    return {"late": x[:, x.mean((0, 2, 3)) > 0.1]}


@pytest.mark.parametrize("network", [noisy, chosen_by_value])
def test_what_cannot_be_repeated_is_run_each_time(network):
    ran = []
    repeated = Repeated(lambda images: ran.append(1) or network(images), 1)
    for seed in range(3):
        images = picture(1, 3, 12, 14, seed=seed)
        torch.manual_seed(seed)
        found = step(repeated, images, ["late"])
        torch.manual_seed(seed)
        agree(found, step(network, images, ["late"]))
    assert len(ran) == 3


def test_an_error_ends_the_recording(branched):
    repeated = Repeated(lambda images: branched(images) if images.shape[2] > 3 else branched(images)["none"], 1)
    with pytest.raises(KeyError, match="none"):
        step(repeated, picture(1, 3, 3, 14))
    assert overheard.by is None
    agree(step(repeated, picture(1, 3, 12, 14)), step(Branched(), picture(1, 3, 12, 14)))
    assert torch.ones(2).sum() == 2


def test_the_oldest_shapes_are_forgotten(branched, monkeypatch):
    monkeypatch.setattr(repeating, "MOST_SHAPES", 2)
    repeated = Repeated(branched, 1)
    for side in (8, 10, 12, 12, 10, 8):
        step(repeated, picture(1, 3, side, 8))
    assert branched.ran == 4


def test_only_gradients_in_float32_are_recorded(monkeypatch):
    monkeypatch.setattr(repeating, "Take", None)
    repeated = Repeated(lambda images: {"double": images * 2}, 1)
    for _ in range(2):
        repeated(picture(1, 3, 12, 14))
        repeated(picture(1, 3, 12, 14).double().requires_grad_(True))
        with FakeTensorMode(allow_non_fake_inputs=True):
            repeated(torch.empty(1, 3, 12, 14).requires_grad_(True))
    with pytest.raises(TypeError):
        repeated(picture(1, 3, 12, 14).requires_grad_(True))


def test_networks_without_kernels_are_not_recorded():
    """PyTorch takes so long for its convolutions that to record them would not pay."""
    networks = {name: load_network(name, "untrained", 0, "cpu", name != "resnet50") for name in LAYERS}
    found = {name: network.features(network.resolve(LAYERS[name][0])) for name, network in networks.items()}
    recorded = {name for name, features in found.items() if isinstance(features.repeated(1), Repeated)}
    assert recorded == {"inception_v3", "vgg19"}


def test_kernels_are_launched_together(branched, monkeypatch):
    launched, launch = [], playing.launch
    monkeypatch.setattr(
        playing, "launch", lambda entries, threads: launched.append(len(entries)) or launch(entries, threads)
    )
    repeated = Repeated(branched, 1)
    for _ in range(2):
        step(repeated, picture(1, 3, 12, 14))
    assert (max(launched), sum(launched)) == (3, 9)


@pytest.mark.parametrize("model", ["inception_v3", "resnet50", "vgg19"])
def test_a_played_step_takes_the_memory_that_was_foretold(model):
    network = load_network(model, "untrained", 0, "cpu", True)
    scoring = Scoring(tuple(Energy(*network.resolve(layer)) for layer in LAYERS[model]))
    features, size = network.features(scoring.layers), (192, 256)
    rooms = []
    for gradients in (1, 2):
        repeated = Repeated(features, gradients)
        whole_image_gradient(repeated, scoring)(picture(3, *size), (0, 0))
        (recording,) = repeated.recordings.values()
        rooms.append(recording.room)
    assert rooms[0] < rooms[1]
    assert rooms[0] <= 1.2 * gradient_bytes(features, scoring, size) / WORKSPACE


def test_what_is_only_asked_for_its_shape_is_not_played(branched):
    pooling._pooled.cache_clear()
    repeated = Repeated(branched, 1)
    step(repeated, picture(1, 3, 12, 14))
    (recording,) = repeated.recordings.values()
    names = {part.function.__name__ for part, _ in recording.forth.parts if isinstance(part, Operation)}
    assert "cat.default" in names
    assert not [name for name in names if "pool" in name]


def test_pytorchs_compiler_is_not_loaded():
    """It takes a second and 140 MB."""
    program = """
import sys, torch
from torch import nn
from phosphene.engine.conv import FrozenConv
from phosphene.engine.recording import Operation
from phosphene.engine.repeating import Repeated
conv = FrozenConv(nn.Conv2d(16, 16, 3).requires_grad_(False), 0.0, 1.0)
repeated = Repeated(lambda images: {"y": conv(images)}, 1)
for _ in range(2):
    images = torch.rand(1, 16, 8, 8, requires_grad=True)
    torch.autograd.grad(repeated(images)["y"].sum(), images)
(recording,) = repeated.recordings.values()
assert recording.is_repeatable and not recording.is_new
assert "torch._dynamo" not in sys.modules, "the compiler was loaded"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


BLOCKS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20), st.integers(0, 8)), max_size=30)


@given(BLOCKS)
@settings(deadline=None)
def test_blocks_that_live_at_once_lie_apart(blocks):
    sizes, lives = [size for size, _, _ in blocks], [(first, first + length) for _, first, length in blocks]
    begins, room = laid_out(sizes, lives)
    ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    for i in range(len(blocks)):
        assert begins[i] % LINE == 0
        assert 0 <= begins[i] <= ends[i] <= room
        for j in range(i):
            together = lives[i][0] <= lives[j][1] and lives[j][0] <= lives[i][1]
            assert not together or ends[i] <= begins[j] or ends[j] <= begins[i] or not sizes[i] * sizes[j]
    lines = [-(-size // LINE) * LINE for size in sizes]
    most = max((sum(n for n, (a, b) in zip(lines, lives, strict=True) if a <= t <= b) for t in range(30)), default=0)
    assert most <= room <= sum(lines)


def test_blocks_that_follow_each_other_share_memory():
    assert laid_out([640, 640, 64, 640], [(0, 1), (2, 3), (1, 2), (4, 5)]) == ([0, 0, 640, 0], 704)


def test_a_score_of_means_is_played_too():
    network = load_network("resnet50", "untrained", 0, "cpu", True)
    (node,) = network.resolve("layer1.0")
    scoring = Scoring((Mean(node, channels=(3, 5), position=(0.2, 0.7)),))
    features = network.features(scoring.layers)
    plain, ours = (whole_image_gradient(each, scoring) for each in (features, features.repeated(1)))
    for k in range(3):
        image = picture(3, 64, 72, seed=k)
        assert torch.equal(ours(image, (k, 5 * k))[1], plain(image, (k, 5 * k))[1])
