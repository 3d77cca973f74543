"""Motion: the right way round, and what was hidden."""

import cv2
import numpy as np
import pytest
import torch

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.film.motion import consistency_mask, dis, is_cut, softened, warp

from .conftest import pan


def scene(height=360, width=480, noise=0.0, seed=0):
    """Two frames: a disc goes right by 9 px before a background that goes left by 3; with the true backward motion of
    the second one, and where it was seen in the first."""
    back = resize(imagefile.read("sample:coffee").image, (height, width + 20)).permute(1, 2, 0).numpy()
    front = resize(imagefile.read("sample:chelsea").image, (height, width + 20)).permute(1, 2, 0).numpy()
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    rng, frames, discs = np.random.default_rng(seed), [], []
    for k in (0, 1):
        disc = np.hypot(rows - height / 2, columns - 120 - 9 * k) < 60
        ground = cv2.remap(back, columns + 3 * k + 5, rows, cv2.INTER_LINEAR)
        thing = cv2.remap(front, columns - 9 * k + 10, rows, cv2.INTER_LINEAR)
        image = np.where(disc[..., None], thing, ground) + rng.normal(0, noise, ground.shape)
        frames.append(torch.from_numpy(image.clip(0, 1).astype(np.float32)).permute(2, 0, 1))
        discs.append(disc)
    motion = np.stack([np.where(discs[1], -9.0, 3.0), np.zeros((height, width))]).astype(np.float32)
    hidden = ~discs[1] & np.roll(discs[0], -3, 1)
    seen = ~hidden & (columns + motion[0] <= width - 1) & (columns + motion[0] >= 0)
    return frames, torch.from_numpy(motion), torch.from_numpy(seen)


def test_warping_along_the_flow_finds_the_frame_again():
    (first, second), motion, seen = scene()
    there = dis(second, first)
    error = (warp(first, there) - second).square().mean(0)[seen].mean()
    wrong = (warp(first, -dis(first, second)) - second).square().mean(0)[seen].mean()
    unmoved = (first - second).square().mean(0)[seen].mean()
    assert error < unmoved / 30
    assert error < wrong / 3  # the forward flow, turned round, as other tools have it
    assert (there - motion).norm(dim=0)[seen].median() < 0.05


def test_warping_by_whole_pixels_moves_them():
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    moved = warp(image, torch.stack([torch.full((20, 30), 4.0), torch.full((20, 30), -2.0)]))
    assert torch.allclose(moved[:, 2:, :-4], image[:, :-2, 4:], atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_what_was_hidden_is_found(noise):
    (first, second), _, seen = scene(noise=noise)
    found = consistency_mask(dis(second, first), dis(first, second)) > 0
    assert (~found[~seen]).float().mean() >= 0.95
    assert (~found[seen]).float().mean() <= 0.05
    assert torch.equal(softened(torch.ones(9, 9)), torch.ones(9, 9))
    assert (softened(found.float())[~found] < 0.5).all()


def test_flow_that_contradicts_itself_is_not_believed():
    there = torch.zeros(2, 40, 40)
    there[0] = 3.0
    back = -there
    assert consistency_mask(there, back)[:, :36].min() == 1
    assert consistency_mask(there, back)[:, 37:].max() == 0  # from outside
    assert consistency_mask(there, 0 * back).max() == 0


@pytest.mark.parametrize(("step", "noise"), [(2, 0.0), (9, 0.0), (2, 0.05)])
def test_motion_is_no_cut(step, noise):
    rng = torch.Generator().manual_seed(0)
    first, second = ((i + noise * torch.randn(i.shape, generator=rng)).clamp(0, 1) for i in pan(2, 96, 128, step))
    assert not is_cut(consistency_mask(dis(second, first), dis(first, second)))


@pytest.mark.parametrize("other", ["chelsea", "astronaut", "retina"])
def test_another_photograph_is_a_cut(other):
    first, second = pan(1, 96, 128)[0], pan(1, 96, 128, sample=other)[0]
    assert is_cut(consistency_mask(dis(second, first), dis(first, second)))


def test_pictures_too_small_for_motion_have_none():
    tiny = torch.rand(3, 8, 9)
    assert torch.equal(dis(tiny, tiny), torch.zeros(2, 8, 9))
