"""What a table of measures says: effects, how they vary over photographs and seeds, and tests that are fit for so few.

Dreams of one photograph by one network at other seeds are alike, so a value is a mean over seeds; what is counted are
photographs, and networks within them. A difference is tested by a sign-flip permutation test, exact and without an
assumption on the numbers' distribution (Fisher, The Design of Experiments, 1935): with n differences p is 2 / 2**n at
least. That one network is ahead of all others is tested by in how many photographs it is: by chance each of k networks
is in one of k (a binomial test). Where even full agreement would not reach 0.05, there is too little to tell. Of many
sentences some would seem to hold by chance, so p is corrected for how many are tested at once (S. Holm, A simple
sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import mean
from typing import Any

from phosphene.studies.measure.measures import BANDS, MEASURES
from phosphene.studies.measure.table import Row

ENOUGH = 0.05
"""A corrected p-value below which we say that an effect is there."""

Key = tuple[Any, ...]
"""Photograph, network and seed."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Finding:
    """A sentence, and what speaks for it.

    `effect` is a mean difference, positive where the sentence holds; `over_photographs` and `over_seeds` are the least
    and the largest of its means for one photograph, and for one seed. In `agreeing` of `cases` it is as said. `p` is
    None where there is no case, and at least `least_p` for so many; `corrected` is p for all sentences tested at once.
    """

    sentence: str
    unit: str
    cases: int = 0
    effect: float = 0.0
    over_photographs: Range = (0.0, 0.0)
    over_seeds: Range = (0.0, 0.0)
    agreeing: int = 0
    p: float | None = None
    least_p: float = 1.0
    corrected: float | None = None

    @property
    def verdict(self) -> str:
        """What the numbers say, in a few words."""
        if self.corrected is None:
            return "cannot be tested"
        if self.corrected >= ENOUGH:
            return "too few to tell" if self.least_p >= ENOUGH else "cannot be told from chance"
        return "holds" if self.effect > 0 else "does not hold: the opposite does"


@dataclass(frozen=True)
class Claim:
    """A sentence on training, the measure that can tell, and whether more or less of it speaks for the sentence."""

    sentence: str
    column: str
    sign: int = 1


TRAINING = (
    Claim("Training makes patterns stronger at equal change", "strength"),
    Claim("Training makes networks’ dreams more unlike each other", "uniqueness_features"),
    Claim("Training leaves less of the photograph’s structure", "ssim", -1),
    Claim("Training shifts colours more", "colour_shift"),
)

REPORTED = (
    ("InceptionV3’s patterns are the most obvious", "inception_v3", "strength"),
    ("ResNet’s shapes are the most unique", "resnet50", "uniqueness_features"),
)
"""What the report said of trained networks, judged by eye (its section 1.2): sentence, network, and what can tell."""


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Judge what there are cases for: training, depth, what networks share with their seeds, the report's sentences."""
    good = [row for row in rows if row["failure"] is None]
    first = _first_experiment([row for row in good if row["grid"] == "experiments"])
    return corrected(
        [
            *(_of_training(claim, first) for claim in TRAINING),
            _of_seeds(first),
            _of_depth([row for row in good if row["grid"] == "depth"]),
            *(_of_report(*said, "pretrained", first) for said in REPORTED),
            *(found for said in REPORTED if (found := _of_report(*said, "untrained", first)).cases),
        ]
    )


def corrected(found: Sequence[Finding]) -> list[Finding]:
    """Correct the p-values of sentences that are tested at once, by Holm's method: the k-th least of n by n - k + 1."""
    ranked = sorted(each.p for each in found if each.p is not None)
    raised = accumulate((min(1.0, p * (len(ranked) - rank)) for rank, p in enumerate(ranked)), max)
    known = dict(zip(ranked, raised, strict=True))
    return [each if each.p is None else replace(each, corrected=known[each.p]) for each in found]


def judged(sentence: str, unit: str, differences: Mapping[Key, float]) -> Finding:
    """Judge a sentence by differences, by photograph, network and seed, that are positive where it holds.

    Its p is not corrected for others.
    """
    cases = list(_means(differences, lambda key: key[:2]).values())
    return _found(sentence, unit, differences, cases, sign_flip_test, lambda n: 2 / 2**n)


