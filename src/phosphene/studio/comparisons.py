"""What the page asks to compare, as a study of the folder; and such a study, as what the page shows."""

from typing import Annotated, Any

from pydantic import Field

from phosphene import imagefile
from phosphene.errors import SettingsError
from phosphene.recipe.looks import DEFAULT_LOOK
from phosphene.recipe.settings import Recipe, Settings
from phosphene.recipe.terms import KINDS
from phosphene.studies.api import check
from phosphene.studies.plans.chosen import chosen
from phosphene.studies.run.cell import Ended
from phosphene.studies.run.folder import EXPECTED_TRIES
from phosphene.studies.run.folder import Folder as StudyFolder
from phosphene.studies.study import CHANGE, Place, Study
from phosphene.studio.cost import check_cost, megapixel_steps
from phosphene.studio.folder import Folder
from phosphene.studio.requests import Order, photograph_of, stem

VARIED = {"model", *KINDS}
"""What the ways say, and the settings that all share do not."""


class Way(Settings):
    """One of the dreams to compare: a model, and one of its layers or looks."""

    model: str
    look: str | None = None
    layer: str | None = None

    @property
    def name(self) -> str:
        """What is raised, as people say it."""
        return self.layer or self.look or DEFAULT_LOOK


class Comparison(Settings):
    """A photograph, the ways to dream it, and the settings that all share; files by their names in the folder."""

    photograph: str
    ways: Annotated[tuple[Way, ...], Field(min_length=2, max_length=100)]
    settings: dict[str, Any] = Field(default_factory=dict)
    change: Annotated[
        float,
        Field(gt=0, lt=1, description="How much every dream changes the picture, 0 to 1 (root-mean-square change)."),
    ] = CHANGE

    def study(self, folder: Folder) -> Study:
        """Return the plan. Raises `UsageError` for what is outside its range or outside the folder."""
        for name in sorted(VARIED & set(self.settings)):
            raise SettingsError(f"a comparison takes {name} from its ways, not from the settings that all share")
        photo = imagefile.read(folder.photograph(self.photograph))
        study = chosen(photo, [(way.name, self.recipe(way, folder)) for way in self.ways], self.change)
        check(study)
        return study

    def recipe(self, way: Way, folder: Folder) -> Recipe:
        """Return a way's recipe. Raises `UsageError`."""
        settings = self.settings | {"model": way.model} | ({"layers": (way.layer,)} if way.layer else {})
        return Order(photograph=self.photograph, look=way.look, settings=settings).recipe(folder)


def planned(comparison: Comparison, folder: Folder, most: float | None = None) -> str:
    """Write a comparison's plan into a new folder, with what others have done of it; return the folder's name.

    Raises `SettingsError` where its dreams cost more than `most` together.
    """
    recipes = [comparison.recipe(way, folder) for way in comparison.ways]
    size = imagefile.look(folder.photograph(comparison.photograph)).size
    check_cost([(recipe.model, EXPECTED_TRIES * megapixel_steps(recipe, size)) for recipe in recipes], most)
    study = comparison.study(folder)
    others = [folder.comparison(name) for name in folder.comparisons()]
    name = folder.new_comparison(stem(comparison.photograph))
    there = folder.comparison(name)
    for cell in study.cells:
        for other in others:
            if result := other.done(cell, study.source_sha256):
                there.keep(Ended(result, other.picture(cell.name).read_bytes()))
                break
    there.keep_plan(study)
    return name


def described(name: str, folder: Folder) -> dict[str, Any]:
    """Return what the page shows of a comparison: what was planned, and what is there of it."""
    there = folder.comparison(name)
    study = there.plan()
    return {
        "name": name,
        "photograph": photograph_of(study, folder),
        "notes": study.notes,
        "change": study.cells[0].change,
        "cells": [_cell(place, name, there) for place in study.grids[0].places],
        "report": (there.path / "report.html").exists(),
    }


def _cell(place: Place, name: str, there: StudyFolder) -> dict[str, Any]:
    result = there.result(place.cell)
    return {
        "name": place.cell,
        "label": place.column,
        "picture": f"{name}/{place.cell}.png" if result and result.made else None,
        "failure": result.failure if result else None,
        "drive": result.recipe.drive if result and result.recipe else None,
    }
