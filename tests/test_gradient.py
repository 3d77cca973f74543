"""The whole image's gradient, against finite differences of the score restated in NumPy."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from phosphene.dreaming.gradient import repeat_up_to
from phosphene.dreaming.objective import ChannelMatch, Energy, Match, Mean, Scoring
from phosphene.dreaming.stages import whole_image_gradient
from phosphene.recipe.settings import Target, Tiles
from phosphene.recipe.terms import channel, layer
from phosphene.setup.builders import bind, gradient_fn

HEIGHT, WIDTH = 7, 6
SHIFTS = [(0, 0), (2, -3), (-9, 13)]
PLACE = (0.6, 0.2)


@pytest.fixture(scope="session")
def guide():
    rng = torch.Generator().manual_seed(4)
    return torch.randn(5, 20, generator=rng, dtype=torch.float64)


def at_place(a: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """The unit that covers a place of the photograph, after the photograph was rolled."""
    row = (PLACE[0] * HEIGHT + shift[0]) % HEIGHT / HEIGHT * a.shape[1]
    column = (PLACE[1] * WIDTH + shift[1]) % WIDTH / WIDTH * a.shape[2]
    return a[:, int(row), int(column)]


def best_match(a: np.ndarray, g: np.ndarray) -> float:
    return (a.reshape(len(a), -1).T @ g).max(1).mean() / len(a)


def channel_match(a: np.ndarray, g: np.ndarray) -> float:
    sums = g.sum(1)
    return np.mean(a * (sums / np.abs(sums).mean())[:, None, None])


# Each: the scores given the guide, and the same number from NumPy activations, the shift and the guide.
CASES = {
    "energy": (lambda g: [Energy("deep")], lambda a, s, g: np.mean(a["deep"] ** 2)),
    "mean": (lambda g: [Mean("deep")], lambda a, s, g: np.mean(a["deep"])),
    "channels": (lambda g: [Energy("mixed", (3, 1))], lambda a, s, g: np.mean(a["mixed"][[1, 3]] ** 2)),
    "position": (
        lambda g: [Energy("deep", position=PLACE)],
        lambda a, s, g: np.mean(at_place(a["deep"], s) ** 2),
    ),
    "unit": (lambda g: [Mean("deep", (2,), PLACE)], lambda a, s, g: at_place(a["deep"], s)[2]),
    "logit": (lambda g: [Mean("logits", (1,))], lambda a, s, g: a["logits"][1, 0, 0]),
    "match": (lambda g: [Match("deep", guide=g)], lambda a, s, g: best_match(a["deep"], g)),
    "match channels": (
        lambda g: [Match("deep", (0, 4), guide=g)],
        lambda a, s, g: best_match(a["deep"][[0, 4]], g[[0, 4]]),
    ),
    "channel match": (lambda g: [ChannelMatch("deep", guide=g)], lambda a, s, g: channel_match(a["deep"], g)),
    "sum": (
        lambda g: [Mean("deep", weight=2.0), Energy("mixed", weight=-0.5), Mean("logits", (0,), weight=-3.0)],
        lambda a, s, g: 2 * np.mean(a["deep"]) - 0.5 * np.mean(a["mixed"] ** 2) - 3 * a["logits"][0, 0, 0],
    ),
}


def activations_of(hand, image: np.ndarray, shift: tuple[int, int]) -> dict[str, np.ndarray]:
    rolled = torch.from_numpy(np.roll(image, shift, (1, 2)))
    return {name: a[0].numpy() for name, a in hand(rolled[None]).items()}


def finite_differences(function, image: np.ndarray, step: float = 1e-5) -> np.ndarray:
    gradient = np.zeros_like(image)
    for index in np.ndindex(*image.shape):
        nudge = np.zeros_like(image)
        nudge[index] = step
        gradient[index] = (function(image + nudge) - function(image - nudge)) / (2 * step)
    return gradient


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("case", CASES)
def test_score_and_gradient(hand, photo, guide, case, shift):
    scores, restated = CASES[case]
    image = photo(HEIGHT, WIDTH)

    def function(pixels: np.ndarray) -> float:
        return restated(activations_of(hand, pixels, shift), shift, guide.numpy())

    score, gradient = whole_image_gradient(hand, Scoring(tuple(scores(guide))))(image, shift)
    assert score == pytest.approx(function(image.numpy()), rel=1e-12)
    np.testing.assert_allclose(gradient, finite_differences(function, image.numpy()), rtol=1e-5, atol=1e-9)
    assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize("shift", SHIFTS)
def test_balanced(hand, photo, shift):
    """Each term's gradient at unit L2 norm times its weight, however much the terms differ in size."""
    image = photo(HEIGHT, WIDTH)
    scores = (Mean("deep", weight=1e-6), Energy("mixed", weight=-2e-6), Mean("logits", (0,), weight=3e-6))
    terms = (
        lambda a: np.mean(a["deep"]),
        lambda a: np.mean(a["mixed"] ** 2),
        lambda a: a["logits"][0, 0, 0],
    )
    expected, total = np.zeros(image.shape), 0.0
    for score, term in zip(scores, terms, strict=True):
        g = finite_differences(lambda x, term=term: term(activations_of(hand, x, shift)), image.numpy())
        expected += score.weight * g / np.sqrt(np.sum(g**2))
        total += score.weight * term(activations_of(hand, image.numpy(), shift))
    value, gradient = whole_image_gradient(hand, Scoring(scores, balanced=True))(image, shift)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-13)
    assert value == pytest.approx(total, rel=1e-12)


