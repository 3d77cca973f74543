"""What a layer is: its receptive field by probing, its size by running it, its arithmetic by counting."""

from collections import OrderedDict
from copy import deepcopy

import pytest
import torch
import torchvision
from timm.layers import Conv2dSame
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from phosphene.networks.card import ModelCard
from phosphene.networks.graph import cut
from phosphene.networks.layers import channels, describe, layer_sizes
from phosphene.networks.network import Network
from phosphene.networks.receptive_field import ReceptiveField
from phosphene.networks.registry import build as build_network
from phosphene.networks.registry import named
from phosphene.recipe.settings import Eye
from phosphene.setup.session import load_network


def conv(kernel, stride=1, padding=0, channels=2, **more):
    return nn.Conv2d(channels, 2, kernel, stride, padding, **more)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.long = nn.Sequential(conv(3, 1, 1), nn.ReLU(), conv(3, 2, 1))
        self.short = conv(1, 2)

    def forward(self, x):
        return torch.relu(self.long(x) + self.short(x))


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.tall = conv((1, 7), 1, (0, 3)), conv((5, 1), 1, (2, 0))

    def forward(self, x):
        return torch.cat([self.wide(x), self.tall(x)], 1)


# Pooling by the mean, not the maximum, so that each pixel of a window has a say.
NETWORKS = {
    "plain": [conv(3, 1, 1, 3), nn.ReLU(), conv(5, 2, 2), nn.ReLU(), conv(3, 2, 1)],
    "valid": [conv(3, 2, 0, 3), nn.ReLU(), conv(3), nn.AvgPool2d(3, 2), conv(2)],
    "oblong": [conv((1, 7), 1, (0, 3), 3), nn.ReLU(), conv((7, 1), (2, 1), (3, 0)), conv((1, 3), (1, 2), (0, 1))],
    "dilated": [conv(3, 2, 2, 3, dilation=2), nn.ReLU(), conv(3, 1, 3, dilation=3)],
    "grouped": [conv(3, 2, 1, 3), nn.BatchNorm2d(2), nn.SiLU(), conv(3, 2, 1, groups=2), conv(1)],
    "pooled": [conv(3, 1, 1, 3), nn.AvgPool2d(2), conv(3, 1, 1), nn.AvgPool2d(3, 2, 1)],
    "same": [Conv2dSame(3, 2, 3, 2), nn.SiLU(), Conv2dSame(2, 2, 5, 2)],
    "residual": [conv(3, 1, 1, 3), Residual(), Residual()],
    "concatenated": [conv(3, 2, 1, 3), Concatenated(), conv(3, 1, 1, 4)],
}


def positive(module: nn.Module) -> nn.Module:
    """All weights above zero: nothing cancels, and no ReLU is closed; batch norms as they are built change nothing."""
    rng = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = torch.rand(layer.weight.shape, generator=rng) * 0.9 + 0.1
            if layer.bias is not None:
                layer.bias.data.zero_()
    return module.eval().requires_grad_(False)


def build(name: str) -> nn.Module:
    layers = OrderedDict((f"l{i}", layer) for i, layer in enumerate(deepcopy(NETWORKS[name])))
    return positive(nn.Sequential(layers))


def seen_by(activation: torch.Tensor, pixels: torch.Tensor, unit: tuple[int, int]) -> tuple[range, range]:
    """The rows and columns of the pixels that a unit depends on, all of its channels."""
    chosen = activation[0, :, unit[0], unit[1]].sum()
    touched = torch.autograd.grad(chosen, pixels, retain_graph=True)[0].abs().sum((0, 1)) > 0
    sides = [touched.any(1 - axis).nonzero().flatten().tolist() for axis in (0, 1)]
    return range(sides[0][0], sides[0][-1] + 1), range(sides[1][0], sides[1][-1] + 1)


