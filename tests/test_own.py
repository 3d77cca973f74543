"""Networks and objectives of one's own, in whatever state and mode: read rightly, and left as they were."""

import copy
import functools
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

import phosphene
from phosphene.disk.plan import stages_in
from phosphene.dreaming.objective import Own
from phosphene.errors import SettingsError, UnknownNameError, UsageError
from phosphene.networks import registry
from phosphene.networks.graph import on_paper
from phosphene.networks.inspect import untrained_network
from phosphene.networks.own import checksum
from phosphene.networks.registry import introduce
from phosphene.recipe.terms import OWN
from phosphene.setup.session import kept_network, load_network

SMALL = {"size": 48, "octaves": 1, "steps": 2, "jitter": 4}


class Tiny(nn.Module):
    """Batch norm, dropout and a head; `fork` makes its course depend on its input."""

    def __init__(self, channels: int = 3, fork: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 5)
        self.fork = fork

    def forward(self, x):
        x = self.drop(self.act(self.norm(self.first(x))))
        if self.fork and x.sum() > 1e9:
            x = x + 1
        x = self.second(x)
        return {"logits": self.head(x.mean((2, 3))), "map": x}


class Places(nn.Module):
    """Keeps a table of places for the size that it saw last, and can be told what to leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.table = None

    def forward(self, x, left_out=None):
        if self.table is None or self.table.shape != x.shape[2:]:
            self.table = torch.ones(x.shape[2:]) * self.first.bias.sum()
        x = self.first(x) + self.table
        if left_out is not None:
            x = x * left_out
        return self.second(x)


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    """What is introduced here is nobody else's."""
    yield
    registry._introduced.clear()
    OWN.clear()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny()


def state_of(module):
    return (
        [part.training for part in module.modules()],
        {name: (value.clone(), value.requires_grad, value.grad) for name, value in module.named_parameters()},
        {name: value.clone() for name, value in module.named_buffers()},
        [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()],
    )


def assert_same_state(before, after):
    assert before[0] == after[0]
    assert before[3] == after[3]
    for name, (value, wanted, grad) in before[1].items():
        assert torch.equal(value, after[1][name][0])
        assert (wanted, grad) == after[1][name][1:]
    assert all(torch.equal(value, after[2][name]) for name, value in before[2].items())


def gradient(module, image, layer, mean=0.0, std=1.0):
    """The plain gradient of a layer's mean square, by a hook, without Phosphene."""
    module, found = copy.deepcopy(module).float().eval(), {}
    module.get_submodule(layer).register_forward_hook(lambda _, __, out: found.update(value=out))
    pixels = image[None].clone().requires_grad_(True)
    module((pixels - mean) / std)
    return torch.autograd.grad(found["value"].square().mean(), pixels)[0][0]


def ours(name, image, layer):
    from phosphene.dreaming.objective import Energy, Scoring
    from phosphene.setup.builders import gradient_fn

    network = load_network(phosphene.Recipe(model=name).eye)
    (node,) = network.resolve(layer)
    return gradient_fn(network, Scoring((Energy(node),)), phosphene.Recipe(tile="none"))(image, (0, 0))[1]


@pytest.mark.parametrize("fork", [False, True])
def test_a_module_is_read_as_itself_and_left_as_it_was(tiny, photo, fork):
    tiny.fork = fork
    tiny.train().second.requires_grad_(False)
    before = state_of(tiny)
    image = photo(40, 33, torch.float32)
    name = introduce(tiny, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    expected = gradient(tiny, image, "second", mean, std)
    found = ours(name, image, "second")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert untrained_network(name).is_hooked is fork
    phosphene.dream("sample:coffee", model=tiny, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), layers="second", **SMALL)
    assert_same_state(before, state_of(tiny))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_found_by_trying(channels):
    torch.manual_seed(0)
    module = Tiny(channels)
    image = torch.rand(3, 40, 40)
    seen = {1: (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True), 3: image}.get(
        channels, torch.cat([image, torch.ones(1, 40, 40)])
    )
    network = load_network(phosphene.Recipe(model=introduce(module)).eye)
    (node,) = network.resolve("second")
    expected = module.eval()(seen[None])["map"]
    torch.testing.assert_close(network.features([node])(image[None])[node], expected, rtol=1e-4, atol=1e-5)


