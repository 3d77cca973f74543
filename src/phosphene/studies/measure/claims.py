"""What the numbers say of the report's two sentences, for one photograph, and no more than that.

The report judged by eye: "the Inception V3 model revealed more obvious visual patterns than the others" and "the ResNet
model produced the unique random shapes among them" (its section 1.2), of trained networks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from phosphene.studies.measure.table import Row
from phosphene.studies.study import Study


@dataclass(frozen=True)
class Claim:
    """A sentence of the report, the network it is about, and the measure that can tell."""

    sentence: str
    model: str
    column: str


CLAIMS = (
    Claim("InceptionV3’s patterns are the most obvious.", "inception_v3", "strength"),
    Claim("ResNet’s shapes are the most unique.", "resnet50", "uniqueness_features"),
)


@dataclass(frozen=True)
class Standing:
    """A network's value of a measure: mean, least and largest over the seeds."""

    row: str
    model: str
    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class Finding:
    """What the numbers say of a claim in one experiment; `standings` go from the largest mean down."""

    claim: Claim
    experiment: str
    standings: tuple[Standing, ...]
    verdict: str


def findings(study: Study, rows: Sequence[Row], weights: str) -> list[Finding]:
    """Judge each claim in each experiment, for networks with these weights (pretrained or untrained)."""
    found = []
    for claim in CLAIMS:
        for experiment in study.grids[0].columns:
            there = [r for r in rows if (r["grid"], r["column"], r["weights"]) == ("experiments", experiment, weights)]
            standings = sorted(_standings(there, claim.column), key=lambda s: -s.mean)
            found.append(Finding(claim, experiment, tuple(standings), verdict(claim, standings)))
    return found


def verdict(claim: Claim, standings: Sequence[Standing]) -> str:
    """Say in half a sentence whether the claimed network is ahead of the others, and whether for every seed."""
    ours = next((standing for standing in standings if standing.model == claim.model), None)
    others = [standing for standing in standings if standing.model != claim.model]
    if ours is None or not others:
        return "cannot be tested"
    rival = max(others, key=lambda standing: standing.mean)
    if ours.least > max(other.most for other in others):
        return "holds, for every seed"
    if ours.mean > rival.mean:
        nearest = max(others, key=lambda standing: standing.most)
        return f"holds in the mean, but seeds overlap with {nearest.model}"
    if rival.least > ours.most:
        return f"does not hold: {rival.model} is ahead, for every seed"
    return f"does not hold in the mean: {rival.model} is ahead, but seeds overlap"


def _standings(rows: Iterable[Row], column: str) -> list[Standing]:
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row[column] is not None:
            values.setdefault((row["row"], row["model"]), []).append(row[column])
    return [Standing(*names, sum(v) / len(v), min(v), max(v)) for names, v in values.items()]