def test_by_algebra(hand, photo):
    """Energy of a linear layer: its gradient is 2 M^T M x / (channels x height x width), whatever the shift."""
    image, matrix = photo(9, 5), hand.matrix.numpy()
    expected = 2 * np.einsum("kc,kd,dhw->chw", matrix, matrix, image.numpy()) / (4 * 9 * 5)
    _, gradient = whole_image_gradient(hand, Scoring((Energy("mixed"),)))(image, (3, 1))
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def test_match_of_pixels_is_the_guided_dream(photo):
    """With pixels as features the gradient is the winner itself, back in the photograph's frame."""
    image, guide = photo(6, 8), torch.randn(3, 11, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x, y = image.numpy().reshape(3, -1), guide.numpy()
    expected = y[:, x.T.dot(y).argmax(1)].reshape(3, 6, 8) / (3 * 6 * 8)
    gradient_of = whole_image_gradient(lambda images: {"pixels": images}, Scoring((Match("pixels", guide=guide),)))
    for shift in SHIFTS:
        np.testing.assert_allclose(gradient_of(image, shift)[1], expected, rtol=1e-13)


def test_a_position_follows_the_photograph(hand, photo):
    """A unit of a layer as large as the image sees one pixel, the same one under every shift."""
    image = photo(10, 8)
    gradient_of = whole_image_gradient(hand, Scoring((Energy("mixed", position=(0.35, 0.8)),)))
    for shift in [(0, 0), (1, 0), (0, 1), (-3, 5), (9, 7), (-32, 32)]:
        score, gradient = gradient_of(image, shift)
        touched = np.argwhere(gradient.abs().sum(0).numpy())
        assert touched.tolist() == [[3, 6]]
        assert score == pytest.approx(np.mean((hand.matrix @ image[:, 3, 6]).numpy() ** 2))


def bound(network, objective, balanced=False):
    target = Target(**objective.settings, balanced=balanced)
    return gradient_fn(network, bind(target, network), Tiles())


@pytest.mark.parametrize("balanced", [False, True])
def test_the_difference_is_the_negative_of_its_reverse(small, photo, balanced):
    a, b = layer("relu1"), 0.3 * layer("residual")
    image = photo(12, 10)
    there, back = (bound(small, o, balanced)(image, (1, 2)) for o in (a - b, b - a))
    assert there[0] == -back[0]
    torch.testing.assert_close(there[1], -back[1], rtol=1e-13, atol=0 if not balanced else 1e-15)
    assert there[1].abs().max() > 0


def test_a_minus_b_is_a_minus_b(small, photo):
    a, b = channel("relu1", 0, 2), 0.3 * layer("residual")
    image = photo(12, 10)
    (sa, ga), (sb, gb), (s, g) = (bound(small, o)(image, (0, 0)) for o in (a, b, a - b))
    assert s == pytest.approx(sa - sb, rel=1e-12)
    torch.testing.assert_close(g, ga - gb)


def test_weights_count_once(small, photo):
    """2 a has exactly twice the score and the gradient of a, alone and in a sum; a power of two does not round."""
    a, b = layer("relu1"), layer("residual")
    image = photo(12, 10)
    for once, twice in ((a, 2 * a), (a + b, 2 * (a + b)), (a + b, (a + b) * 2), (a - b, 2 * a - 2 * b)):
        (score, gradient), (score2, gradient2) = (bound(small, o)(image, (0, 0)) for o in (once, twice))
        assert score2 == 2 * score
        assert torch.equal(gradient2, 2 * gradient)
    score = bound(small, 2 * a + b)(image, (0, 0))[0]
    assert score == pytest.approx(2 * bound(small, a)(image, (0, 0))[0] + bound(small, b)(image, (0, 0))[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (8, 8), (20, 5)])
@pytest.mark.parametrize("side", [1, 2, 8])
def test_repeat_up_to_is_numpys(photo, size, side):
    image = photo(*size)
    if min(size) >= side:
        assert repeat_up_to(image, side) is image
        return
    height, width = max(size[0], side), max(size[1], side)
    tiled = np.tile(image.numpy(), (1, -(-height // size[0]), -(-width // size[1])))[:, :height, :width]
    np.testing.assert_array_equal(repeat_up_to(image, side), tiled)


class Names(TorchDispatchMode):
    """The names of PyTorch's operations, as they are called."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.append(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


def test_no_threads_race_for_the_gradient_of_what_is_repeated():
    """Where threads add to one pixel as it happens, as in the gradient of an index, sums round as it happens."""
    image = torch.zeros(3, 64, 70).requires_grad_(True)
    repeated = repeat_up_to(image, 224)
    with Names() as names:
        (gradient,) = torch.autograd.grad(repeated, image, torch.ones(3, 224, 224))
    assert names.found
    assert not [name for name in names.found if "index" in name or "scatter" in name]
    assert gradient[0, ::63, ::69].tolist() == [[4 * 4, 4 * 3], [3 * 4, 3 * 3]]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2)])
def test_an_image_smaller_than_the_network_sees(hand, photo, size):
    """It is repeated, and a pixel gets the gradient of all its copies."""
    image, shift = photo(*size), (1, -1)

    def function(pixels: np.ndarray) -> float:
        rolled = np.roll(pixels, shift, (1, 2))
        height, width = max(size[0], 6), max(size[1], 6)
        repeated = np.pad(rolled, ((0, 0), (0, height - size[0]), (0, width - size[1])), mode="wrap")
        return np.mean(hand(torch.from_numpy(repeated)[None])["deep"][0].numpy() ** 2)

    score, gradient = whole_image_gradient(hand, Scoring((Energy("deep"),)), min_side=6)(image, shift)
    assert gradient.shape == image.shape
    assert score == pytest.approx(function(image.numpy()), rel=1e-12)
    np.testing.assert_allclose(gradient, finite_differences(function, image.numpy()), rtol=1e-5, atol=1e-9)


def test_the_image_is_left_alone(hand, photo):
    image = photo(6, 6)
    score, gradient = whole_image_gradient(hand, Scoring((Energy("deep"),)))(image, (1, 1))
    assert isinstance(score, float)
    assert not image.requires_grad
    assert not gradient.requires_grad
    assert image.grad is None
    assert torch.equal(image, photo(6, 6))
