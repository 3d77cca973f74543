"""What is planned, and what is refused before the first step."""

import pytest

from phosphene import imagefile
from phosphene.errors import SettingsError, UnknownNameError, UsageError, WeightsUnavailableError
from phosphene.networks import weights
from phosphene.studies import api
from phosphene.studies.plans.comparison import comparison
from phosphene.studies.plans.sweep import parse_vary, sweep
from phosphene.studies.study import Study, file_name

PHOTO = imagefile.read("sample:coffee")


def plan(**changes):
    given = {"models": ["vgg19", "resnet50"], "trained": "untrained", "settings": {"size": 300}, **changes}
    return comparison(PHOTO, **given)


def test_all_but_the_network_and_the_experiment_is_the_same():
    study = plan(settings={"size": 300, "steps": 6, "octaves": 3, "norm": "std"})
    free = {"model": "", "weights": "", "layers": ("x",), "step_size": 1, "seed": 0}
    common = {mode: set() for mode in ("plain", "octaves", "tiles")}
    for place in study.grids[0].places:
        cell = next(cell for cell in study.cells if cell.name == place.cell)
        common[place.column].add(cell.recipe.but(**free))
    assert all(len(recipes) == 1 for recipes in common.values())
    [plain], [octaves], [tiles] = common.values()
    assert plain.octaves * plain.steps == octaves.octaves * octaves.steps == 18
    assert (plain.octaves, plain.tile, octaves.tile, tiles.tile) == (1, "none", "none", 256)
    assert tiles.but(tile="none") == octaves


def test_octaves_that_one_network_cannot_see_are_left_out_for_all():
    study = plan(models=["vgg19", "inception_v3"], settings={"size": 240})
    assert {cell.recipe.octaves for cell in study.cells if "octaves" in cell.name} == {2}
    assert study.notes[0].startswith("inception_v3 sees nothing below 107 px, so all networks dream 2 of 5 octaves")


def test_a_cell_that_two_grids_show_is_dreamed_once():
    study = plan(depths=5, seeds=3)
    assert len(study.cells) == 2 * 3 * 3 + 2 * 4 * 3
    assert len({cell.name for cell in study.cells}) == len(study.cells)


def test_depth_is_shown_of_what_is_trained_for_every_seed():
    study = plan(models=["efficientnet_lite0"], trained="both", depths=2, seeds=3)
    assert study.grids[1].rows == ("efficientnet_lite0 trained",)
    assert [place.seed for place in study.grids[1].places] == [0, 1, 2] * 2


def test_a_plan_reads_and_writes_as_json():
    study = plan()
    assert Study.model_validate_json(study.model_dump_json()) == study


def test_missing_weights_leave_a_row_out_and_are_told(monkeypatch):
    def fetch(card):
        if card.name != "efficientnet_lite0":
            raise WeightsUnavailableError("offline")

    monkeypatch.setattr(weights, "fetch", fetch)
    study = plan(models=["vgg19", "efficientnet_lite0"], trained="both")
    assert study.grids[0].rows == ("vgg19 untrained", "efficientnet_lite0 trained", "efficientnet_lite0 untrained")
    assert [(each.model, each.file) for each in study.absent] == [("vgg19", "vgg19-dcbb9e9d.pth")]
    with pytest.raises(UsageError, match="the trained weights of vgg19 cannot be had here"):
        plan(models=["vgg19"], trained="pretrained")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["vgg91"]}, "no model called 'vgg91'; did you mean vgg19"),
        ({"modes": ["octave"]}, "no experiment called 'octave'; did you mean octaves"),
        ({"settings": {"octave_scal": 1.2}}, "no setting called 'octave_scal'; did you mean octave_scale"),
        ({"settings": {"octave_scale": 0.5}}, "octave_scale = 0.5 will not do"),
        ({"settings": {"layers": ("x",)}}, "sets layers itself"),
        ({"seeds": 0}, "1 to 1000 seeds"),
        ({"change": 1.5}, "a change within 0 and 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        plan(**changes)


def test_a_sweep_is_the_product_and_the_last_setting_makes_the_columns():
    vary = parse_vary(["octave-scale=1.2,1.4", "steps=3,4", "layer=blocks.4.2[1,2],blocks.3.2"])
    study = sweep(PHOTO, vary=vary, settings={})
    [grid] = study.grids
    assert grid.columns == ("layer=blocks.4.2[1,2]", "layer=blocks.3.2")
    assert len(grid.rows) == 4
    recipes = {(cell.recipe.octave_scale, cell.recipe.steps, cell.recipe.layers) for cell in study.cells}
    assert (1.2, 4, ("blocks.4.2[1,2]",)) in recipes
    assert len(recipes) == 8


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"octave_scael": [1.2]}, "no setting called 'octave_scael'; did you mean octave_scale"),
        ({"octave_scale": [1.2, "much"]}, "octave_scale = 'much' will not do"),
        ({}, "varies at least one setting"),
    ],
)
def test_what_cannot_be_swept_is_refused(vary, message):
    with pytest.raises(UsageError, match=message):
        sweep(PHOTO, vary=vary, settings={})


def test_layers_are_looked_up_before_the_first_step(tmp_path):
    with pytest.raises(UnknownNameError, match=r"no layer of efficientnet_lite0 called 'blocks.9'"):
        api.sweep("sample:coffee", tmp_path, vary={"layer": ["blocks.4.2", "blocks.9"]})
    assert not list(tmp_path.iterdir())


def test_how_to_run_is_checked_too(tmp_path):
    with pytest.raises(SettingsError, match="workers = 0 will not do"):
        api.compare("sample:coffee", tmp_path, weights="untrained", models=["resnet18"], workers=0)


def test_noise_is_not_one_photograph(tmp_path):
    with pytest.raises(UsageError, match="another picture for each seed"):
        api.compare("noise:48x48", tmp_path)


def test_names_of_files_are_safe_and_apart():
    assert file_name("vgg19", "octaves") == "vgg19-octaves"
    one, other = file_name("timm/x", "a"), file_name("timm_x", "a")
    assert "/" not in one
    assert one != other


def test_names_of_files_are_short_enough():
    one, other = file_name("guide=" + "é" * 300), file_name("guide=" + "é" * 301)
    assert max(len(name.encode()) for name in (one, other)) < 220
    assert one != other
    assert file_name("caf\udce9").startswith("caf_-")


@pytest.mark.parametrize("name", [".", "..", "...", "photo."])
def test_a_name_of_a_file_ends_in_no_dot(name):
    assert "." not in file_name(name)
    assert file_name(name, "x") == f"{name}-x"


def test_cells_that_differ_in_capitals_have_files_of_their_own_everywhere():
    guides = ["A.png", "a.png", "É.png", "é.png", "b.png"]
    names = [cell.name for cell in sweep(PHOTO, vary={"guide": guides, "steps": [1, 1]}, settings={}).cells]
    assert len({name.casefold() for name in names}) == len(guides)
    assert names[-1] == "guide=b.png-steps=1"


@pytest.mark.parametrize("setting", ["weights", "guide", "mask"])
@pytest.mark.parametrize("name", ["x" * 300, "caf\udce9.png", ""])
def test_files_of_a_sweep_have_names_before_the_first_step(tmp_path, setting, name):
    with pytest.raises(UsageError, match=r"no name|too many for a name"):
        api.sweep("sample:coffee", tmp_path / "out", vary={"steps": [1], setting: [name]})
    assert not (tmp_path / "out").exists()