def probed(network: Network, node: str, side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Stride and receptive field, from the pixels that a unit in the middle and its diagonal neighbour see."""
    pixels = torch.full((1, 3, side, side), 0.5, dtype=torch.float64, requires_grad=True)
    activation = network.features([node]).double()(pixels)[node]
    middle = (activation.shape[2] // 2, activation.shape[3] // 2)
    here = seen_by(activation, pixels, middle)
    there = seen_by(activation, pixels, (middle[0] + 1, middle[1] + 1))
    assert all(axis[0] > 0 and axis[-1] < side - 1 for axis in (*here, *there)), "the image is too small to tell"
    stride = (there[0][0] - here[0][0], there[1][0] - here[1][0])
    return stride, (len(here[0]), len(here[1]))


@pytest.mark.parametrize("name", NETWORKS)
def test_stride_and_sight_are_what_probing_finds(card, name):
    network = Network(card(mean=(0, 0, 0)), build(name), "none")
    layers = describe(network, (64, 64))
    assert len(layers) >= len(NETWORKS[name])
    for node, layer in layers.items():
        assert (layer.receptive_field.stride, layer.receptive_field.size) == probed(network, node, 97), node


@pytest.fixture(scope="module")
def resnet50(card) -> Network:
    module = torchvision.models.resnet50(weights=None)
    module.maxpool = nn.AvgPool2d(3, 2, 1)
    return Network(card(mean=(0, 0, 0)), positive(module), "none")


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["relu", "layer1.0.relu", "layer1.2", "layer2.0.downsample", "layer2.1"])
def test_resnet50s_sight_is_what_probing_finds(resnet50, layer):
    network = resnet50
    (node,) = network.resolve(layer)
    field = describe(network, (64, 64))[node].receptive_field
    assert (field.stride, field.size) == probed(network, node, 129)


@pytest.mark.slow
def test_resnet50s_sight_by_hand(resnet50):
    """7 + 2 x 2 for the pool = 11; then each 3 x 3 adds twice the stride of what it reads."""
    layers = describe(resnet50, (64, 64))
    names = ("relu", "maxpool", "layer1", "layer2", "layer3")
    facts = {name: layers[resnet50.resolve(name)[0]].receptive_field for name in names}
    assert facts == {
        "relu": ReceptiveField((2, 2), (7, 7)),
        "maxpool": ReceptiveField((4, 4), (11, 11)),
        "layer1": ReceptiveField((4, 4), (11 + 3 * 8,) * 2),
        "layer2": ReceptiveField((8, 8), (35 + 8 + 3 * 16,) * 2),
        "layer3": ReceptiveField((16, 16), (91 + 16 + 5 * 32,) * 2),
    }


def transparent(card: ModelCard) -> Network:
    """One of our networks, in which each pixel of a window has a say: means for maxima, and no ReLU that closes."""
    module = positive(build_network(card))
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.ReLU6):
                setattr(parent, name, nn.ReLU())
    network = Network(card, module, "none")
    for node in network.graph.nodes:
        if node.target is nn.functional.max_pool2d:
            node.target = nn.functional.avg_pool2d
            node.kwargs = {key: node.kwargs[key] for key in ("kernel_size", "stride") if key in node.kwargs}
    return network


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("card", named(), ids=lambda card: card.name)
def test_every_layer_of_our_cards_sees_what_probing_finds(card, axis):
    """Along one axis at a time, in an image that is long enough along it and narrow, to be quick."""
    network = load_network(Eye(model=card.name, weights="untrained"))
    nodes = [network.resolve(layer)[0] for layer in card.layers]
    facts = describe(network, (128, 128))
    fields = {node: facts[node].receptive_field for node in nodes}
    seen = {node: (field.stride[axis], field.size[axis]) for node, field in fields.items()}
    size = [card.min_side + 6] * 2
    size[axis] = max(field + 4 * stride for stride, field in seen.values())
    pixels = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    activations = transparent(card).features(nodes).double()(pixels)
    for node, (stride, field) in seen.items():
        unit = [activations[node].shape[2] // 2, activations[node].shape[3] // 2]
        here = seen_by(activations[node], pixels, (unit[0], unit[1]))[axis]
        unit[axis] += 1
        there = seen_by(activations[node], pixels, (unit[0], unit[1]))[axis]
        assert here[0] > 0, node
        assert there[-1] < size[axis] - 1, node
        assert (there[0] - here[0], there[-1] - here[-1]) == (stride, stride), node
        assert len(here) == field, node


def test_functional_pooling(card):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(3, 1, 1, 3)

        def forward(self, x):
            x = nn.functional.avg_pool2d(self.conv(x), 3, stride=2)
            return nn.functional.avg_pool2d(nn.functional.relu(x), kernel_size=2)

    network = Network(card(mean=(0, 0, 0)), positive(Functional()), "none")
    for node, layer in describe(network, (64, 64)).items():
        assert (layer.receptive_field.stride, layer.receptive_field.size) == probed(network, node, 41), node


def test_pools_with_holes(card):
    """By hand, for a gradient passes one place of a maximum: 2 taps 2 apart, 3 taps 2 apart, 2 taps 3 apart."""

    class Holes(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2, 1, dilation=3)

        def forward(self, x):
            x = nn.functional.max_pool2d(nn.functional.max_pool2d(x, 2, 1, 0, 2), 3, stride=1, dilation=2)
            return self.pool(x)

    network = Network(card(mean=(0, 0, 0)), Holes(), "none")
    fields = [layer.receptive_field.size[0] for layer in describe(network, (64, 64)).values()]
    assert fields == [3, 7, 10]


def test_a_convolution_that_reaches_around_the_edge_sees_everything(card):
    around = nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular")
    network = Network(card(mean=(0, 0, 0)), positive(nn.Sequential(around)), "none")
    assert describe(network, (64, 64))["0"].receptive_field is None


@pytest.mark.parametrize("size", [(33, 50), (64, 64), (71, 40), (150, 201)])
@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_are_those_of_a_real_run(card, name, size):
    network = Network(card(min_side=33), build(name), "none")
    layers = describe(network, size)
    real = network.features(layers)(torch.rand(1, 3, *size))
    assert {node: layer.shape for node, layer in layers.items()} == {node: tuple(a.shape) for node, a in real.items()}
    assert all(layer.channels == real[node].shape[1] for node, layer in layers.items())
    expected = {node: tuple(a.shape[2:]) for node, a in real.items()}
    assert layer_sizes(network, tuple(layers), size) == expected
    assert channels(network, tuple(layers)) == {node: layer.channels for node, layer in layers.items()}


def test_asking_for_sizes_first_leaves_real_weights(card, photo):
    """Shapes are found without arithmetic; a network that is first met so must compute afterwards."""
    module = positive(nn.Sequential(conv(3, 1, 1, 3), nn.BatchNorm2d(2), nn.ReLU()))
    network = Network(card(), module, "none")
    assert layer_sizes(network, ("2",), (9, 7)) == {"2": (9, 7)}
    activation = network.features(("2",))(photo(9, 7, torch.float32)[None])["2"]
    assert type(activation) is torch.Tensor
    assert activation.sum().item() > 0


def counted(module, images) -> int:
    """PyTorch counts a multiplication and an addition each."""
    with FlopCounterMode(display=False) as counter:
        module(images)
    return counter.get_total_flops() // 2


def test_arithmetic_is_what_torch_counts(card):
    module = torchvision.models.resnet18(weights=None).eval().requires_grad_(False)
    network, images = Network(card(), module, "none"), torch.rand(1, 3, 64, 96)
    layers = describe(network, (64, 96))
    assert layers["fc"].multiplications == counted(module, images)
    for layer in ("relu", "layer1.1", "layer3.0.downsample"):
        (node,) = network.resolve(layer)
        body = cut(network.module, network.graph, {node: network.nodes[node]})
        assert layers[node].multiplications == counted(body, images)
    assert layers["fc"].parameters == 513_000
    assert layers["conv1"].parameters == 9_408
    assert layers["relu"].parameters == 0
    assert layers["maxpool"].receptive_field == ReceptiveField((4, 4), (11, 11))


def test_arithmetic_of_groups_and_dilation(card):
    module = positive(nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, groups=3), nn.Conv2d(6, 4, 3, padding=2, dilation=2)))
    network = Network(card(), module, "none")
    layers = describe(network, (20, 14))
    assert layers["0"].multiplications == 6 * 10 * 7 * 9
    assert layers["1"].multiplications == layers["0"].multiplications + 4 * 10 * 7 * 6 * 9


def test_behind_a_squeeze_everything_is_seen(card):
    """In mobilenet_v3_small the first block squeezes: all of the image is in each unit behind it."""
    network = Network(card(), torchvision.models.mobilenet_v3_small(weights=None).eval(), "none")
    layers = describe(network, (64, 64))
    blind = [name for name, layer in layers.items() if layer.receptive_field is None]
    first = blind[0]
    assert first == "features.1.block.1.avgpool"
    assert layers["features.1.block.0.2"].receptive_field == ReceptiveField((4, 4), (7, 7))
    assert layers["features.1.block.1.mul"].receptive_field is None
    order = list(layers)
    assert blind == order[order.index(first) :]


def test_behind_a_global_pool_everything_is_seen(small):
    layers = describe(small, (32, 32))
    assert layers["tail"].receptive_field == ReceptiveField((4, 4), (3 + 4 + 4 + 4,) * 2)
    assert layers["pool"].receptive_field is None
    assert layers["fc"].receptive_field is None
    assert layers["fc"].shape == (1, 10)