def sign_flip_test(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of a mean difference; exact for up to 13 cases, and by 9999 random flips beyond."""
    import numpy as np
    from scipy.stats import permutation_test

    if len(differences) == 1:
        return 1.0
    found = permutation_test(
        (np.asarray(differences),), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def coarseness(row: Row) -> float:
    """The mean octave band of the energy that a dream added, 1 the finest; bands that lost energy do not count."""
    energies = [max(row[f"strength_band_{band}"], 0.0) for band in range(1, BANDS + 1)]
    weighted = sum(band * energy for band, energy in enumerate(energies, start=1))
    return float(weighted / max(sum(energies), 1e-30))


def _found(
    sentence: str,
    unit: str,
    differences: Mapping[Key, float],
    cases: Sequence[float],
    test: Callable[[Sequence[float]], float],
    least_p: Callable[[int], float],
) -> Finding:
    if not differences:
        return Finding(sentence, unit)
    by_photograph = _means(differences, lambda key: key[0]).values()
    by_seed = _means(differences, lambda key: key[2]).values()
    p = test(cases)
    return Finding(
        sentence,
        unit,
        cases=len(cases),
        effect=mean(cases),
        over_photographs=(min(by_photograph), max(by_photograph)),
        over_seeds=(min(by_seed), max(by_seed)),
        agreeing=sum(case > 0 for case in cases),
        p=p,
        least_p=least_p(len(cases)),
        corrected=p,
    )


def _means(values: Mapping[Key, float], group: Callable[[Key], Any]) -> dict[Any, float]:
    """The mean of the values of each group of keys."""
    grouped: dict[Any, list[float]] = {}
    for key, value in values.items():
        grouped.setdefault(group(key), []).append(value)
    return {name: mean(members) for name, members in grouped.items()}


def _first_experiment(rows: Sequence[Row]) -> list[Row]:
    """The rows of octaves, or of the first experiment where there are none: another tells much the same again."""
    columns = list(dict.fromkeys(row["column"] for row in rows))
    wanted = "octaves" if "octaves" in columns else columns[0] if columns else ""
    return [row for row in rows if row["column"] == wanted]


def _values(rows: Iterable[Row], column: str, weights: str) -> dict[Key, float]:
    """A measure by photograph, network and seed."""
    return {
        (row["photograph"], row["model"], row["seed"]): row[column]
        for row in rows
        if row["weights"] == weights and row[column] is not None
    }


def _of_training(claim: Claim, rows: Sequence[Row]) -> Finding:
    trained, untrained = (_values(rows, claim.column, weights) for weights in ("pretrained", "untrained"))
    differences = {key: claim.sign * (trained[key] - untrained[key]) for key in trained if key in untrained}
    return judged(claim.sentence, _unit(claim.column), differences)


def _of_seeds(rows: Sequence[Row]) -> Finding:
    """A trained network's distance to the others, less that to itself with other seeds."""
    apart, alike = (_values(rows, column, "pretrained") for column in ("uniqueness_features", "seeds_features"))
    differences = {key: apart[key] - alike[key] for key in apart if key in alike}
    sentence = "Trained networks’ dreams differ more from each other than from themselves with other seeds"
    return judged(sentence, _unit("uniqueness_features"), differences)


def _of_depth(rows: Sequence[Row]) -> Finding:
    """The rank correlation of depth and coarseness, for each photograph, network and seed."""
    from scipy.stats import spearmanr

    series: dict[Key, list[float]] = {}
    for row in rows:
        if row["weights"] == "pretrained":
            series.setdefault((row["photograph"], row["model"], row["seed"]), []).append(coarseness(row))
    rhos = {key: float(spearmanr(range(len(s)), s).statistic) for key, s in series.items() if len(set(s)) > 2}
    return judged("Deeper layers of trained networks make coarser patterns", "rank correlation", rhos)


def _of_report(sentence: str, architecture: str, column: str, weights: str, rows: Sequence[Row]) -> Finding:
    """How far the network is ahead of the best of the others, all trained or none, in each photograph."""
    from scipy.stats import binomtest

    values = _values(rows, column, weights)
    networks = {model for _, model, _ in values}
    values = {key: values[key] for key in values if all((key[0], model, key[2]) in values for model in networks)}
    ours = next((model for model in networks if model.rpartition("/")[2] == architecture), None)
    averaged = _means(values, lambda key: key[:2])
    ahead = {
        (photograph, ours, seed): value - max(values[photograph, other, seed] for other in networks - {ours})
        for (photograph, model, seed), value in values.items()
        if model == ours and len(networks) > 1
    }
    cases = [
        averaged[photograph, ours] - max(averaged[photograph, other] for other in networks - {ours})
        for photograph in dict.fromkeys(photograph for photograph, _, _ in ahead)
    ]

    def test(cases: Sequence[float]) -> float:
        ahead_in = sum(case > 0 for case in cases)
        return float(binomtest(ahead_in, len(cases), 1 / len(networks), alternative="greater").pvalue)

    kind = "the report" if weights == "pretrained" else "the report, of its networks untrained"
    return _found(f"{sentence} ({kind})", _unit(column), ahead, cases, test, lambda n: len(networks) ** -n)


def _unit(column: str) -> str:
    return next(measure.unit for measure in MEASURES if measure.column == column)
