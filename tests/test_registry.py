"""Cards against the report's tables (figures 4 to 6), torchvision's own numbers, and the networks they describe."""

import pickle
import subprocess
import sys
from contextlib import suppress

import pytest
import torch
from torch import nn

from phosphene.errors import UnknownNameError, UsageError
from phosphene.networks import registry
from phosphene.networks.card import ModelCard
from phosphene.networks.cards import DEFAULT_MODEL

# Channels and side of each layer's output, from the report's tables: InceptionV3 at 299 pixels, others at 224.
INCEPTION_V3 = {"mixed0": (256, 35), "mixed1": (288, 35), "mixed2": (288, 35)}
INCEPTION_V3 |= {f"mixed{i}": (768, 17) for i in range(3, 8)}
INCEPTION_V3 |= {"mixed8": (1280, 8), "mixed9": (2048, 8), "mixed10": (2048, 8)}

RESNET50 = {"conv1_relu": (64, 112), "pool1_pool": (64, 56)}
for _stage, _blocks, _channels, _side in ((2, 3, 256, 56), (3, 4, 512, 28), (4, 6, 1024, 14), (5, 3, 2048, 7)):
    RESNET50[f"conv{_stage}.x"] = (_channels, _side)
    RESNET50 |= {f"conv{_stage}_block{b}_out": (_channels, _side) for b in range(1, _blocks + 1)}

VGG19 = {}
for _block, _convs, _channels in ((1, 2, 64), (2, 2, 128), (3, 4, 256), (4, 4, 512), (5, 4, 512)):
    VGG19 |= {f"block{_block}_conv{c}": (_channels, 448 >> _block) for c in range(1, _convs + 1)}
    VGG19[f"block{_block}_pool"] = (_channels, 224 >> _block)


def on_meta(card: ModelCard) -> nn.Module:
    with torch.device("meta"):
        return registry.build(card).eval()


def output_shapes(card: ModelCard, layers: list[str], side: int) -> list[tuple[int, int]]:
    """Channels and side of each layer's output, for an image of that side; computed without any values."""
    network, shapes = on_meta(card), {}

    def note(layer: str) -> None:
        module = network.get_submodule(card.aliases.get(layer, layer))
        module.register_forward_hook(lambda _module, _inputs, out: shapes.update({layer: (out.shape[1], out.shape[3])}))

    for layer in layers:
        note(layer)
    with suppress(RuntimeError):  # what follows the layers may want a larger image
        network(torch.empty(1, 3, side, side, device="meta"))
    return [shapes[layer] for layer in layers]


@pytest.mark.parametrize(
    ("name", "side", "table"), [("inception_v3", 299, INCEPTION_V3), ("resnet50", 224, RESNET50), ("vgg19", 224, VGG19)]
)
def test_each_alias_has_the_channels_and_size_of_the_papers_table(name, side, table):
    card = registry.card(name)
    assert card.aliases.keys() == table.keys()
    assert dict(zip(table, output_shapes(card, list(table), side), strict=True)) == table


def test_the_aliases_of_keras_are_distinct_layers_in_order():
    inception = list(registry.card("inception_v3").aliases.values())
    assert inception == sorted(set(inception))
    resnet = [layer for name, layer in registry.card("resnet50").aliases.items() if "block" in name]
    assert resnet == sorted(set(resnet))


def test_vgg19s_convolutions_include_their_relu_as_in_keras():
    card = registry.card("vgg19")
    network = on_meta(card)
    for name, layer in card.aliases.items():
        assert isinstance(network.get_submodule(layer), nn.MaxPool2d if name.endswith("pool") else nn.ReLU)
    assert len(set(card.aliases.values())) == 16 + 5


@pytest.mark.parametrize("card", registry.named(), ids=lambda card: card.name)
def test_the_suggested_layers_exist_and_go_from_strokes_to_objects(card):
    sides = [side for _, side in output_shapes(card, list(card.layers), 224)]
    assert len(sides) >= 5
    assert sides == sorted(sides, reverse=True)
    assert sides[0] > sides[-1]


@pytest.mark.parametrize("card", registry.named(), ids=lambda card: card.name)
def test_from_the_smallest_side_on_the_deepest_suggested_layer_has_four_places(card):
    assert output_shapes(card, [card.layers[-1]], card.min_side)[0][1] == 2
    assert output_shapes(card, [card.layers[-1]], card.min_side - 1)[0][1] == 1


@pytest.mark.parametrize("card", registry.named(), ids=lambda card: card.name)
def test_a_card_counts_its_networks_parameters_and_classes(card):
    network = on_meta(card)
    assert sum(p.numel() for p in network.parameters()) == card.parameters
    assert network(torch.empty(1, 3, 299, 299, device="meta")).shape == (1, card.classes)


@pytest.mark.parametrize("card", registry.named(), ids=lambda card: card.name)
def test_our_networks_hold_nothing_that_a_weights_file_does_not(card):
    # What makes it safe to build them on the meta device and to fill them from a file.
    network = on_meta(card)
    assert {name for name, _ in network.named_buffers()} <= network.state_dict().keys()


