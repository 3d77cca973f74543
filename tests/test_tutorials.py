"""The presets of Keras's and TensorFlow's tutorials against their loops, restated here on random weights.

Pixels are in -1..1, as there. A step is compared on Keras's own network. Whole loops are compared in float64, on our
network, which `test_keras.py` compares with Keras's: they are chaotic, and what differs in the last bit of float32 has
become a tenth of the picture's change in three steps.
"""

import pytest
import torch
import torch.nn.functional as F

from phosphene.dreaming.render import render
from phosphene.job import prepare, run
from phosphene.networks import registry, weights
from phosphene.networks.network import Network
from phosphene.recipe.spelling import choose
from phosphene.setup.builders import bind, gradient_fn

CARD = registry.card("keras/inception_v3")
MIXED = {3: "Mixed_6a", 4: "Mixed_6b", 5: "Mixed_6c", 6: "Mixed_6d", 7: "Mixed_6e"}
KERAS = {4: 1.0, 5: 1.5, 6: 2.0, 7: 2.5}
SIZE = (160, 176)


@pytest.fixture(scope="module")
def network():
    return weights.load(CARD, "untrained")[0].eval()


@pytest.fixture(scope="module")
def double():
    return weights.load(CARD, "untrained")[0].eval().double()


@pytest.fixture(scope="module")
def photograph():
    """Patches and noise in 0.1..0.9, so that a step is not clamped and no two values of a pool are alike."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 20, 22, generator=rng)
    patches = F.interpolate(coarse, size=SIZE, mode="bilinear")[0]
    return 0.1 + 0.64 * patches + 0.16 * torch.rand(3, *SIZE, generator=rng)


# The tutorials.


def seen_by(network, image):
    """Activations by the number of their mixed layer."""
    seen = {}
    hooks = [
        getattr(network, name).register_forward_hook(lambda _m, _i, out, n=n: seen.__setitem__(n, out))
        for n, name in MIXED.items()
    ]
    network(image[None])
    for hook in hooks:
        hook.remove()
    return seen


def gradient(network, image, loss, see=seen_by):
    leaf = image.clone().requires_grad_(True)
    return torch.autograd.grad(loss(see(network, leaf)), leaf)[0]


def keras_loss(border):
    def loss(seen):
        cut = slice(border, -border or None)
        return sum(w * seen[n][:, :, cut, cut].square().sum() / seen[n].numel() for n, w in KERAS.items())

    return loss


def keras_step(network, image, border=2, see=seen_by):
    slope = gradient(network, image, keras_loss(border), see)
    return image + 0.01 * slope / slope.abs().mean().clamp(min=1e-6)


def tensorflow_step(network, image, see=seen_by):
    slope = gradient(network, image, lambda seen: seen[3].mean() + seen[5].mean(), see)
    return (image + 0.01 * slope / (slope.std(correction=0) + 1e-8)).clamp(-1, 1)


def resized(image, size, antialias=False):
    """`tf.image.resize` without antialiasing, as both tutorials call it."""
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=antialias, align_corners=False)[0]


OURS = {"border": 0, "detail": "before", "antialias": True, "sizes": round, "clip": True}
"""What our loop does otherwise than Keras's; only on pictures that reach black or white does `clip` count."""


def keras_loop(network, original, octaves=2, steps=1, border=2, detail="after", antialias=False, sizes=int, clip=False):
    """Keras's `deep_dream.py`; each of `OURS` is one deviation."""
    shapes = [tuple(sizes(side / 1.4**k) for side in original.shape[1:]) for k in reversed(range(octaves))]
    shrunk = resized(original, shapes[0], antialias)
    image = shrunk
    for shape in shapes:
        image = resized(image, shape)
        base = resized(original, shape, antialias)
        lost = base - resized(shrunk, shape)
        if detail == "before":
            image = image + lost
        for _ in range(steps):
            image = image.clamp(-1, 1) if clip else image
            image = keras_step(network, image, border)
        if detail == "after":
            image = image + lost
        shrunk = base
    return image.clamp(-1, 1)


def tensorflow_loop(network, original, octaves=2, steps=1):
    """TensorFlow's octaves up to the size of `original`, without tiles and shifts, each as large as ours."""
    sizes = [tuple(round(side / 1.3**k) for side in original.shape[1:]) for k in reversed(range(octaves))]
    image = resized(original, sizes[0], antialias=True)
    for size in sizes:
        image = resized(image, size)
        for _ in range(steps):
            image = tensorflow_step(network, image)
    return image


# Ours.


