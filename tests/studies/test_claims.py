"""Verdicts from numbers whose meaning is plain."""

import pytest

from phosphene.studies.measure.claims import CLAIMS, Standing, verdict

OBVIOUS = CLAIMS[0]


def standings(**ranges):
    found = [Standing(model, model, (least + most) / 2, least, most) for model, (least, most) in ranges.items()]
    return sorted(found, key=lambda standing: -standing.mean)


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ((3, 4), (1, 2), "holds, for every seed"),
        ((2, 5), (1, 3), "holds in the mean, but seeds overlap with vgg19"),
        ((1, 3), (2, 5), "does not hold in the mean: vgg19 is ahead, but seeds overlap"),
        ((1, 2), (3, 4), "does not hold: vgg19 is ahead, for every seed"),
    ],
)
def test_a_verdict_says_what_the_ranges_say(ours, theirs, said):
    assert verdict(OBVIOUS, standings(inception_v3=ours, vgg19=theirs, resnet50=(0, 0.5))) == said


def test_a_claim_needs_its_network_and_another():
    assert verdict(OBVIOUS, standings(vgg19=(1, 2), resnet50=(1, 2))) == "cannot be tested"
    assert verdict(OBVIOUS, standings(inception_v3=(1, 2))) == "cannot be tested"


def test_a_third_network_that_overlaps_is_the_one_that_is_named():
    standing = standings(inception_v3=(3, 4), vgg19=(2, 2.5), resnet50=(0, 3.5))
    assert verdict(OBVIOUS, standing) == "holds in the mean, but seeds overlap with resnet50"