def test_inceptions_normalisation_is_what_torchvisions_transform_input_amounts_to():
    from torchvision.models import inception_v3

    card = registry.card("inception_v3")
    with torch.device("meta"):
        theirs = inception_v3(transform_input=True, init_weights=False)
    assert registry.card("googlenet").mean == card.mean
    assert not on_meta(card).transform_input
    assert not on_meta(registry.card("googlenet")).transform_input
    pixels = torch.rand(1, 3, 8, 8)
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    ours = (pixels - torch.tensor(card.mean).view(3, 1, 1)) / torch.tensor(card.std).view(3, 1, 1)
    torch.testing.assert_close(theirs._transform_input((pixels - mean) / std), ours, atol=1e-6, rtol=0)


def test_our_cards_agree_with_torchvision_about_its_weights():
    from torchvision.models import Inception_V3_Weights, ResNet50_Weights, VGG19_Weights

    theirs = {
        "inception_v3": Inception_V3_Weights.IMAGENET1K_V1,
        "resnet50": ResNet50_Weights.IMAGENET1K_V1,
        "vgg19": VGG19_Weights.IMAGENET1K_V1,
    }
    for name, weights in theirs.items():
        card = registry.card(name)
        assert card.weights_url == weights.url
        assert card.weights_url.endswith(f"/{card.weights_file}")
        assert card.weights_file.endswith(f"-{card.sha256}.pth")
        assert card.parameters == weights.meta["num_params"]
        if name != "inception_v3":
            assert (list(card.mean), list(card.std)) == (weights.transforms().mean, weights.transforms().std)


def test_every_classification_model_of_torchvision_has_a_card_with_a_checksum():
    known = [name for name in registry.known_names() if not name.startswith("timm/")]
    names = [name for name in known if registry.card(name).source != "own"]  # which another test may have given
    cards = [registry.card(name) for name in names]
    assert len(names) > 70
    assert len(set(names)) == len(names)
    assert [card.name for card in cards] == names
    assert all((len(card.sha256) >= 8 or card.md5) and card.classes == 1000 and card.parameters for card in cards)


def test_weights_under_a_licence_of_their_own_say_so():
    assert "SWAG" in registry.card("vit_h_14").licence
    assert "BSD-3-Clause" in registry.card("resnet18").licence


def test_a_large_transformer_is_built_for_the_size_of_its_weights():
    card = registry.card("vit_h_14")
    assert sum(p.numel() for p in on_meta(card).parameters()) == card.parameters
    assert card.min_side == 518


def test_timms_models_come_with_what_timm_knows_of_them():
    card = registry.card("timm/resnet50.tv_in1k")
    assert (card.source, card.architecture, card.licence) == ("timm", "resnet50.tv_in1k", "bsd-3-clause")
    assert card.mean == (0.485, 0.456, 0.406)
    assert card.weights_url == "https://huggingface.co/timm/resnet50.tv_in1k/resolve/main/model.safetensors"
    assert registry.card("timm/vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)


def test_timms_transformers_take_images_of_any_size():
    network = on_meta(registry.card("timm/vit_tiny_patch16_224"))
    assert network(torch.empty(1, 3, 96, 160, device="meta")).shape == (1, 1000)


def test_a_timm_model_without_published_weights_still_has_a_card():
    card = registry.card("timm/botnet50ts_256")
    assert (card.weights_url, card.weights_file) == ("", "")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("incepton_v3", "inception_v3"),
        ("vgg20", "vgg19"),
        ("timm/resnt50", "timm/resnet50"),
        ("timm/resnet50.nope", "timm/resnet50"),
        ("resnet_50", "resnet50"),
    ],
)
def test_an_unknown_model_is_answered_with_the_nearest(wrong, near):
    with pytest.raises(UnknownNameError, match=rf"there is no model called '{wrong}'; did you mean .*{near}\b"):
        registry.card(wrong)


def test_the_default_model_is_the_first_of_the_named():
    names = [card.name for card in registry.named()]
    assert names[0] == DEFAULT_MODEL
    assert registry.known_names()[: len(names)] == names


def test_cards_hash_compare_and_travel():
    card = registry.card("resnet50")
    assert pickle.loads(pickle.dumps(card)) == card
    assert len({card, registry.card("resnet50"), registry.card("vgg19")}) == 2


def test_reading_a_card_does_not_load_torch():
    code = "import sys, phosphene.networks.card; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    ("given", "index"), [("967", 967), ("0", 0), ("espresso", 967), ("Egyptian Cat", 285), (" ESPRESSO ", 967)]
)
def test_a_class_is_found_by_number_or_name_in_any_case(given, index):
    assert registry.class_index(given) == index
    assert len(registry.categories()) == 1000


def test_an_unknown_class_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="no class called 'expresso'; did you mean espresso"):
        registry.class_index("expresso")
    with pytest.raises(UsageError, match="no class number 1000: ImageNet's classes are 0 to 999"):
        registry.class_index("1000")
    with pytest.raises(UnknownNameError, match="no class called '-1'"):
        registry.class_index("-1")


def test_a_name_of_two_classes_asks_for_a_number():
    # The dog and the knitwear.
    with pytest.raises(UsageError, match="two classes are called 'cardigan': give 264 or 474 instead"):
        registry.class_index("cardigan")


def test_a_network_that_computes_while_it_is_built_has_a_skeleton():
    state = torch.get_rng_state()
    skeleton = registry.skeleton(registry.card("regnet_y_400mf"))
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == registry.card("regnet_y_400mf").parameters
