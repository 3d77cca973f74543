"""Scores of activations, against NumPy and the formulas that they come from."""

import pickle

import numpy as np
import pytest
import torch

from phosphene.dreaming.objective import ChannelMatch, Energy, Match, Mean, Score, Scoring, View

CHANNELS, ROWS, COLUMNS = 6, 7, 9


@pytest.fixture
def activation():
    rng = torch.Generator().manual_seed(11)
    return torch.randn(1, CHANNELS, ROWS, COLUMNS, generator=rng, dtype=torch.float64)


@pytest.fixture
def guide():
    rng = torch.Generator().manual_seed(12)
    return torch.randn(CHANNELS, 35, generator=rng, dtype=torch.float64)


def view(**changes):
    return View((ROWS, COLUMNS), **changes)


def value_and_gradient(score, activation):
    leaf = activation.clone().requires_grad_(True)
    everything, own = score(leaf, view())
    assert everything.item() == own.item()
    return everything.item(), torch.autograd.grad(everything, leaf)[0][0].numpy()


def test_energy_and_its_gradient_by_algebra(activation):
    a = activation[0].numpy()
    value, gradient = value_and_gradient(Energy("x"), activation)
    assert value == pytest.approx(np.mean(a**2), rel=1e-14)
    np.testing.assert_allclose(gradient, 2 * a / a.size, rtol=1e-14)


def test_mean_and_its_gradient_by_algebra(activation):
    a = activation[0].numpy()
    value, gradient = value_and_gradient(Mean("x"), activation)
    assert value == pytest.approx(np.mean(a), rel=1e-14)
    np.testing.assert_allclose(gradient, 1 / a.size, rtol=1e-14)


def test_channels_are_averaged_over_themselves_alone(activation):
    a = activation[0].numpy()
    value, gradient = value_and_gradient(Energy("x", channels=(4, 1)), activation)
    assert value == pytest.approx(np.mean(a[[1, 4]] ** 2), rel=1e-14)
    assert np.flatnonzero(np.abs(gradient).max((1, 2))).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("position", "unit"),
    [((0.0, 0.0), (0, 0)), ((1.0, 1.0), (6, 8)), ((0.5, 0.25), (3, 2)), ((0.99, 0.12), (6, 1))],
)
def test_a_position_is_a_fraction_of_height_and_width(activation, position, unit):
    a = activation[0].numpy()[[2, 3]]
    value, gradient = value_and_gradient(Mean("x", (2, 3), position), activation)
    assert value == pytest.approx(a[:, unit[0], unit[1]].mean(), rel=1e-14)
    assert np.argwhere(gradient).tolist() == [[2, *unit], [3, *unit]]


def test_a_position_rolls_with_the_image(activation):
    """The image went half its height down and a third to the right: so did the place."""
    score = Mean("x", position=(0.75, 0.9))
    everything, _ = score(activation, view(shift=(0.5, 1 / 3)))
    row, column = int(((0.75 + 0.5) % 1) * ROWS), int(((0.9 + 1 / 3) % 1) * COLUMNS)
    assert everything.item() == pytest.approx(activation[0, :, row, column].mean().item())


