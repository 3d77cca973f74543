"""Transformers: tokens where their places are, and sizes that a network insists on."""

import pytest
import torch
from torch import fx, nn

import phosphene
from phosphene.engine import freeze
from phosphene.errors import UsageError
from phosphene.networks.inspect import untrained_network
from phosphene.networks.sizes import as_planes, first_fitting


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize(("size", "patch"), [((224, 224), 16), ((224, 224), 14), ((256, 320), 16), ((48, 80), 8)])
def test_tokens_are_the_grid_that_they_were_cut_from(prefix, size, patch):
    grid = torch.rand(2, 7, size[0] // patch, size[1] // patch)
    tokens = torch.cat([torch.rand(2, prefix, 7), grid.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(as_planes(tokens, 2, size, True), grid)


def test_channels_that_come_last_are_put_first_and_vectors_have_one_place():
    planes = torch.rand(1, 96, 14, 20)
    assert torch.equal(as_planes(planes.permute(0, 2, 3, 1), 1, (224, 320), True), planes)
    assert torch.equal(as_planes(planes, 1, (224, 320), True), planes)
    assert as_planes(torch.rand(2, 10), 2, (224, 320), True).shape == (2, 10, 1, 1)


def test_a_size_that_is_wanted_is_found_or_the_reason_is_one_sentence():
    def only(wanted):
        def compute(size):
            if size != wanted:
                raise AssertionError(f"Input height ({size[0]}) doesn't match model.\nmore")
            return "seen"

        return compute

    assert first_fitting(only((100, 90)), (100, 90), "m", 32) == ((100, 90), "seen")
    assert first_fitting(only((112, 96)), (100, 90), "m", 32) == ((112, 96), "seen")  # multiples of 16
    assert first_fitting(only((32, 32)), (100, 90), "m", 32) == ((32, 32), "seen")
    with pytest.raises(
        UsageError, match=r"^m cannot see 90 x 100 pixels in the layer asked for \(Input height \(100\)"
    ):
        first_fitting(only((1, 1)), (100, 90), "m", 32)


def test_a_size_that_is_refused_prints_nothing(capfd):
    """fx prints a traceback of what fails within a traced module's own lines."""

    class Windows(nn.Module):
        def forward(self, x):
            return {"windows": x.reshape(x.shape[0], 3, x.shape[2] // 7, 7, -1)}

    frozen = freeze(fx.symbolic_trace(Windows()), fast=False)
    assert frozen(torch.rand(1, 3, 14, 5))["windows"].shape == (1, 3, 2, 7, 5)
    with pytest.raises(RuntimeError, match="invalid for input"):
        frozen(torch.rand(1, 3, 15, 5))
    assert capfd.readouterr() == ("", "")


def test_memory_that_runs_out_is_not_a_size():
    def starved(size):
        raise RuntimeError("can't allocate memory: you tried to allocate 5 bytes")

    with pytest.raises(RuntimeError, match="allocate 5"):
        first_fitting(starved, (64, 64), "m", 32)


class Patches(nn.Module):
    """A transformer of one layer: patches, a class token before them, and one size that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 16, stride=16)
        self.token = nn.Parameter(torch.ones(1, 1, 8))
        self.places = nn.Parameter(torch.rand(1, 5, 8))
        self.mix = nn.Linear(8, 6)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.mix(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.places)


def test_a_transformer_dreams_a_channel_at_a_place_at_a_size_that_it_does_not_take(caplog):
    torch.manual_seed(0)
    network = Patches()
    assert phosphene.layers(network, size=(32, 32))["mix"].shape == (1, 6, 2, 2)
    dream = phosphene.dream("noise:40x72", model=network, layers="mix[2]@0.9,0.1", steps=2, octaves=1, jitter=0)
    assert dream.image.shape == (3, 40, 72)
    assert "does not take 72 x 40 px; it looks at the picture resized to 32 x 32" in caplog.text
    changed = (dream.image - dream.photograph).abs().sum(0)
    assert changed[20:, :36].mean() > 3 * changed[:20, 36:].mean()


@pytest.mark.slow
def test_a_layer_of_a_vision_transformer_has_rows_and_columns():
    network = untrained_network("timm/vit_tiny_patch16_224")
    node = network.resolve("blocks.1.mlp.act")[0]
    image = torch.rand(1, 3, 64, 96)
    tokens = {}
    network.module.blocks[1].mlp.act.register_forward_hook(lambda _, __, out: tokens.update(out=out))
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (network.card.mean, network.card.std))
    network.module((image - mean) / std)
    expected = tokens["out"][:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(network.features([node])(image)[node], expected, rtol=1e-4, atol=1e-5)