def test_a_network_with_thirteen_channels_is_one_sentence():
    with pytest.raises(UsageError, match=r"takes no image of 3 or 1 or 4 channels.*goes into a module"):
        introduce(Tiny(13))


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Conv2d(3, 3, 3, device="meta"), "a network on the meta device has no weights"),
        (nn.Sequential(nn.LazyConv2d(3, 3)), "a network with lazy layers has no weights"),
        (nn.Identity(), "own/Identity.* has no layer to raise"),
    ],
)
def test_a_network_that_will_not_do_is_one_sentence(module, sentence):
    with pytest.raises(UsageError, match=sentence):
        phosphene.dream("noise:40x40", model=module, octaves=1, steps=1)


class Answers(nn.Module):
    """One convolution, in an answer of some kind."""

    def __init__(self, of):
        super().__init__()
        self.first, self.of = nn.Conv2d(3, 4, 3), of

    def forward(self, images):
        return self.of(self.first(images))


@pytest.mark.parametrize("of", [lambda a: {"a": a, "b": [a]}, lambda a: a.sum(), lambda a: None])
def test_a_layer_is_found_whatever_the_network_answers(of):
    assert phosphene.dream("noise:40x40", model=Answers(of), octaves=1, steps=1).recipe.layers == ("first",)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_network_of_torchscript_is_one_sentence():
    with pytest.raises(UsageError, match=r"ScriptModule cannot be copied .* give a module that copy.deepcopy takes"):
        introduce(torch.jit.script(nn.Conv2d(3, 3, 3)))


@pytest.mark.parametrize("mean", [[math.nan] * 3, [math.inf, 0, 0]])
def test_a_mean_that_is_no_number_for_each_channel_is_one_sentence(tiny, mean):
    with pytest.raises(SettingsError, match="is no mean or std"):
        introduce(tiny, mean, (1, 1, 1))


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_a_size_that_is_none_is_one_sentence(tiny, size):
    with pytest.raises(SettingsError, match="it is a height and a width"):
        phosphene.layers(tiny, size=size)


def test_half_precision_hooks_weight_norm_and_bound_inputs(photo):
    image = photo(40, 40, torch.float32)
    torch.manual_seed(0)
    half = Tiny().half()
    expected = gradient(half, image, "second")
    torch.testing.assert_close(ours(introduce(half), image, "second"), expected, rtol=1e-4, atol=1e-6)
    doubled = Tiny()
    doubled.act.register_forward_hook(lambda _, __, out: 2 * out)
    expected = gradient(doubled, image, "second")
    torch.testing.assert_close(ours(introduce(doubled), image, "second"), expected, rtol=1e-4, atol=1e-6)
    normed = Tiny()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(normed.second)
    phosphene.dream("sample:coffee", model=normed, layers="second", **SMALL)

    class Asks(Tiny):
        def forward(self, x, gain, shift=0.0):
            return super().forward(gain * x + shift)

    asks = Asks()
    bound = functools.partial(asks, gain=3.0)
    plain = Tiny()
    plain.load_state_dict(asks.state_dict())
    pixels = image[None].clone().requires_grad_(True)
    value = plain.eval()(3 * pixels)["map"].square().mean()
    expected = torch.autograd.grad(value, pixels)[0][0]
    torch.testing.assert_close(ours(introduce(bound), image, "network.second"), expected, rtol=1e-4, atol=1e-6)


def test_a_module_that_raises_in_the_middle_leaves_nothing_behind(tiny):
    steps = []

    class Raises(nn.Module):
        def forward(self, x):
            if steps:
                raise RuntimeError("in the middle")
            return x

    tiny.drop = Raises()
    tiny.register_forward_hook(lambda *_: None)  # so that it is called as it is, and not traced
    before = state_of(tiny)
    with pytest.raises((UsageError, RuntimeError), match="in the middle"):
        phosphene.dream("sample:coffee", model=tiny, layers="second", on_step=steps.append, **{**SMALL, "steps": 3})
    assert len(steps) == 1
    assert_same_state(before, state_of(tiny))
    first = steps.pop()
    again = phosphene.dream("sample:coffee", model=tiny, layers="second", **{**SMALL, "steps": 1})
    assert torch.equal(again.image, first.image)  # the copy that is kept dreams on as if nothing had been


