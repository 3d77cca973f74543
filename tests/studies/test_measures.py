"""Each measure against a case whose answer is known, and against other people's code."""

import math

import colour
import numpy as np
import pytest
import pytorch_msssim
import torch

import phosphene
from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.dreaming.strength import rms_change
from phosphene.errors import SettingsError
from phosphene.networks import registry, weights
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.studies.measure.measures import (
    BANDS,
    LEAST_SIDE,
    MEASURES,
    PICTURE_MEASURES,
    colour_shift,
    energies_added,
    feature_distance,
    looked_at,
    ssim,
)


@pytest.fixture(scope="module")
def coffee():
    return resize(imagefile.read("sample:coffee").image, (64, 96))


def flat(level, height=64, width=64):
    return torch.full((3, height, width), float(level))


def test_a_picture_against_itself(coffee):
    measured = {column: of(coffee, coffee) for column, of in PICTURE_MEASURES.items()}
    assert measured == {"change": 0, "strength": 0, "ssim": pytest.approx(1, abs=1e-12), "colour_shift": 0}
    assert feature_distance(looked_at(coffee), looked_at(coffee)) == 0


def test_change_is_the_distance_of_two_greys():
    assert rms_change(flat(0.7), flat(0.4)) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize(("wavelength", "band"), [(3, 1), (7, 2), (14, 3), (28, 4), (56, 5)])
def test_a_grating_adds_its_energy_to_the_band_of_its_wavelength(wavelength, band):
    amplitude = 0.1
    wave = amplitude * torch.sin(2 * math.pi * torch.arange(256) / wavelength + 0.3)
    added = energies_added((0.5 + wave).expand(3, 256, 256).contiguous(), flat(0.5, 256, 256))
    assert added.index(max(added)) == band - 1
    assert 0.4 < sum(added) / (amplitude**2 / 2) < 1.1


def test_energy_grows_with_the_square_of_the_amplitude(photo):
    noise = photo(64, 64, torch.float32) - 0.5
    weak, strong = (energies_added(0.5 + size * noise, flat(0.5)) for size in (0.1, 0.2))
    assert strong == pytest.approx([4 * each for each in weak], rel=1e-3)


def test_a_smoother_picture_has_lost_energy(photo):
    noise = photo(64, 64, torch.float32)
    assert sum(energies_added(flat(0.5), noise)) < 0


def test_a_picture_without_room_for_all_bands_has_them_empty():
    assert energies_added(flat(0.2, 4, 4), flat(0.4, 4, 4)) == pytest.approx([0.0] * BANDS, abs=1e-12)


def test_ssim_of_two_greys_is_their_luminance_term():
    a, b, c1 = 0.3, 0.6, 0.01**2
    assert ssim(flat(a), flat(b)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-6)


@pytest.fixture(scope="module")
def noisy(coffee):
    noise = torch.rand(coffee.shape, generator=torch.Generator().manual_seed(0))
    return (coffee + 0.3 * (noise - 0.5)).clamp(0, 1)


def test_ssim_is_that_of_pytorch_msssim(coffee, noisy):
    lumas = [(0.299 * r + 0.587 * g + 0.114 * b)[None, None].double() for r, g, b in (noisy, coffee)]
    assert ssim(noisy, coffee) == pytest.approx(float(pytorch_msssim.ssim(*lumas, data_range=1.0)), rel=1e-5)


def test_colour_shift_is_that_of_colour_science(coffee, noisy):
    """Its matrix from sRGB and its white have more digits than the ones here."""
    white = colour.CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"]["D65"]
    labs = [
        colour.XYZ_to_Lab(colour.sRGB_to_XYZ(image.double().permute(1, 2, 0).numpy()), white)
        for image in (coffee, noisy)
    ]
    theirs = colour.delta_E(*labs, method="CIE 2000").mean()
    assert colour_shift(noisy, coffee) == pytest.approx(theirs, rel=2e-4)


def test_colour_shift_of_two_greys_is_their_lightness_term():
    def lightness(level):
        linear = ((level + 0.055) / 1.055) ** 2.4
        return 116 * linear ** (1 / 3) - 16

    a, b = lightness(0.4), lightness(0.7)
    middle = ((a + b) / 2 - 50) ** 2
    expected = abs(a - b) / (1 + 0.015 * middle / math.sqrt(20 + middle))
    assert colour_shift(flat(0.7), flat(0.4)) == pytest.approx(expected, rel=2e-3)


def test_distances_in_features_are_symmetric_and_grow(coffee, photo):
    noise = photo(64, 96, torch.float32) - 0.5
    seen, little, much = (looked_at((coffee + size * noise).clamp(0, 1)) for size in (0, 0.1, 0.5))
    assert feature_distance(seen, little) == feature_distance(little, seen)
    assert 0 < feature_distance(seen, little) < feature_distance(seen, much) < 4


def test_distances_in_features_are_equation_1_by_hand(coffee, noisy):
    """On activations that hooks on the network as it was loaded see."""
    card = registry.card(DEFAULT_MODEL)
    module = weights.load(card)[0].eval()
    layers = [module.get_submodule(name) for name in card.layers]
    seen = []
    hooks = [layer.register_forward_hook(lambda _module, _inputs, out: seen.append(out[0].numpy())) for layer in layers]
    with torch.no_grad():
        for image in (coffee, noisy):
            module((image[None] - 0.5) / 0.5)
    for hook in hooks:
        hook.remove()
    halves = zip(seen[: len(layers)], seen[len(layers) :], strict=True)
    wanted = np.mean([_distance_by_hand(one.astype(float), other.astype(float)) for one, other in halves])
    assert feature_distance(looked_at(coffee), looked_at(noisy)) == pytest.approx(wanted, rel=1e-3)


def _distance_by_hand(one, other):
    _, height, width = one.shape
    total = 0.0
    for h in range(height):
        for w in range(width):
            x, y = one[:, h, w], other[:, h, w]
            difference = x / math.sqrt(sum(x * x)) - y / math.sqrt(sum(y * y))
            total += sum(difference * difference)
    return total / (height * width)


def test_opposite_unit_vectors_are_four_apart():
    one = torch.nn.functional.normalize(torch.ones(5, 3), dim=0)
    assert feature_distance([one], [-one]) == pytest.approx(4)


def test_every_measure_has_a_formula_and_a_source():
    assert all(measure.formula.endswith(".") and measure.source.endswith(".") for measure in MEASURES)
    assert len({measure.column for measure in MEASURES}) == len(MEASURES)


def test_a_picture_that_is_too_small_to_be_measured_is_said_before_it_is_dreamed(tmp_path):
    with pytest.raises(SettingsError, match=r"11 px a side or more.* would have 40 x 10 px"):
        phosphene.sweep(torch.rand(3, 10, 40), tmp_path / "study", vary={"steps": [1, 2]}, layers="blocks.1.1", size=40)
    assert not (tmp_path / "study").exists()
    assert ssim(flat(0.5, LEAST_SIDE, 40), flat(0.5, LEAST_SIDE, 40)) == pytest.approx(1)
