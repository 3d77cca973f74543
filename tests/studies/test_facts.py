"""Architectures against what their papers tabulate."""

import re

import pytest

from phosphene.networks.facts import facts_of, layer_at, relative_depths


@pytest.mark.parametrize(
    ("model", "layers", "parameters", "multiplications"),
    [
        ("vgg19", 19, 143_667_240, 19.6e9),
        ("resnet50", 50, 25_557_032, 4.1e9),
        ("googlenet", 22, 6_624_904, 1.5e9),
        ("alexnet", 8, 61_100_840, 0.71e9),
    ],
)
def test_depth_parameters_and_arithmetic_are_the_papers(model, layers, parameters, multiplications):
    facts = facts_of(model)
    assert (facts.layers, facts.parameters) == (layers, parameters)
    assert facts.multiplications == pytest.approx(multiplications, rel=0.01)


@pytest.mark.parametrize(
    ("model", "sizes", "layers"),
    [
        ("vgg19", [224, 112, 56, 28, 14, 1], [2, 2, 4, 4, 4, 3]),
        ("resnet50", [112, 56, 28, 14, 7, 1], [1, 9, 12, 18, 9, 1]),
        ("inception_v3", [149, 147, 73, 71, 35, 17, 8, 1], None),
    ],
)
def test_stages_are_those_of_the_reports_figures(model, sizes, layers):
    stages = facts_of(model).stages
    assert [stage.size[0] for stage in stages] == sizes
    assert layers is None or [stage.layers for stage in stages] == layers


@pytest.mark.parametrize("model", ["vgg19", "resnet50", "inception_v3", "efficientnet_lite0"])
def test_stages_add_up_to_the_network(model):
    facts = facts_of(model)
    assert sum(stage.layers for stage in facts.stages) == facts.layers
    assert sum(stage.parameters for stage in facts.stages) == facts.parameters
    assert sum(stage.multiplications for stage in facts.stages) == facts.multiplications


def test_the_trunk_is_made_of_blocks():
    assert list(relative_depths("resnet50"))[-3:] == ["layer4.0", "layer4.1", "layer4.2"]
    assert not [name for name in relative_depths("inception_v3") if "branch" in name]
    first, *blocks, last = relative_depths("efficientnet_lite0")
    assert (first, last) == ("bn1", "bn2")
    assert all(re.fullmatch(r"blocks\.\d\.\d", name) for name in blocks)


def test_a_relative_depth_is_a_share_of_the_layers():
    depths = relative_depths("vgg19")
    assert depths["block1_conv1"] == 1 / 19
    assert depths["block5_conv4"] == 16 / 19
    assert layer_at("vgg19", 0.5) == "block4_conv1"
    assert layer_at("vgg19", 1.0) == "block5_conv4"
    assert layer_at("resnet50", 0.2) == "layer1.2"
