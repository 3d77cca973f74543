"""A step of the presets of Keras's and TensorFlow's tutorials against theirs, in plain PyTorch on random weights.

The network is `keras/inception_v3`, which `test_keras.py` compares with that of Keras. Pixels are in -1..1, as there.
"""

import pytest
import torch

from phosphene.job import prepare, run
from phosphene.networks import registry, weights
from phosphene.recipe.spelling import choose

MIXED = {3: "Mixed_6a", 4: "Mixed_6b", 5: "Mixed_6c", 6: "Mixed_6d", 7: "Mixed_6e"}
KERAS = {4: 1.0, 5: 1.5, 6: 2.0, 7: 2.5}
RANDOM = {"model": "keras/inception_v3", "weights": "untrained", "fast": False}


@pytest.fixture(scope="module")
def network():
    return weights.load(registry.card("keras/inception_v3"), "untrained")[0].eval()


@pytest.fixture(scope="module")
def photograph():
    """Patches and noise in 0.1..0.9, so that a step is not clamped and no two values of a pool are alike."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 20, 22, generator=rng)
    patches = torch.nn.functional.interpolate(coarse, size=(160, 176), mode="bilinear")[0]
    return 0.1 + 0.64 * patches + 0.16 * torch.rand(3, 160, 176, generator=rng)


def gradient(network, image, loss):
    """Of `loss`, a function of activations by number of their mixed layer, with respect to an image in -1..1."""
    seen = {}
    hooks = [
        getattr(network, name).register_forward_hook(lambda _m, _i, out, n=n: seen.__setitem__(n, out))
        for n, name in MIXED.items()
    ]
    leaf = image.clone().requires_grad_(True)
    network(leaf[None])
    for hook in hooks:
        hook.remove()
    return torch.autograd.grad(loss(seen), leaf)[0]


def keras_loss(border):
    def loss(seen):
        cut = slice(border, -border or None)
        return sum(w * seen[n][:, :, cut, cut].square().sum() / seen[n].numel() for n, w in KERAS.items())

    return loss


def keras_step(network, image, border=2):
    slope = gradient(network, image, keras_loss(border))
    return image + 0.01 * slope / slope.abs().mean().clamp(min=1e-6)


def tensorflow_step(network, image):
    slope = gradient(network, image, lambda seen: seen[3].mean() + seen[5].mean())
    return (image + 0.01 * slope / (slope.std(correction=0) + 1e-8)).clamp(-1, 1)


def dreamed(photograph, preset, **settings):
    return run(prepare(photograph, choose({**RANDOM, **settings}, preset=preset), "cpu")).image


def rms(difference):
    return float(difference.square().mean().sqrt())


def test_a_step_of_tensorflows_is_ours(network, photograph):
    theirs = tensorflow_step(network, 2 * photograph - 1) / 2 + 0.5
    ours = dreamed(photograph, "tensorflow-tutorial", steps=1, octaves=1, jitter=0, size="full")
    assert rms(ours - theirs) < 0.001 * rms(theirs - photograph)


def test_a_step_of_keras_is_ours_but_for_the_border(network, photograph):
    ours = dreamed(photograph, "keras-tutorial", steps=1, octaves=1)
    whole, cropped = (keras_step(network, 2 * photograph - 1, border) / 2 + 0.5 for border in (0, 2))
    assert rms(ours - whole) < 0.01 * rms(whole - photograph)
    assert rms(ours - cropped) > 0.1 * rms(cropped - photograph)
