"""The page of a survey: the answer in three sentences and one large picture, then the pictures, then all else."""

from collections.abc import Mapping, Sequence
from typing import Any

from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.resample import resize
from phosphene.networks import registry
from phosphene.studies.measure.claims import Finding, findings
from phosphene.studies.measure.measures import MEASURES
from phosphene.studies.measure.table import Row
from phosphene.studies.page.report import EMBEDDED_SIDE, data_of, environment
from phosphene.types import Image


def page(studies: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the page of studies that were run and measured, by the names of their photographs."""
    found, first = findings(rows), next(iter(studies.values()))
    return (
        environment()
        .get_template("survey.html")
        .render(
            answer=answer(found, first.study.models),
            hero=_hero(studies),
            photographs=[_photograph(name, study) for name, study in studies.items()],
            findings=found,
            absent={each.model: each for study in studies.values() for each in study.study.absent},
            models=[registry.card(model) for model in first.study.models],
            seeds=sorted({row["seed"] for row in rows}),
            settings=first.study.cells[0].recipe,
            change=first.study.cells[0].change,
            measures=MEASURES,
            versions=next((r.made.versions for r in first.results.values() if r.made), {}),
        )
    )


def answer(found: Sequence[Finding], models: Sequence[str]) -> list[str]:
    """The answer in three sentences: what holds, what cannot be told from chance, and what cannot be tested."""
    holding = [each for each in found if each.verdict == "holds"]
    opposite = [each for each in found if each.verdict.startswith("does not hold")]
    open_ones = [each for each in found if each.p is not None and each not in (*holding, *opposite)]
    untested = [each for each in found if each.p is None]
    said = [f"{each.sentence} (in {each.agreeing} of {each.pairs} pairs)" for each in holding]
    said += [f"not so: {each.sentence} (in {each.agreeing} of {each.pairs} pairs)" for each in opposite]
    return [
        f"{_listed(said) or 'Nothing can be said with certainty'}.",
        f"{_listed([f'“{each.sentence}”' for each in open_ones]) or 'Nothing that was tested'} "
        f"{'cannot' if open_ones else 'could not'} be told from chance with so few photographs and seeds.",
        f"{_listed([f'“{each.sentence}”' for each in untested]) or 'Nothing'} "
        f"{'cannot be tested here, for want of trained weights or depths' if untested else 'was left untested'}.",
    ]


def _listed(parts: Sequence[str]) -> str:
    """Parts of a sentence, of which only the first begins with a capital."""
    return "; ".join([*parts[:1], *(f"{part[:1].lower()}{part[1:]}" for part in parts[1:])])


def _hero(studies: Mapping[str, Any]) -> dict[str, str]:
    """The most trained of the pictures, large, and its photograph."""
    for study in studies.values():
        for row in study.rows:
            if row["failure"] is None and row["weights"] == "pretrained":
                return _shown(study, row)
    return _shown(study, next(row for row in study.rows if row["failure"] is None))


def _photograph(name: str, study: Any) -> dict[str, Any]:
    """A photograph, and its dreams by grid and row."""
    grids = []
    for grid in study.study.grids:
        seed = grid.places[0].seed
        there = [r for r in study.rows if r["grid"] == grid.name and r["seed"] == seed and r["failure"] is None]
        lines = [(line, [_shown(study, r) for r in there if r["row"] == line]) for line in grid.rows]
        grids.append({"title": grid.title, "lines": lines})
    return {"name": name, "source": study.study.source, "image": _small(study.photo.image), "grids": grids}


def _shown(study: Any, row: Row) -> dict[str, str]:
    return {
        "image": _small(study.picture(row)),
        "photograph": _small(study.photo.image),
        "label": " · ".join(part for part in (row["row"], row["column"], f"seed {row['seed']}") if part),
        "layers": row["layers"],
        "trained": row["weights"],
    }


def _small(image: Image) -> str:
    return data_of(resize(image, fit_within((image.shape[1], image.shape[2]), EMBEDDED_SIDE)))