def deepdream_guide_gradient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Google's notebook of 2015: at each position the guide's feature with the largest dot product."""
    channels = x.shape[0]
    matches = x.reshape(channels, -1).T.dot(y)
    return y[:, matches.argmax(1)].reshape(x.shape)


@pytest.mark.parametrize("channels", [(), (0, 2, 5)])
def test_match_is_the_guided_dream(activation, guide, channels):
    chosen = list(channels) or list(range(CHANNELS))
    a, g = activation[0].numpy()[chosen], guide.numpy()[chosen]
    winner = deepdream_guide_gradient(a, g)
    value, gradient = value_and_gradient(Match("x", channels, guide=guide), activation)
    np.testing.assert_allclose(gradient[chosen], winner / a.size, rtol=1e-13)
    assert not gradient[[c for c in range(CHANNELS) if c not in chosen]].any()
    best = [max(float(v @ g[:, j]) for j in range(g.shape[1])) for v in a.reshape(len(chosen), -1).T]
    assert value == pytest.approx(np.mean(best) / len(chosen), rel=1e-13)


def test_match_of_more_positions_than_a_chunk(guide):
    rng = torch.Generator().manual_seed(13)
    a = torch.randn(1, CHANNELS, 40, 70, generator=rng, dtype=torch.float64)
    leaf = a.clone().requires_grad_(True)
    everything, _ = Match("x", guide=guide)(leaf, View((40, 70)))
    gradient = torch.autograd.grad(everything, leaf)[0][0].numpy()
    expected = deepdream_guide_gradient(a[0].numpy(), guide.numpy()) / a.numel()
    np.testing.assert_allclose(gradient, expected, rtol=1e-13)


@pytest.mark.parametrize("channels", [(), (0, 2, 5)])
def test_channel_match_weighs_channels_as_the_guide_does(activation, guide, channels):
    chosen = list(channels) or list(range(CHANNELS))
    sums = guide.numpy()[chosen].sum(1)
    weights = sums / np.abs(sums).sum() * len(chosen)
    a = activation[0].numpy()[chosen]
    value, gradient = value_and_gradient(ChannelMatch("x", channels, guide=guide), activation)
    assert value == pytest.approx(np.mean(weights[:, None, None] * a), rel=1e-13)
    expected = np.broadcast_to(weights[:, None, None] / a.size, a.shape)
    np.testing.assert_allclose(gradient[chosen], expected, rtol=1e-13)


@pytest.mark.parametrize("kind", [Match, ChannelMatch])
def test_a_guided_score_needs_its_guide(activation, kind):
    with pytest.raises(TypeError, match="guide"):
        kind("x")(activation, view())


SCORES = [
    Energy("x"),
    Mean("x", (1, 3)),
    Energy("x", position=(0.4, 0.7)),
    Match("x"),
    ChannelMatch("x"),
]


@pytest.mark.parametrize("score", SCORES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.6)])
def test_the_views_of_a_partition_add_up(activation, guide, score, shift):
    if isinstance(score, Match | ChannelMatch):
        score = type(score)("x", guide=guide)
    whole = score(activation, view(shift=shift))[0]
    parts = []
    for top, bottom in ((0, 3), (3, 7)):
        for left, right in ((0, 4), (4, 9)):
            # Each view reaches a unit beyond what is its own, as windows with a halo do.
            start = (max(0, top - 1), max(0, left - 1))
            seen = activation[:, :, start[0] : bottom + 1, start[1] : right + 1]
            mine = view(
                origin=start,
                rows=(top - start[0], bottom - start[0]),
                columns=(left - start[1], right - start[1]),
                shift=shift,
            )
            parts.append(score(seen, mine)[1])
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-12)


def test_scores_print_compare_and_pickle(guide):
    assert Energy("a", (1,), (0.5, 0.5), -2.0) == Energy("a", (1,), (0.5, 0.5), -2.0)
    assert Energy("a") != Mean("a")
    assert "layer='a'" in repr(Energy("a"))
    assert pickle.loads(pickle.dumps(Energy("a", (1,)))) == Energy("a", (1,))
    match = pickle.loads(pickle.dumps(Match("a", guide=guide)))
    assert torch.equal(match.guide, guide)


def test_the_base_scores_nothing():
    with pytest.raises(TypeError, match="abstract"):
        Score("x")


def test_layers_come_once_and_in_order():
    assert Scoring((Mean("b"), Energy("a"), Mean("b", (1,)))).layers == ("b", "a")


def test_a_plain_sum_is_one_gradient_and_balanced_one_each(activation):
    scores = (Mean("x", weight=2.0), Energy("x", weight=-3.0))
    a = activation[0].numpy()
    expected = [2 * np.mean(a), -3 * np.mean(a**2)]
    for balanced, targets in ((False, [sum(expected)]), (True, expected)):
        ours, own = Scoring(scores, balanced)({"x": activation}, {"x": view()})
        assert [t.item() for t in ours] == pytest.approx(targets)
        assert [s.item() for s in own] == pytest.approx(expected)


def test_balanced_gradients_have_the_norm_of_their_weights(photo):
    gradients = torch.stack([photo(5, 4, seed=s) * 10.0**s for s in (1, 2, 3)])
    scoring = Scoring((Mean("a", weight=0.5), Mean("b", weight=-2.0), Mean("c", weight=0.0)), balanced=True)
    a, b, _ = gradients.numpy()
    # The sign of a weight is in its term's gradient already.
    expected = 0.5 * a / np.sqrt(np.sum(a**2)) + 2.0 * b / np.sqrt(np.sum(b**2))
    np.testing.assert_allclose(scoring.combine(gradients), expected, rtol=1e-13)


def test_a_balanced_gradient_of_zero_stays_zero():
    scoring = Scoring((Mean("a"), Mean("b")), balanced=True)
    assert torch.equal(scoring.combine(torch.zeros(2, 3, 4, 4)), torch.zeros(3, 4, 4))
