"""The steps of one octave: against the tutorial's loop, and property by property."""

import weakref

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
import torch

from phosphene.dreaming.ascent import ascend, draw_shift
from phosphene.dreaming.gradient import check_finite
from phosphene.dreaming.objective import Mean, Scoring
from phosphene.dreaming.stages import whole_image_gradient
from phosphene.errors import NonFiniteGradientError
from phosphene.recipe.settings import Ascent


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tutorial(network, layers, x, steps, step_size):
    """The loop of TensorFlow's and Keras's tutorials, on pixels of -1..1."""
    scores = []
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        activations = network(x[None])
        loss = sum(activations[name].mean() for name in layers)
        loss.backward()
        g = x.grad.numpy()
        g = g / (np.std(g) + 1e-8)
        x = torch.from_numpy(np.clip(x.detach().numpy() + step_size * g, -1, 1))
        scores.append(loss.item())
    return scores, x


@pytest.mark.parametrize("layers", [("deep",), ("mixed", "deep")])
def test_an_octave_is_the_tutorials(hand, photo, layers):
    def network(pixels):
        return hand(2 * pixels - 1)

    image = photo(21, 34)
    scores, expected = tutorial(hand, layers, 2 * image - 1, 25, 0.02)
    gradient_of = whole_image_gradient(network, Scoring(tuple(map(Mean, layers))))
    settings = Ascent(steps=25, step_size=0.01, norm="std", jitter=0)
    ours = list(ascend(image, gradient_of, settings, rng()))
    # The tutorial's 1e-8 is not ours: with a deviation of 1e-3 it shifts a pixel by 1e-5 of a step.
    torch.testing.assert_close(ours[-1][1], (expected + 1) / 2, rtol=0, atol=1e-5)
    np.testing.assert_allclose([score for score, _ in ours], scores, rtol=1e-4)
    moved = (ours[-1][1] - image).abs()
    assert moved.mean() > 0.05
    assert (ours[-1][1] == 1).any()


def constant(gradient: torch.Tensor):
    return lambda image, shift: (1.0, gradient)


@pytest.mark.parametrize("norm", ["mean_abs", "std", "laplacian"])
def test_a_zero_gradient_changes_no_bit(photo, norm):
    image = photo(9, 6, torch.float32)
    settings = Ascent(steps=3, norm=norm, blur=1.0)
    results = [result for _, result in ascend(image, constant(torch.zeros_like(image)), settings, rng())]
    assert len(results) == 3
    assert all(torch.equal(result, image) for result in results)


def test_a_step_is_the_step_size_on_average(photo):
    image = photo(40, 30) * 0.2 + 0.4
    gradient = photo(40, 30, seed=1) - 0.5
    settings = Ascent(steps=1, step_size=0.02, norm="mean_abs", jitter=0)
    ((score, result),) = ascend(image, constant(gradient), settings, rng())
    expected = image.numpy() + 0.02 * gradient.numpy() / np.abs(gradient.numpy()).mean()
    np.testing.assert_allclose(result, expected, atol=1e-14)
    assert score == 1.0


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(step_size=st.floats(0.01, 1), sign=st.sampled_from([-1, 1]))
def test_the_clamp_clamps(photo, step_size, sign):
    image = photo(8, 9, torch.float32)
    settings = Ascent(steps=30, step_size=step_size, norm="mean_abs")
    for _, result in ascend(image, constant(torch.full_like(image, sign)), settings, rng()):
        assert result.min() >= 0
        assert result.max() <= 1
        image = result


def test_what_was_clamped_is_lost(photo):
    """A step beyond 1 starts the next one at 1: the clamped image is the one that goes on."""
    image = photo(8, 9) * 0.1 + 0.9
    up = iter([torch.ones_like(image), -torch.ones_like(image)])
    settings = Ascent(steps=2, step_size=0.5, norm="mean_abs", jitter=0)
    *_, (_, last) = ascend(image, lambda image, shift: (0.0, next(up)), settings, rng())
    torch.testing.assert_close(last, torch.full_like(image, 0.5))


def test_the_mask_scales_the_step(photo):
    image, gradient = photo(12, 10) * 0.2 + 0.4, photo(12, 10, seed=1) - 0.5
    mask = torch.ones(12, 10, dtype=torch.float64)
    mask[:4], mask[4:8] = 0, 0.5
    settings = Ascent(steps=1, step_size=0.05, jitter=0)
    ((_, free),) = ascend(image, constant(gradient), settings, rng())
    ((_, masked),) = ascend(image, constant(gradient), settings, rng(), mask)
    assert torch.equal(masked[:, :4], image[:, :4])
    torch.testing.assert_close(masked[:, 4:8] - image[:, 4:8], (free - image)[:, 4:8] / 2)
    assert torch.equal(masked[:, 8:], free[:, 8:])
    assert (free - image).abs().min() > 0


