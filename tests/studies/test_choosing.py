"""A comparison of dreams that a person chose: planned on equal terms, run, and stopped within a step."""

import multiprocessing

import pytest

from phosphene.errors import UsageError
from phosphene.recipe.spelling import choose
from phosphene.studies import api
from phosphene.studies.plans.chosen import chosen
from phosphene.studies.run.calibrate import TOLERANCE
from phosphene.studies.run.folder import Folder
from phosphene.studies.run.workers import one_by_one, side_by_side

GIVEN = {"size": 72, "octaves": 2, "steps": 2}


def looks(*names):
    return [(name, choose(GIVEN, name)) for name in names]


def layer_of(model, layer):
    return layer, choose({**GIVEN, "model": model, "weights": "untrained", "layers": (layer,)})


class EnoughError(Exception):
    pass


def test_all_get_the_octaves_that_the_most_short_sighted_sees(coffee):
    study = chosen(coffee, [layer_of("resnet18", "layer2.1"), layer_of("inception_v3", "Mixed_5d")])
    assert {cell.recipe.octaves for cell in study.cells} == {1}
    assert study.notes == ("the picture has 1 of 2 octaves: one of the networks sees nothing in smaller ones",)
    assert study.grids[0].columns == ("resnet18 layer2.1", "inception_v3 Mixed_5d")


def test_the_same_twice_is_refused(coffee):
    with pytest.raises(UsageError, match="two of these dreams are rings: compare different ones"):
        chosen(coffee, looks("rings", "eyes", "rings"))


def test_a_layer_that_is_not_there_is_refused_before_the_first_step(coffee):
    with pytest.raises(UsageError, match=r"blocks\.9"):
        api.check(chosen(coffee, [*looks("rings"), layer_of("efficientnet_lite0", "blocks.9.9")]))


def test_all_are_brought_to_the_same_change_and_the_page_shows_each(coffee, tmp_path):
    study = chosen(coffee, looks("rings", "eyes"), change=0.05)
    finished = api.run(study, coffee, Folder(tmp_path), one_by_one)
    assert finished.failures == {}
    for row in finished.rows:
        assert row["change"] == pytest.approx(0.05, rel=TOLERANCE + 0.02)
        assert row["uniqueness_features"] > 0
    page = (tmp_path / "report.html").read_text()
    assert page.count('<figcaption>\n    <span class="layer">') == 2
    assert "relative depth" not in page
    assert Folder(tmp_path).plan() == study


def test_what_is_told_can_end_it_and_what_is_done_stays(coffee, tmp_path):
    study, folder = chosen(coffee, looks("rings", "eyes")), Folder(tmp_path)

    def told(progress):
        if progress.cell.endswith("eyes"):
            raise EnoughError

    with pytest.raises(EnoughError):
        api.run(study, coffee, folder, one_by_one, on_progress=told)
    done = folder.picture("efficientnet_lite0-rings").stat().st_mtime_ns
    assert folder.result("efficientnet_lite0-eyes") is None
    assert api.run(study, coffee, folder, one_by_one).failures == {}
    assert folder.picture("efficientnet_lite0-rings").stat().st_mtime_ns == done


@pytest.mark.slow
def test_processes_that_are_closed_go_no_further(coffee):
    cells = chosen(coffee, [(name, recipe.but(steps=5000)) for name, recipe in looks("rings", "eyes")]).cells
    events = side_by_side([(cell, coffee, "cpu") for cell in cells], 1)
    next(events)
    [worker] = multiprocessing.active_children()
    events.close()
    worker.join(20)
    assert worker.exitcode == 0
