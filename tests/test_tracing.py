"""Networks as graphs: folded, cut and named, against the plain module with hooks."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from phosphene.errors import UnknownNameError
from phosphene.networks import layers, registry
from phosphene.networks.network import Network

LAYERS = ("stem", "bn1", "relu1", "block.conv", "block.norm", "block.conv2", "relu2", "tail", "pool", "fc")
BATCH_NORMS = ("bn1", "block.norm")


def normalised(image: torch.Tensor, card) -> torch.Tensor:
    # The card's numbers are kept in float32, whatever the network's precision is.
    mean, std = (np.float32(numbers)[:, None, None].astype(np.float64) for numbers in (card.mean, card.std))
    return ((image - torch.from_numpy(mean)) / torch.from_numpy(std))[None].to(image)


def hooked(module: nn.Module, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each layer of the plain module answers."""
    outputs = {}
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: outputs.__setitem__(name, output.clone())
        )
        for name in LAYERS
    ]
    try:
        outputs["logits"] = module(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def energy_gradient(activation: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(activation.square().sum(), pixels, retain_graph=True)[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_is_read_as_itself(small_modules, card, photo, layer, dtype, tolerance):
    """One layer at a time, so that whatever can be folded is; a ReLU or += behind it may not overwrite it."""
    in_place, clean = (module.to(dtype) for module in small_modules)
    image = photo(18, 15, dtype).requires_grad_(True)
    expected = hooked(clean, normalised(image, card()))[layer]
    ours = Network(card(), in_place, "none").features([layer])(image[None])[layer]
    assert ours.ndim == 4
    torch.testing.assert_close(ours.flatten(), expected.flatten(), rtol=tolerance, atol=tolerance)
    slopes = energy_gradient(ours, image), energy_gradient(expected, image)
    scale = slopes[1].abs().max().item()
    torch.testing.assert_close(*slopes, rtol=tolerance, atol=tolerance * max(1, scale))
    assert scale > 0


def test_all_layers_at_once(small, small_modules, card, photo):
    """A convolution that is read keeps its batch norm apart."""
    image = photo(18, 15)
    expected = hooked(small_modules[1], normalised(image, card()))
    ours = small.features(LAYERS)(image[None])
    assert list(ours) == list(LAYERS)
    for layer in LAYERS:
        torch.testing.assert_close(ours[layer].flatten(), expected[layer].flatten(), rtol=1e-10, atol=1e-10)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in small.features(LAYERS).modules()) == len(BATCH_NORMS)


def test_batch_norms_are_gone(small):
    features = small.features(["relu2"])
    assert not [m for m in features.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [type(m) for m in features.modules()].count(nn.SiLU) == 1


def test_folding_leaves_the_module_as_it_was(small, small_modules, photo):
    module, clean = small_modules
    small.features(["fc"])
    torch.testing.assert_close(module(photo(16, 16)[None]), clean(photo(16, 16)[None]), rtol=1e-12, atol=1e-12)


class Shared(nn.Module):
    """Heads that share a convolution or a batch norm, as detectors do."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.norm(self.conv(x)))) + self.norm(self.other(x))


def test_what_is_used_twice_is_not_folded(card, randomise, photo):
    module = randomise(Shared().double())
    network, image = Network(card(), module, "none"), photo(9, 8)
    ours = network.features(network.resolve("add"))(image[None])["add"]
    torch.testing.assert_close(ours, module(normalised(image, card())), rtol=1e-12, atol=1e-12)


class Overwriting(nn.Module):
    """The spellings of an in-place operation."""

    def __init__(self, spelling):
        super().__init__()
        self.spelling, self.conv = spelling, nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return self.spelling(y)


def multiply_in_place(y):
    y *= 2
    return y


@pytest.mark.parametrize(
    "spelling",
    [
        multiply_in_place,
        lambda y: F.relu(y, inplace=True),
        lambda y: F.silu(y, inplace=True),
        lambda y: y.mul_(2),
        lambda y: y.relu_(),
    ],
    ids=["*=", "F.relu", "F.silu", "mul_", "relu_"],
)
def test_nothing_overwrites_what_is_read(card, randomise, photo, spelling):
    module = randomise(Overwriting(spelling).double())
    image = photo(9, 8)
    network = Network(card(), module, "none")
    last = next(reversed(network.nodes))
    ours = network.features(["conv", last])(image[None])
    expected = F.conv2d(normalised(image, card()), module.conv.weight, module.conv.bias, padding=1)
    torch.testing.assert_close(ours["conv"], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours[last], spelling(expected.clone()), rtol=1e-12, atol=1e-12)


def test_nothing_behind_the_deepest_layer_is_computed(small):
    computed = [node.name for node in small.features(["relu1", "block.conv2"]).body.body.graph.nodes]
    assert "block_conv2" in computed
    assert not {"relu2", "tail", "pool", "fc"} & set(computed)
    assert "tail" in [node.name for node in small.features(["tail"]).body.body.graph.nodes]


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [
        ("relu1", ("relu1",)),
        ("block.norm", ("block.norm",)),
        ("block", ("block.conv2",)),
        ("first", ("relu1",)),
        ("residual", ("add",)),
        ("relu?", ("relu1", "relu2")),
        ("block.c*", ("block.conv", "block.conv2")),
        ("bl*", ("block.conv2",)),
        ("f*", ("relu1",)),
        ("flat*", ("flatten",)),
    ],
)
def test_names(small, layer, nodes):
    """A node, a module for the last node within it, an alias, or a pattern: on aliases, then modules, then nodes."""
    assert small.resolve(layer) == nodes


def test_the_last_node_is_the_logits(small):
    assert small.logits == "fc"


def test_an_unknown_layer_gives_the_nearest(small):
    with pytest.raises(UnknownNameError, match=r"no layer of small called 'relu3'; did you mean .*relu[12]") as caught:
        small.resolve("relu3")
    assert "phosphene layers small" in str(caught.value)


def test_an_unknown_pattern_is_an_error(small):
    with pytest.raises(UnknownNameError, match=r"'conv9\*'"):
        small.resolve("conv9*")


def test_features_are_built_once(small):
    assert small.features(["relu1", "fc"]) is small.features(("relu1", "fc"))


def test_features_are_frozen(small):
    features = small.features(["fc"])
    assert not features.body.training
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_vectors_and_tokens_become_planes(card, randomise, photo):
    """A vector has one row and one column; tokens [batch, tokens, channels] lie where their patches did."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.norm, self.head = nn.Conv2d(3, 5, 4, 4), nn.LayerNorm(5), nn.Linear(5, 7)

        def forward(self, x):
            return self.head(self.norm(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    module, image = randomise(Tokens().double()), photo(12, 16)
    ours = Network(card(), module, "none").features(["norm", "head"])(image[None])
    tokens = module.norm(module.patches(normalised(image, card())).flatten(2).transpose(1, 2))
    assert ours["norm"].shape == (1, 5, 3, 4)
    torch.testing.assert_close(ours["norm"][0].flatten(1), tokens[0].T, rtol=1e-12, atol=1e-12)
    assert ours["head"].shape == (1, 7, 1, 1)
    torch.testing.assert_close(ours["head"].flatten(), module.head(tokens.mean(1)).flatten(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "shufflenet_v2_x0_5", "timm/eva02_tiny_patch14_224"])
def test_every_node_that_has_a_name_is_a_tensor(name):
    """Sizes, numbers and lists are no layers, whatever pattern asks for them."""
    network = Network(registry.card(name), registry.skeleton(registry.card(name)).eval(), "none")
    side = network.card.min_side
    values = layers._shapes(fx.GraphModule(network.module, network.graph), (3, side, side), False)
    assert all(isinstance(values[node.name], torch.Tensor) for node in network.nodes.values())
    others = [node for node in network.graph.nodes if node.op.startswith("call") and node not in network.nodes.values()]
    assert not any(isinstance(values[node.name], torch.Tensor) for node in others)


def test_an_image_that_is_pooled_away(card):
    pools = {f"pool{number}": nn.MaxPool2d(2) for number in range(5)}
    module = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3, padding=1), **pools)).eval()
    features = Network(card(), module, "none").features(["pool4"])
    assert features(torch.zeros(1, 3, 33, 40))["pool4"].shape[2:] == (1, 1)
    larger = features(torch.zeros(1, 3, 31, 40))["pool4"]  # looked at in a size that leaves something
    assert min(larger.shape[2:]) >= 1
