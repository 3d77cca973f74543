"""Strength: what is measured, and what is held."""

import pytest
import torch

from phosphene.dreaming.strength import held, rms_change


@pytest.fixture
def pair(photo):
    frame = 0.3 + 0.4 * photo(20, 30)
    return frame + 0.1 * (photo(20, 30, seed=1) - 0.3), frame


def test_the_change_is_a_root_mean_square():
    frame = torch.full((3, 4, 4), 0.5)
    assert rms_change(frame + 0.25, frame) == 0.25
    half = frame.clone()
    half[:, :2] += 0.2
    assert rms_change(half, frame) == pytest.approx(0.2 / 2**0.5)


@pytest.mark.parametrize("change", [0.01, 0.05, 0.1])
def test_a_held_dream_has_the_change_and_the_brightness(pair, change):
    dream = held(*pair, change)
    assert rms_change(dream, pair[1]) == pytest.approx(change, rel=1e-3)
    assert (dream - pair[1]).mean((1, 2)).abs().max() < 1e-4


def test_without_a_change_only_the_brightness_is_held(pair):
    dream, frame = pair
    added = dream - frame
    assert torch.allclose(held(dream, frame), frame + added - added.mean((1, 2), keepdim=True))


def test_what_is_clamped_is_made_good(photo):
    frame = photo(40, 40).round()  # black and white
    dream = held((frame + photo(40, 40, seed=2) - 0.5).clamp(0, 1), frame, 0.2)
    assert rms_change(dream, frame) == pytest.approx(0.2, rel=0.02)


def test_what_a_mask_keeps_stays(pair):
    dream, frame = pair
    mask = torch.zeros(20, 30, dtype=frame.dtype)
    mask[:, :10] = 1
    dream = torch.where(mask > 0, dream, frame)
    found = held(dream, frame, 0.03, mask)
    assert torch.equal(found[:, :, 10:], frame[:, :, 10:])
    assert rms_change(found, frame) == pytest.approx(0.03, rel=1e-3)
    assert (found - frame).mean((1, 2)).abs().max() < 1e-4