def dreamed(photograph, preset, **settings):
    given = {"model": CARD.name, "weights": "untrained", "fast": False, **settings}
    return run(prepare(photograph, choose(given, preset=preset), "cpu")).image


def dreamed_in_float64(module, photograph, preset, **settings):
    recipe = choose({"model": CARD.name, "tile": "none", **settings}, preset=preset)
    network = Network(CARD, module, "untrained", fast=False)
    scoring = bind(recipe, network)
    network.features(scoring.layers).double()
    *_, last = render(photograph.double(), gradient_fn(network, scoring, recipe), recipe, torch.Generator())
    return last.image


def rms(difference):
    return float(difference.double().square().mean().sqrt())


def apart(one, other, photograph):
    """How far two dreams are apart, of the change that the other one is."""
    return rms(one - other) / rms(other - photograph)


def pixels(image):
    return image / 2 + 0.5


# A step, on Keras's own network.


@pytest.fixture(scope="module")
def kerass(tmp_path_factory):
    """A way to see the layers of Keras's network with random arrays, in float64, and the file of them.

    Activations come ten thousand times as large: with random weights, gradients are small beside the loops' epsilons.
    """
    test_keras = pytest.importorskip("test_keras")
    whole = test_keras.made("inception_v3")
    file = test_keras.save(whole, tmp_path_factory.mktemp("tutorial") / "inception_v3.h5")
    model = test_keras.keras.Model(whole.inputs, [whole.get_layer(f"mixed{n}").output for n in MIXED])

    def see(_, image):
        return {
            n: 1e4 * seen.permute(0, 3, 1, 2)
            for n, seen in zip(MIXED, model(image.permute(1, 2, 0)[None]), strict=True)
        }

    yield see, str(file)
    file.unlink()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize(
    ("preset", "step", "border"),
    [("tensorflow-tutorial", tensorflow_step, {}), ("keras-tutorial", keras_step, {"border": 0})],
)
def test_a_step_is_theirs_on_kerass_own_network(kerass, photograph, preset, step, border):
    """Of one picture of three: Keras normalises in float32, so a unit at a kink may be rounded to either side of it."""
    see, file = kerass
    module = weights.load(CARD, file, top=False)[0].double()

    def off(image):
        theirs = pixels(step(None, 2 * image.double() - 1, see=see, **border))
        return apart(dreamed_in_float64(module, image, preset, steps=1, octaves=1, jitter=0), theirs, image)

    assert any(off(image) < 1e-5 for image in (photograph, photograph.flip(1), photograph.flip(2)))


# Whole loops.


def test_keras_loop_is_ours_with_what_we_do_otherwise(double, photograph):
    original = 2 * photograph.double() - 1
    ours = dreamed_in_float64(double, photograph, "keras-tutorial", steps=2, octaves=2)
    same = pixels(keras_loop(double, original, steps=2, **OURS))
    assert apart(ours, same, photograph) < 1e-6


@pytest.mark.parametrize(("deviation", "least"), [("border", 0.1), ("detail", 0.1), ("antialias", 0.1), ("sizes", 0.1)])
def test_each_deviation_from_keras_loop_is_one(double, photograph, deviation, least):
    original = 2 * photograph.double() - 1
    ours = dreamed_in_float64(double, photograph, "keras-tutorial", steps=1, octaves=2)
    theirs = pixels(keras_loop(double, original, **{name: way for name, way in OURS.items() if name != deviation}))
    assert apart(ours, theirs, photograph) > least


def test_tensorflows_loop_is_ours(double, photograph):
    original = 2 * photograph.double() - 1
    ours = dreamed_in_float64(double, photograph, "tensorflow-tutorial", steps=1, octaves=2, jitter=0)
    assert apart(ours, pixels(tensorflow_loop(double, original)), photograph) < 1e-6


# Why longer ones are not compared.


def test_five_steps_of_theirs_in_float32_are_far_from_theirs_in_float64(network, double, photograph):
    """Ours are no farther: the loop drifts, not the preset. After three steps it depends on the processor."""

    def five(module, image):
        for _ in range(5):
            image = tensorflow_step(module, image)
        return pixels(image)

    exact = five(double, 2 * photograph.double() - 1)
    rounded = five(network, 2 * photograph - 1)
    ours = dreamed(photograph, "tensorflow-tutorial", steps=5, octaves=1, jitter=0, size="full")
    assert apart(rounded, exact, photograph) > 0.01
    assert apart(ours, exact, photograph) < 2 * apart(rounded, exact, photograph)
