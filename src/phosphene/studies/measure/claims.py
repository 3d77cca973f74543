"""What a table of measures says: effects within pairs, their spread, and a test that is fit for few pairs.

A pair differs in one thing, such as whether the network is trained, and shares all else: photograph, network, seed.
The effect is the mean difference. Its p-value is that of an exact permutation test, which flips the signs of the
differences in every way there is (Fisher, The Design of Experiments, 1935): with n pairs it is 2 / 2**n at least, so
that fewer than six pairs cannot reach 0.05, whatever they say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phosphene.studies.measure.measures import BANDS, MEASURES
from phosphene.studies.measure.table import Row

ENOUGH = 0.05
"""A p-value below which we say that an effect is there."""

REPORTED = (
    ("InceptionV3’s patterns are the most obvious", "inception_v3", "strength"),
    ("ResNet’s shapes are the most unique", "resnet50", "uniqueness_features"),
)
"""What the report said of trained networks, judged by eye (its section 1.2): sentence, network, and what can tell."""

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Finding:
    """A sentence, and what speaks for it: mean difference, least and largest, and in how many pairs it is as said.

    `p` is None where there are no pairs.
    """

    sentence: str
    unit: str
    pairs: int = 0
    effect: float = 0.0
    least: float = 0.0
    most: float = 0.0
    agreeing: int = 0
    p: float | None = None

    @property
    def verdict(self) -> str:
        """What the numbers say, in a few words."""
        if self.p is None:
            return "cannot be tested"
        if self.p >= ENOUGH:
            return "too few to tell" if 2 / 2**self.pairs >= ENOUGH else "cannot be told from chance"
        return "holds" if self.effect > 0 else "does not hold: the opposite does"


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Judge what there are pairs for: trained against untrained networks, depth, and the report's two sentences."""
    good = [row for row in rows if row["failure"] is None]
    first = _first_experiment([row for row in good if row["grid"] == "experiments"])
    return [
        *(_of_training(*claim, first) for claim in TRAINING),
        _of_depth([row for row in good if row["grid"] == "depth"]),
        *(_of_report(*claim, first) for claim in REPORTED),
    ]


TRAINING = (
    ("Training makes patterns stronger at equal change", "strength", 1),
    ("Training makes networks’ dreams more unlike each other", "uniqueness_features", 1),
    ("Training leaves less of the photograph’s structure", "ssim", -1),
    ("Training shifts colours more", "colour_shift", 1),
)
"""Sentences, what can tell, and whether more or less of it speaks for them."""


def judged(sentence: str, unit: str, differences: Sequence[float]) -> Finding:
    """Judge a sentence by differences that are positive where it holds."""
    if not differences:
        return Finding(sentence, unit)
    agreeing = sum(difference > 0 for difference in differences)
    mean = sum(differences) / len(differences)
    spread = (mean, min(differences), max(differences))
    return Finding(sentence, unit, len(differences), *spread, agreeing, sign_flip_test(differences))


def sign_flip_test(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of a mean difference; exact for up to 13 pairs, and by 9999 random flips beyond."""
    import numpy as np
    from scipy.stats import permutation_test

    if len(differences) == 1:
        return 1.0
    found = permutation_test(
        (np.asarray(differences),), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def _first_experiment(rows: Sequence[Row]) -> list[Row]:
    """The rows of octaves, or of the first experiment where there are none: another tells much the same again."""
    columns = list(dict.fromkeys(row["column"] for row in rows))
    wanted = "octaves" if "octaves" in columns else columns[0] if columns else ""
    return [row for row in rows if row["column"] == wanted]


def _of_training(sentence: str, column: str, sign: int, rows: Sequence[Row]) -> Finding:
    trained, untrained = (_values(rows, column, weights) for weights in ("pretrained", "untrained"))
    differences = [sign * (trained[key] - untrained[key]) for key in trained if key in untrained]
    return judged(sentence, _unit(column), differences)


def _values(rows: Sequence[Row], column: str, weights: str) -> Mapping[Key, float]:
    """A measure by photograph, seed and network."""
    return {
        (row["photograph"], row["seed"], row["model"]): row[column]
        for row in rows
        if row["weights"] == weights and row[column] is not None
    }


def _of_report(sentence: str, architecture: str, column: str, rows: Sequence[Row]) -> Finding:
    """The network's value less the largest of the others', for each photograph and seed."""
    by_picture: dict[Key, dict[str, float]] = {}
    for (photograph, seed, model), value in _values(rows, column, "pretrained").items():
        by_picture.setdefault((photograph, seed), {})[model] = value
    differences = []
    for values in by_picture.values():
        ours = [value for model, value in values.items() if _is(model, architecture)]
        others = [value for model, value in values.items() if not _is(model, architecture)]
        if ours and others:
            differences.append(max(ours) - max(others))
    return judged(f"{sentence} (the report)", _unit(column), differences)


def _is(model: str, architecture: str) -> bool:
    return model.rpartition("/")[2] == architecture


def _of_depth(rows: Sequence[Row]) -> Finding:
    """The rank correlation of depth and coarseness, for each photograph, network and seed."""
    from scipy.stats import spearmanr

    series: dict[Key, list[float]] = {}
    for row in rows:
        if row["weights"] == "pretrained":
            series.setdefault((row["photograph"], row["model"], row["seed"]), []).append(coarseness(row))
    rhos = [float(spearmanr(range(len(s)), s).statistic) for s in series.values() if len(set(s)) > 2]
    return judged("Deeper layers of trained networks make coarser patterns", "rank correlation", rhos)


def coarseness(row: Row) -> float:
    """The mean octave band of the energy that a dream added, 1 the finest; bands that lost energy do not count."""
    energies = [max(row[f"strength_band_{band}"], 0.0) for band in range(1, BANDS + 1)]
    weighted = sum(band * energy for band, energy in enumerate(energies, start=1))
    return float(weighted / max(sum(energies), 1e-30))


def _unit(column: str) -> str:
    return next(measure.unit for measure in MEASURES if measure.column == column)
