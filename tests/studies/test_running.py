"""Cells into a folder: what is done stays, what is broken is made again, and a failure stays with its cell."""

import errno
import json
import os

import pytest

from phosphene.errors import OutputExistsError, StoreError
from phosphene.imagefile import Photo, write_atomically
from phosphene.recipe.settings import Recipe
from phosphene.studies.run import folder as folders
from phosphene.studies.run.cell import Ended, dream_cell
from phosphene.studies.run.folder import Folder, check_folder, run_cells
from phosphene.studies.run.workers import one_by_one, side_by_side
from phosphene.studies.study import Cell, Study

RECIPE = Recipe(size=48, octaves=1, steps=2, jitter=4, layers=("blocks.1.1",))


def cells(**changes):
    return tuple(Cell(name=f"seed{seed}", recipe=RECIPE.but(seed=seed, **changes), change=0.05) for seed in range(3))


@pytest.fixture
def study(coffee):
    return Study(kind="sweep", source=coffee.source, source_sha256=coffee.sha256, cells=cells(), grids=(), models=())


def run(study, photo, folder, workers=one_by_one):
    """Run, and return the names of the cells that were dreamed, and all results."""
    dreamed = []

    def told(progress):
        if progress.ended:
            dreamed.append(progress.ended.cell.name)

    results = run_cells(study, photo, folder, workers, "cpu", told)
    return sorted(dreamed), results


def without_times(result):
    return result.model_copy(update={"seconds": 0.0, "seconds_per_step": None})


def test_what_is_done_is_not_dreamed_again(study, coffee, tmp_path):
    folder = Folder(tmp_path)
    dreamed, first = run(study, coffee, folder)
    assert dreamed == ["seed0", "seed1", "seed2"]
    assert all(result.failure is None for result in first.values())
    assert run(study, coffee, folder) == ([], first)
    folder.picture("seed1").write_bytes(folder.picture("seed1").read_bytes()[:-9])
    (tmp_path / "dreams" / "seed2.json").write_text("{")
    dreamed, again = run(study, coffee, folder)
    assert dreamed == ["seed1", "seed2"]
    assert [without_times(again[name]) for name in again] == [without_times(first[name]) for name in first]


def test_one_more_cell_costs_only_itself(study, coffee, tmp_path):
    run(study.model_copy(update={"cells": study.cells[:2]}), coffee, Folder(tmp_path))
    assert run(study, coffee, Folder(tmp_path))[0] == ["seed2"]


def test_another_photograph_or_recipe_is_not_overwritten_unasked(study, coffee, tmp_path):
    folder = Folder(tmp_path)
    run(study, coffee, folder)
    other = study.model_copy(update={"cells": cells(blur=1.0)})
    with pytest.raises(OutputExistsError, match="holds seed0 of a study with other settings"):
        check_folder(other, folder, overwrite=False)
    check_folder(other, folder, overwrite=True)
    check_folder(study, folder, overwrite=False)
    assert run(other, coffee, folder)[0] == ["seed0", "seed1", "seed2"]


def test_a_failing_cell_is_told_and_the_rest_is_finished(study, coffee, tmp_path):
    bad = Cell(name="bad", recipe=RECIPE.but(weights=str(tmp_path / "nothing.pth")))
    study = study.model_copy(update={"cells": (bad, *study.cells)})
    dreamed, results = run(study, coffee, Folder(tmp_path))
    assert dreamed == ["bad", "seed0", "seed1", "seed2"]
    assert "there is no weights file" in results["bad"].failure
    assert [name for name, result in results.items() if result.failure] == ["bad"]
    assert json.loads((tmp_path / "dreams" / "bad.json").read_text())["failure"] == results["bad"].failure
    assert run(study, coffee, Folder(tmp_path))[0] == ["bad"]


def test_a_disk_that_is_full_in_the_middle_is_one_sentence_and_it_goes_on(study, coffee, tmp_path, monkeypatch):
    def full(path, data):
        if path.name == "seed1.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, data)

    monkeypatch.setattr(folders, "write_atomically", full)
    with pytest.raises(StoreError, match=r"could not be written \(No space left on device\): what is done is kept"):
        run(study, coffee, Folder(tmp_path))
    monkeypatch.undo()
    assert run(study, coffee, Folder(tmp_path))[0] == ["seed1", "seed2"]


def test_a_file_where_a_folder_is_to_be_is_one_sentence(study, coffee, tmp_path):
    (tmp_path / "dreams").touch()
    with pytest.raises(StoreError, match=r"dreams' could not be written \(File exists\)"):
        run(study, coffee, Folder(tmp_path))


def test_the_time_left_goes_to_nothing(study, coffee, tmp_path):
    heard = []
    run_cells(study, coffee, Folder(tmp_path), one_by_one, "cpu", heard.append)
    shares = [progress.share for progress in heard]
    assert shares == sorted(shares)
    assert (heard[-1].share, heard[-1].seconds_left, heard[-1].done) == (1, 0, 3)
    assert heard[-1].steps == sum(progress.ended is None for progress in heard)


def test_an_event_for_each_step_and_one_for_the_end(study, coffee):
    *steps, ended = dream_cell(study.cells[0], coffee, "cpu")
    assert isinstance(ended, Ended)
    assert len(steps) == 2 * len(ended.result.tries)
    assert ended.result.seconds > 0


@pytest.mark.slow
def test_processes_give_the_same_as_this_one(study, coffee, tmp_path):
    here, there = Folder(tmp_path / "here"), Folder(tmp_path / "there")
    _, one = run(study, coffee, here)
    _, two = run(study, coffee, there, lambda tasks: side_by_side(tasks, 2))
    assert {name: without_times(r) for name, r in one.items()} == {name: without_times(r) for name, r in two.items()}
    assert all(here.picture(name).read_bytes() == there.picture(name).read_bytes() for name in one)


class Bomb(Photo):
    """A photograph that ends the process which receives it."""

    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.slow
def test_a_worker_that_dies_takes_only_its_own_cell(study, coffee):
    bomb = Bomb(coffee.image, None, coffee.source, coffee.sha256, ())
    tasks = [(study.cells[0], bomb, "cpu"), *((cell, coffee, "cpu") for cell in study.cells[1:])]
    ended = [event.result for event in side_by_side(tasks, 2) if isinstance(event, Ended)]
    assert {result.cell.name: result.failure for result in ended} == {
        "seed0": "its process ended early, with exit code 3",
        "seed1": None,
        "seed2": None,
    }
