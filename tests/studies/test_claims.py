"""What is said of numbers whose meaning is plain."""

from itertools import product

import pytest

from phosphene.studies.measure.claims import REPORTED, coarseness, findings, judged, sign_flip_test
from phosphene.studies.measure.measures import BANDS
from phosphene.studies.measure.table import COLUMNS


def row(**values):
    usual = {"photograph": "coffee", "grid": "experiments", "column": "octaves", "seed": 0, "weights": "pretrained"}
    bands = {f"strength_band_{band}": 0.0 for band in range(1, BANDS + 1)}
    return dict.fromkeys(COLUMNS) | usual | bands | values


def test_the_p_value_counts_the_flips_of_signs_that_are_as_extreme():
    differences = [0.3, 1.2, -0.4, 0.9, 0.7, 0.2]
    mean = abs(sum(differences))
    flips = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((1, -1), repeat=6)]
    wanted = sum(flip >= mean - 1e-12 for flip in flips) / len(flips)
    assert sign_flip_test(differences) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([], "cannot be tested"),
        ([1.0], "too few to tell"),
        ([1.0] * 5, "too few to tell"),
        ([1.0, 2.0, 1.5, 1.0, 0.5, 1.0], "holds"),
        ([-1.0, -2.0, -1.5, -1.0, -0.5, -1.0], "does not hold: the opposite does"),
        ([1.0, -2.0, 1.5, -1.0, 0.5, -0.2], "cannot be told from chance"),
    ],
)
def test_a_verdict_needs_pairs_that_agree(differences, verdict):
    found = judged("a sentence", "px", differences)
    assert found.verdict == verdict
    assert found.pairs == len(differences)
    assert found.agreeing == sum(difference > 0 for difference in differences)


def test_trained_networks_are_compared_with_their_untrained_selves():
    rows = [
        row(photograph=photograph, model=model, weights=weights, strength=base + (weights == "pretrained"), ssim=None)
        for photograph, model, weights, base in product("ab", ("x", "y", "z"), ("pretrained", "untrained"), (1.0,))
    ]
    rows.append(row(photograph="a", model="alone", strength=9.0))
    found = findings(rows)[0]
    assert (found.pairs, found.effect, found.least, found.most) == (6, 1.0, 1.0, 1.0)
    assert found.p == pytest.approx(2 / 2**6)


def test_the_report_is_judged_by_its_networks_and_their_best_rival():
    values = {"keras/inception_v3": 3.0, "vgg19": 1.0, "efficientnet_lite0": 2.5}
    rows = [row(seed=s, model=m, strength=v, uniqueness_features=None) for s in range(6) for m, v in values.items()]
    obvious, unique = findings(rows)[-2:]
    assert obvious.sentence.startswith(REPORTED[0][0])
    assert (obvious.pairs, obvious.effect, obvious.verdict) == (6, 0.5, "holds")
    assert unique.verdict == "cannot be tested"


def test_depth_is_a_rank_correlation_with_coarseness():
    def at(band, **values):
        return row(grid="depth", **{f"strength_band_{band}": 1.0}, **values)

    rows = [at(b, column=f"{b}", model=m, photograph=p) for m, p, b in product("xyz", "ab", (1, 2, 4))]
    found = next(each for each in findings(rows) if each.sentence.startswith("Deeper"))
    assert (found.pairs, found.verdict) == (6, "holds")
    assert found.effect == pytest.approx(1)
    assert coarseness(rows[2]) == 4