def test_a_masked_out_pixel_stays_for_good(hand, photo):
    image, mask = photo(12, 10), torch.ones(12, 10, dtype=torch.float64)
    mask[3:7, 2:5] = 0
    gradient_of = whole_image_gradient(hand, Scoring((Mean("deep"),)))
    *_, (_, last) = ascend(image, gradient_of, Ascent(steps=10), rng(), mask)
    assert torch.equal(last[:, 3:7, 2:5], image[:, 3:7, 2:5])


def test_the_blur_smooths_the_gradient(photo):
    image = torch.full((3, 15, 15), 0.5, dtype=torch.float64)
    gradient = torch.zeros_like(image)
    gradient[:, 7, 7] = 1
    settings = Ascent(steps=1, step_size=0.001, norm="mean_abs", blur=1.5, jitter=0)
    ((_, result),) = ascend(image, constant(gradient), settings, rng())
    moved = (result - image)[0].numpy()
    at = np.exp(-(np.arange(-4, 5) ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(moved[3:12, 3:12] / moved[7, 7], np.outer(at, at), atol=1e-9)


@pytest.mark.parametrize("jitter", [0, 1, 2])
def test_jitter_is_uniform_in_both_directions(jitter):
    generator, draws = rng(5), 4000
    side = 2 * jitter + 1
    counts = np.zeros((side, side), int)
    for _ in range(draws):
        down, right = draw_shift(generator, jitter)
        counts[down + jitter, right + jitter] += 1
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3 if jitter else counts.item() == draws


def test_jitter_comes_from_its_generator_alone():
    def shifts(seed: int) -> list[tuple[int, int]]:
        seen = []

        def gradient_of(image, shift):
            seen.append(shift)
            return 0.0, torch.zeros_like(image)

        list(ascend(torch.zeros(3, 2, 2), gradient_of, Ascent(steps=20, jitter=32), rng(seed)))
        return seen

    torch.manual_seed(1)
    first, before = shifts(0), torch.get_rng_state()
    torch.manual_seed(2)
    assert shifts(0) == first
    assert shifts(1) != first
    assert len(set(first)) > 15
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_bits(hand, photo):
    gradient_of = whole_image_gradient(hand, Scoring((Mean("deep"),)))

    def dream(seed: int) -> torch.Tensor:
        return list(ascend(photo(20, 17, torch.float32), gradient_of, Ascent(steps=5), rng(seed)))[-1][1]

    assert torch.equal(dream(3), dream(3))
    assert not torch.equal(dream(3), dream(4))


def test_a_network_of_nan_is_an_error_that_names_the_layer(hand, photo):
    def broken(images):
        activations = dict(hand(images))
        activations["deep"] = activations["deep"] * float("nan")
        return activations

    gradient_of = whole_image_gradient(broken, Scoring((Mean("mixed"), Mean("deep"))))
    with pytest.raises(NonFiniteGradientError, match="deep") as caught:
        list(ascend(photo(8, 8), gradient_of, Ascent(steps=1), rng()))
    assert "mixed" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_an_infinite_gradient_is_an_error_too(photo):
    def steep(images):
        return {"root": (images - images.detach()).abs().pow(0.5)}

    gradient_of = whole_image_gradient(steep, Scoring((Mean("root"),)))
    with pytest.raises(NonFiniteGradientError, match="root"):
        list(ascend(photo(8, 8), gradient_of, Ascent(steps=1), rng()))


def test_numbers_whose_sum_is_infinite_are_finite():
    scoring, gradient = Scoring((Mean("deep"),)), torch.full((3, 64, 64), 1e38)
    check_finite(scoring, torch.zeros(1), gradient)
    gradient[0, 0, :2] = torch.tensor([torch.inf, -torch.inf])
    with pytest.raises(NonFiniteGradientError, match="deep"):
        check_finite(scoring, torch.zeros(1), gradient)


def test_the_image_given_is_not_written_to(hand, photo):
    image = photo(10, 10)
    list(ascend(image, whole_image_gradient(hand, Scoring((Mean("deep"),))), Ascent(steps=2), rng()))
    assert torch.equal(image, photo(10, 10))


def test_a_gradient_is_gone_before_the_next_one_is_computed():
    alive = []

    def gradient_of(image, shift):
        assert not any(reference() is not None for reference in alive)
        gradient = torch.ones_like(image)
        alive.append(weakref.ref(gradient))
        return 0.0, gradient

    steps = ascend(torch.rand(3, 8, 8), gradient_of, Ascent(steps=3, norm="mean_abs"), torch.Generator())
    assert len(list(steps)) == len(alive) == 3