def test_a_network_that_cannot_be_traced_says_that_it_has_no_tiles(tiny):
    tiny.fork = True
    with pytest.raises(UsageError, match="cannot be traced, so it looks at whole images only"):
        phosphene.dream("sample:coffee", model=tiny, layers="second", **SMALL, tile=32)


def test_weights_that_change_are_another_network(tiny):
    first = introduce(tiny)
    assert introduce(tiny) == first == introduce(copy.deepcopy(tiny))
    with torch.no_grad():
        tiny.first.weight.add_(1)
    assert introduce(tiny) != first
    assert checksum(Tiny(fork=True)) != checksum(Tiny())


NETS = """
import torch
from torch import nn


class Net(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3, bias=False)
        nn.init.ones_(self.weight)
        self.gains, self.table, self.act = [1, 2.5], {"a": torch.arange(3)}, lambda x: x.clamp(max=7)

    def forward(self, x):
        return self.act(super().forward(x)) * (2 if x.dim() in {3, 4} and "b" not in {"a", "c"} else 1)
"""


def net(text=NETS):
    """The network of a file's text, as a notebook's cell defines it."""
    found = {"__name__": "nets"}
    exec(text, found)
    return found["Net"]()


def test_code_that_changes_is_another_network(tmp_path):
    edits = [
        ("(2 if", "(3 if"),
        ("(x)) *", "(x)) +"),
        ("max=7", "max=8"),
        ("max=7", "min=7"),
        ("2.5", "2.6"),
        ("(3)}", "(4)}"),
    ]
    sums = {checksum(net(NETS.replace(*edit))) for edit in edits}
    assert len({*sums, checksum(net())}) == 1 + len(edits)
    hooked = net()
    hooked.register_forward_hook(lambda _, __, out: 2 * out)
    assert checksum(hooked) not in {*sums, checksum(net())}
    (tmp_path / "nets.py").write_text(NETS)
    asked = "import nets; from phosphene.networks.own import checksum; print(checksum(nets.Net()))"
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == checksum(net()) == checksum(copy.deepcopy(net()))


