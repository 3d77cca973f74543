"""What is said of numbers whose meaning is plain."""

from itertools import product

import pytest

from phosphene.studies.measure.claims import REPORTED, Finding, coarseness, corrected, findings, judged, sign_flip_test
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


def by_photograph(*differences):
    return {(f"photograph {number}", "x", 0): difference for number, difference in enumerate(differences)}


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
def test_a_verdict_needs_cases_that_agree(differences, verdict):
    found = judged("a sentence", "px", by_photograph(*differences))
    assert found.verdict == verdict
    assert found.cases == len(differences)
    assert found.agreeing == sum(difference > 0 for difference in differences)


def test_seeds_are_no_cases_and_ranges_are_of_means():
    values = {("a", "x", 0): 1.0, ("a", "x", 1): 2.0, ("a", "y", 0): 3.0, ("a", "y", 1): 6.0, ("b", "x", 0): 7.0}
    found = judged("a sentence", "px", values)
    assert (found.cases, found.agreeing) == (3, 3)
    assert found.effect == pytest.approx((1.5 + 4.5 + 7) / 3)
    assert found.over_photographs == (3.0, 7.0)
    assert found.over_seeds == pytest.approx((11 / 3, 4.0))


def test_trained_networks_are_compared_with_their_untrained_selves():
    rows = [
        row(photograph=photograph, model=model, weights=weights, strength=base + (weights == "pretrained"), ssim=None)
        for photograph, model, weights, base in product("ab", ("x", "y", "z"), ("pretrained", "untrained"), (1.0,))
    ]
    rows.append(row(photograph="a", model="alone", strength=9.0))
    found = findings(rows)[0]
    assert (found.cases, found.effect, found.over_photographs) == (6, 1.0, (1.0, 1.0))
    assert found.p == pytest.approx(2 / 2**6)


def test_p_is_corrected_for_the_number_of_sentences():
    """The numbers of R's p.adjust(c(0.04, 0.01, 0.03, 0.02, 0.05, 0.9), "holm"), of which one was not tested."""
    found = [Finding(str(p), "", p=p, cases=1) for p in (0.04, 0.01, None, 0.03, 0.02, 0.05, 0.9)]
    expected = [0.12, 0.06, None, 0.12, 0.1, 0.12, 0.9]
    assert [each.corrected for each in corrected(found)] == [e if e is None else pytest.approx(e) for e in expected]


def test_ties_are_corrected_alike_and_nothing_beyond_one():
    found = [Finding(str(k), "", p=p, cases=1) for k, p in enumerate((0.01, 0.01, 0.6, 0.7))]
    assert [each.corrected for each in corrected(found)] == pytest.approx([0.04, 0.04, 1, 1])


def test_what_holds_alone_may_not_hold_among_many():
    """Six cases that agree have p = 1/32: enough for one sentence, and not for one of two."""
    rows = [
        row(photograph=p, model=m, weights=w, strength=1.0 + (w == "pretrained"), colour_shift=shift)
        for p, m, w in product("ab", "xyz", ("pretrained", "untrained"))
        for shift in [5.0 if w == "pretrained" and m != "x" else 4.0]
    ]
    alone = findings([{**each, "colour_shift": None} for each in rows])[0]
    among = findings(rows)[0]
    assert (alone.p, alone.verdict) == (1 / 32, "holds")
    assert (among.p, among.corrected, among.verdict) == (1 / 32, 2 / 32, "cannot be told from chance")


def test_a_cell_that_failed_leaves_the_others_to_be_judged():
    """A seed of one network is missing: that photograph and seed are left out, for all."""
    values = {"keras/inception_v3": 3.0, "vgg19": 1.0, "efficientnet_lite0": 2.5}
    rows = [
        row(photograph=photograph, model=model, seed=seed, strength=value + seed)
        for photograph, (model, value), seed in product("abc", values.items(), (0, 1))
        if (photograph, model, seed) != ("a", "vgg19", 1)
    ]
    found = next(each for each in findings(rows) if each.sentence.startswith("InceptionV3"))
    assert (found.cases, found.effect) == (3, 0.5)


@pytest.mark.parametrize(("photographs", "verdict"), [("a", "too few to tell"), ("abc", "holds")])
def test_the_report_is_judged_by_in_how_many_photographs_a_network_is_ahead_of_all(photographs, verdict):
    values = {"keras/inception_v3": 3.0, "vgg19": 1.0, "efficientnet_lite0": 2.5}
    rows = [
        row(photograph=p, seed=s, model=m, strength=v) for p in photographs for s in (0, 1) for m, v in values.items()
    ]
    obvious, unique = findings(rows)[-2:]
    assert obvious.sentence.startswith(REPORTED[0][0])
    assert (obvious.cases, obvious.effect, obvious.verdict) == (len(photographs), 0.5, verdict)
    assert obvious.p == pytest.approx((1 / 3) ** len(photographs))
    assert unique.verdict == "cannot be tested"


def test_one_photograph_in_which_another_network_is_ahead_leaves_it_open():
    rows = [
        row(photograph=p, model=m, strength=1.0 + (m == "inception_v3")) for p in "abc" for m in ("inception_v3", "x")
    ]
    rows[-1]["strength"] = 5.0
    obvious = findings(rows)[-2]
    assert (obvious.agreeing, obvious.cases) == (2, 3)
    assert obvious.p == pytest.approx(0.5)
    assert obvious.verdict == "too few to tell"


def test_untrained_networks_are_asked_among_themselves_and_only_where_there_are_some():
    rows = [
        row(photograph=p, model=m, strength=1.0 + (m == "inception_v3"))
        for p in "abc"
        for m in ("inception_v3", "x", "y")
    ]
    assert len(findings([{**each, "weights": "untrained"} for each in rows])) == len(findings(rows)) + 1
    last = findings([{**each, "weights": "untrained"} for each in rows])[-1]
    assert "untrained" in last.sentence
    assert (last.agreeing, last.verdict) == (3, "holds")


def test_networks_are_held_against_their_own_seeds():
    rows = [row(photograph=p, model=m, uniqueness_features=2.0, seeds_features=0.5) for p in "ab" for m in "xyz"]
    found = next(each for each in findings(rows) if "other seeds" in each.sentence)
    assert (found.cases, found.effect, found.verdict) == (6, 1.5, "holds")


def test_depth_is_a_rank_correlation_with_coarseness():
    def at(band, **values):
        return row(grid="depth", **{f"strength_band_{band}": 1.0}, **values)

    rows = [at(b, column=f"{b}", model=m, photograph=p) for m, p, b in product("xyz", "ab", (1, 2, 4))]
    found = next(each for each in findings(rows) if each.sentence.startswith("Deeper"))
    assert (found.cases, found.verdict) == (6, "holds")
    assert found.effect == pytest.approx(1)
    assert coarseness(rows[2]) == 4