class Rectified(nn.Module):
    """A block whose input is overwritten before it is added."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        out = self.act(x)
        return self.third(self.second(out) + x)


def test_what_overwrites_its_input_is_what_pytorch_computes(photo):
    torch.manual_seed(0)
    module, image = Rectified(), photo(40, 40, torch.float32)
    expected = gradient(module, image, "third")
    found = ours(introduce(module), image, "third")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_a_batch_norm_without_running_statistics_sees_the_whole_image():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 4, 3))
    assert phosphene.layers(module, size=(48, 48))["0"].receptive_field is not None
    with pytest.raises(UsageError, match=r"2 of own/Sequential-.* sees the whole image"):
        phosphene.dream("sample:coffee", model=module, layers="2", **SMALL, tile=32)


def test_weights_saved_anew_are_read_anew(tmp_path):
    path, found = tmp_path / "weights.pth", []
    name = introduce(Tiny())
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(Tiny().state_dict(), path)
        eye = phosphene.Recipe(model=name, weights=str(path)).eye
        found.append(load_network(eye))
        assert load_network(eye) is found[-1]
    assert found[0].weights != found[1].weights


def test_guides_and_functions_of_the_same_name_are_told_apart(tmp_path, photo):
    guide = tmp_path / "guide.png"
    keys = []
    for side, sign in ((40, 1), (48, -1)):
        phosphene.imagefile.write(guide, photo(side, side, torch.float32))
        phosphene.term(lambda a, sign=sign: sign * a["blocks.1.1"].mean(), name="mine")
        for recipe in (phosphene.Recipe(layers=("blocks.1.1",), guide=str(guide)), phosphene.Recipe(terms=("mine",))):
            keys.append(stages_in(recipe.but(tile="none"), "cpu", (64, 64))[0])
    assert len({id(stage) for stage in keys}) == 4


def test_an_objective_that_fails_on_the_way_is_one_sentence(tiny):
    calls = []

    def tires(a):
        calls.append(a["second"].mean())
        return calls[-1] / (len(calls) < 3 or 0 // 0)

    with pytest.raises(UsageError, match="tires, an objective of your own, failed: ZeroDivisionError"):
        phosphene.dream("sample:coffee", model=tiny, layers=tires, **{**SMALL, "steps": 9})

    def starves(a):
        raise MemoryError

    with pytest.raises(MemoryError):
        Own("starves", function=starves).of({}, {})


def test_a_cluster_is_not_asked_for_what_only_this_process_has(tiny):
    with pytest.raises(UsageError, match=r"a cluster's processes do not have own/Tiny-.*, which was given in this one"):
        phosphene.dream("sample:coffee", model=tiny, cluster="local", **SMALL)
    with pytest.raises(UsageError, match="a cluster's processes do not have bright, which was given in this one"):
        phosphene.dream("sample:coffee", layers=bright, cluster="local", **SMALL)


def test_a_study_on_a_cluster_is_not_asked_for_it_either(tiny, tmp_path):
    with pytest.raises(UsageError, match="a cluster's processes do not have the network, term, norm or mask"):
        phosphene.compare("sample:coffee", tmp_path / "study", models=[tiny], cluster="local", **SMALL)


def test_a_recipe_names_it_and_replays_with_it(tiny, tmp_path):
    dream = phosphene.dream("sample:coffee", model=tiny, layers="second", **SMALL)
    path = dream.save(tmp_path / "dream.png")
    assert dream.recipe.model.startswith("own/Tiny-")
    assert "test_own.Tiny" in dream.made.weights
    again = phosphene.replay(path, model=copy.deepcopy(tiny))
    assert torch.equal(again.image, dream.image)
    registry._introduced.clear()
    kept_network.cache_clear()
    with pytest.raises(
        UsageError, match=r"own/Tiny-.* is a custom network that this process does not hold: give it again"
    ):
        phosphene.replay(path)


def test_layers_compare_and_sweep_take_it(tiny, tmp_path):
    assert phosphene.layers(tiny, size=(48, 48))["second"].shape == (1, 6, 24, 24)
    swept = phosphene.sweep(
        "sample:coffee", tmp_path / "sweep", vary={"layer": ["first", "second"]}, model=tiny, **SMALL
    )
    assert not swept.failures
    compared = phosphene.compare(
        "sample:coffee", tmp_path / "compare", models=[tiny, Tiny(1)], modes=["plain"], depths=0, seeds=1,
        size=48, steps=2, octaves=1,
    )  # fmt: skip
    assert not compared.failures
    assert len(compared.rows) == 2


def test_it_is_imported_only_for_who_asks(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text("import torch\ndef tiny():\n    return torch.nn.Conv2d(3, 4, 3)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="give it again"):
        load_network(phosphene.Recipe(model="nets:tiny").eye)
    assert phosphene.dream("sample:coffee", model="nets:tiny", **SMALL).recipe.model == "nets:tiny"
    with pytest.raises(UsageError, match=r"'nets:tyni' could not be imported \(AttributeError"):
        introduce("nets:tyni")


def test_where_python_looks_for_modules_is_left_as_it_was(tmp_path, monkeypatch):
    """In a notebook the working folder comes first, as an empty word."""
    (tmp_path / "nets2.py").write_text(
        "import sys, torch\nsys.path.append('its own')\ndef tiny():\n    return torch.nn.Conv2d(3, 4, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path, ""])
    before = list(sys.path)
    introduce("nets2:tiny")
    assert sys.path == [*before, "its own"]


def test_a_mean_without_its_network_is_told(tiny, tmp_path):
    path = phosphene.dream("sample:coffee", model=tiny, layers="second", **SMALL).save(tmp_path / "dream.png")
    with pytest.raises(UsageError, match="mean and std are of a network of your own: give it as model"):
        phosphene.replay(path, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu")])
def test_modes_of_the_caller_do_not_matter_and_poison_nothing(mode, tiny):
    """ComfyUI runs its nodes in inference mode. A network that was loaded there stayed unfit for the whole process."""
    expected = phosphene.dream("sample:coffee", **SMALL).image
    kept_network.cache_clear()
    image = phosphene.setup.source.read("sample:coffee", torch.Generator()).image
    with mode():
        inside = phosphene.dream(image.clone(), **SMALL).image
    assert torch.equal(inside, expected)
    assert torch.equal(phosphene.dream("sample:coffee", **SMALL).image, expected)
    with mode():
        phosphene.dream("sample:coffee", model=tiny, layers="second", **SMALL)


def test_threads_dream_what_one_does(tiny):
    kept_network.cache_clear()
    expected = [phosphene.dream("sample:coffee", seed=seed, **SMALL).image for seed in range(4)]
    kept_network.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: phosphene.dream("sample:coffee", seed=seed, **SMALL).image, range(4)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert threading.active_count() < 20


def bright(a):
    return a["second"][:, 2].mean((1, 2))


def test_an_objective_of_ones_own_joins_the_algebra(tiny, tmp_path):
    once = phosphene.dream("sample:coffee", model=tiny, layers=phosphene.channel("second", 2), score="mean", **SMALL)
    own = phosphene.dream("sample:coffee", model=tiny, layers=bright, **SMALL)
    torch.testing.assert_close(own.image, once.image, rtol=0, atol=1e-6)
    both = phosphene.layer("first") * 0.5 + bright - phosphene.term(lambda a: a["act"].std(), name="spread")
    assert both.settings == {"layers": ("first:0.5",), "classes": (), "terms": ("bright", "spread:-1")}
    dream = phosphene.dream("sample:coffee", model=tiny, layers=both, **SMALL)
    path = dream.save(tmp_path / "own.png")
    assert torch.equal(phosphene.replay(path, model=tiny).image, dream.image)


def test_it_may_ask_for_numbers_and_stand_beside_channels(tiny):
    """Though memory is foretold where there are none."""
    strong = phosphene.term(lambda a: a["second"][a["second"] > a["second"].median()].mean(), name="strong")
    image = torch.rand(3, 48, 64)
    one, two = strong + phosphene.channel("second", 2), np.float32(2) * strong
    scores = [phosphene.dream(image, model=tiny, layers=each, **SMALL).trace.scores[0] for each in (strong, one, two)]
    assert scores[1] != scores[0]
    assert scores[2] == pytest.approx(2 * scores[0])
    assert str(two) == "strong:2"


def test_objectives_that_will_not_do_are_one_sentence(tiny):
    def dream(function, **settings):
        return phosphene.dream("sample:coffee", model=tiny, layers=function, **SMALL, **settings)

    with pytest.raises(SettingsError, match="'<lambda>' is no name for an objective"):
        dream(lambda a: a["second"].mean())
    with pytest.raises(UsageError, match=r"many, an objective of your own, gave \[\d+(, \d+){3}\] for one image"):
        dream(phosphene.term(lambda a: a["second"], name="many"))
    with pytest.raises(UsageError, match="looks at no layer"):
        dream(phosphene.term(lambda a: torch.ones(1), name="blind"))
    with pytest.raises(UsageError, match=r"constant, an objective of your own, .* that depends on no activation"):
        dream(phosphene.term(lambda a: a["second"].detach().mean(), name="constant"))
    with pytest.raises(UsageError, match=r"anew, an objective of your own, .* that depends on no activation"):
        dream(phosphene.term(lambda a: torch.tensor(a["second"].mean().item(), requires_grad=True), name="anew"))
    with pytest.raises(UsageError, match="broken, an objective of your own, failed: ZeroDivisionError"):
        dream(phosphene.term(lambda a: 1 / 0, name="broken"))
    with pytest.raises(UnknownNameError, match=r"no layer of own/Tiny.* called 'secnd'; did you mean second"):
        dream(phosphene.term(lambda a: a["secnd"].mean(), name="misspelt"))
    phosphene.term(bright)
    with pytest.raises(UnknownNameError, match="no term called 'brihgt'; did you mean bright"):
        phosphene.dream("sample:coffee", model=tiny, terms=("brihgt",), **SMALL)
    with pytest.raises(UsageError, match="bright sees whole activations, so no tile has its exact gradient"):
        dream(bright, tile=32)


def test_tables_of_places_made_on_paper_are_forgotten():
    places = Places()
    with on_paper(places):
        places(torch.zeros(1, 3, 9, 7))
        assert isinstance(places.table, FakeTensor)
    assert places.table is None


def test_a_network_that_may_be_given_more_than_images_is_read_by_hooks():
    dream = phosphene.dream("noise:48x40", model=Places(), **SMALL)
    assert dream.recipe.layers == ("second",)
    assert type(dream.image) is torch.Tensor
    assert untrained_network(dream.recipe.model).is_hooked
