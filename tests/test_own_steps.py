"""Norms, masks and schedules of one's own: what a step does with them, on every way, and what a recipe keeps."""

import asyncio
import threading

import numpy as np
import pytest
import torch

import phosphene
from phosphene.disk import raster, strips
from phosphene.dreaming.objective import Energy, Scoring
from phosphene.dreaming.resample import blur
from phosphene.errors import NonFiniteGradientError, SettingsError, UnknownNameError, UsageError
from phosphene.job import MemoryDream, MemoryJob, in_memory, prepare, run
from phosphene.recipe import own
from phosphene.recipe.own import Schedule
from phosphene.recipe.provenance import from_toml, to_toml
from phosphene.recipe.settings import Ascent, Recipe
from phosphene.recipe.spelling import choose

SMALL = {"size": 96, "octaves": 2, "steps": 2, "jitter": 4, "layers": "blocks.1.1", "tile": 32}


@pytest.fixture(autouse=True)
def forgotten():
    """What is given in one test is not there in the next."""
    yield
    own.NORMS.clear()
    own.MASKS.clear()


def signs(gradient):
    return gradient.sign()


def soft(gradient):
    return blur(gradient, 2.0).sign()


def left(height, width):
    return np.arange(width)[None].repeat(height, 0) < width / 2


def dream(**settings):
    return phosphene.dream("sample:coffee", **{**SMALL, **settings})


def test_a_norm_is_what_the_step_climbs_along():
    found = dream(norm=signs, octaves=1, steps=1, step_size=0.01)
    moved = found.image - found.photograph
    job = in_memory("sample:coffee", found.recipe)
    (step,) = job.steps()
    assert torch.equal(step.image, found.image)
    inside = (found.image > 0) & (found.image < 1)
    assert (moved[inside].abs() - 0.01).abs().max() < 1e-6


def test_a_norm_is_named_in_the_recipe_and_given_again_for_a_replay(tmp_path):
    found = dream(norm=signs)
    assert found.recipe.norm == "own:signs"
    path = found.save(tmp_path / "dream.png")
    assert torch.equal(phosphene.replay(path).image, found.image)
    own.NORMS.clear()
    with pytest.raises(
        UsageError,
        match=r"own:signs is a custom norm that this process does not hold: give it again, with phosphene\.norm",
    ):
        phosphene.replay(path)
    phosphene.norm(signs)
    assert torch.equal(phosphene.replay(path).image, found.image)


def scaled(factor):
    def times(gradient):
        return factor * gradient.sign()

    return times


@pytest.mark.parametrize("by_disk", [False, True])
def test_a_dream_keeps_the_norm_that_it_was_prepared_with(by_disk, tmp_path):
    """Another function of the same name, given before it begins, is another dream's."""

    def prepared(factor):
        recipe = Recipe(**SMALL | {"layers": ("blocks.1.1",)}, norm=phosphene.norm(scaled(factor), margin=0))
        where = {"memory": "1B", "output": tmp_path / f"{factor}.png"} if by_disk else {}
        return prepare("sample:coffee", recipe, **where)

    weak, strong = prepared(1), prepared(5)
    assert torch.equal(run(weak).image, dream(norm=scaled(1)).image)
    assert torch.equal(run(strong).image, dream(norm=scaled(5)).image)


def test_masks_that_were_given_are_held_and_those_that_were_passed_are_not_for_ever():
    given = [phosphene.mask(np.full((4, 4), level / 20)) for level in range(20)]
    for level in range(20):
        choose({"mask": np.full((4, 5), level / 20)})
    assert all(own.own_mask(name).shape == (4, 4) for name in given)
    assert len(own.MASKS.passed) == own.MASKS.MOST_PASSED


def test_a_mask_that_was_given_anew_is_not_dreamed_with(tmp_path):
    where = {"memory": "1B", "output": tmp_path / "out.png"}
    recipe = Recipe(**SMALL | {"layers": ("blocks.1.1",)}, mask=phosphene.mask(np.ones((4, 4)), "mine"))
    job = prepare("sample:coffee", recipe, **where)
    phosphene.mask(np.zeros((4, 4)), "mine")
    with pytest.raises(UsageError, match="own:mine was given anew since this dream was prepared"):
        run(job)


def test_with_a_margin_it_is_the_same_by_way_of_the_disk(tmp_path):
    given = {"norm": phosphene.norm(soft, margin=6), "mask": left, "jitter": lambda octave, step: octave + step}
    found = dream(**given, output=tmp_path / "out.png", memory="1B")
    assert not isinstance(found, MemoryDream)
    assert torch.equal(found.image, dream(**given).image)


@pytest.mark.parametrize("margin", [0, 6])
def test_a_margin_is_what_a_block_of_a_gradient_is_given_around_it(tmp_path, photo, margin):
    gradient = photo(90, 40, torch.float32) - 0.5
    stored = raster.create(tmp_path / "gradient", (3, 90, 40))
    stored.write(gradient, slice(0, 90))
    settings = Recipe(norm=phosphene.norm(soft, margin=margin))
    on_disk = strips.DiskGradient(
        stored, (0, 0), Scoring((Energy("deep"),)), settings, sizes=((1.0,),), own=own.bound_norm(settings.norm)
    )
    windows = [(block, on_disk.window(block)) for block in strips.blocks((90, 40), 32)]
    found = [strips.own_part(on_disk.divided(window), block, window, 0) for block, window in windows]
    assert torch.equal(torch.cat(found, 1), soft(gradient)) is (margin == 6)


def test_without_a_margin_it_is_one_sentence_where_gradients_are_never_whole(tmp_path):
    with pytest.raises(UsageError, match=r"own:signs looks at whole gradients.*give it a margin"):
        dream(norm=signs, cluster="local")
    assert isinstance(prepare("sample:coffee", Recipe(**SMALL | {"layers": ()}, norm=phosphene.norm(signs))), MemoryJob)


def test_norms_that_will_not_do_are_one_sentence():
    for function, said in [
        (lambda g: g[0], r"own:mine, a norm of your own, gave \[64, 96\], torch.float32 for a gradient \[3, 64, 96\]"),
        (lambda g: None, "own:mine, a norm of your own, gave NoneType for a gradient"),
        (lambda g: 1 / 0, "own:mine, a norm of your own, failed: ZeroDivisionError"),
        (lambda g: g.to(torch.complex64), "own:mine, a norm of your own, gave .* torch.complex64 for a gradient"),
        (lambda g: g.to("meta"), "own:mine, a norm of your own, gave"),
    ]:
        with pytest.raises(UsageError, match=said):
            dream(norm=phosphene.norm(function, "mine"), octaves=1)
    with pytest.raises(NonFiniteGradientError, match="own:mine, a norm of your own, gave numbers that are not finite"):
        dream(norm=phosphene.norm(lambda g: g * torch.nan, "mine"), octaves=1, steps=1)
    with pytest.raises(SettingsError, match="'<lambda>' is no name for a norm"):
        dream(norm=lambda g: g)
    with pytest.raises(SettingsError, match="margin = -1 will not do"):
        phosphene.norm(signs, margin=-1)
    with pytest.raises(SettingsError, match="norm = 'laplacain' will not do: it should be 'mean_abs', 'std' or"):
        dream(norm="laplacain")


def test_a_norm_may_compute_in_more_bits():
    exact = dream(norm=phosphene.norm(lambda g: g.double().sign(), "exact"), octaves=1)
    assert torch.equal(exact.image, dream(norm=phosphene.norm(lambda g: g.sign(), "plain"), octaves=1).image)


@pytest.mark.parametrize(
    "kind", [left, left(64, 96), torch.tensor(left(64, 96)).float(), left(64, 96) * np.uint8(255), 1 * left(64, 96)]
)
def test_a_mask_is_where_it_dreams(kind):
    found = dream(mask=kind)
    changed = (found.image - found.photograph).abs().amax(0)
    assert changed[:, 49:].max() < 1e-6
    assert changed[:, :47].max() > 0.01


def test_a_mask_is_named_given_again_and_told_from_another(tmp_path):
    found = dream(mask=left, octaves=1)
    path = found.save(tmp_path / "dream.png")
    assert from_toml(phosphene.imagefile.read_recipe(path))[0].mask == "own:left"
    assert torch.equal(phosphene.replay(path).image, found.image)
    phosphene.mask(lambda height, width: 1 - left(height, width), "left")
    again = phosphene.replay(path)
    assert phosphene.job.differences(found.made, again.made)[0].startswith("the mask is not the one")
    own.MASKS.clear()
    with pytest.raises(UsageError, match="own:left is a custom mask that this process does not hold: give it again"):
        phosphene.replay(path)


def test_an_array_as_a_mask_has_a_checksum_and_is_stretched():
    first, second = (dream(mask=mask, octaves=1).recipe.mask for mask in (np.eye(9), np.eye(9) / 2))
    assert first.startswith("own:mask-")
    assert first != second
    assert phosphene.mask(np.eye(9)) == first


def test_masks_that_will_not_do_are_one_sentence():
    for bad in (np.zeros((3, 4, 5)), np.zeros((0, 4)), np.ones((4, 4), complex)):
        with pytest.raises(UsageError, match=r"is of shape \[.*\] and type .*; one is of numbers, \[height, width\]"):
            dream(mask=bad)
    with pytest.raises(UsageError, match=r"own:wide gave a mask \[64, 97\] for a picture \[64, 96\]"):
        dream(mask=phosphene.mask(lambda height, width: np.zeros((height, width + 1)), "wide"))
    for bad in (np.full((2, 2), np.nan), np.full((2, 2), 255), -np.ones((2, 2))):
        with pytest.raises(UsageError, match=r"a mask of your own, has numbers from .* to .*; they are 0 to 1"):
            dream(mask=bad)
    for bad in (torch.ones(2, 2, device="meta"), torch.ones(2, 2).to_sparse(), [[1.0, 2.0], [3.0]]):
        with pytest.raises(UsageError, match="has no numbers that can be taken"):
            dream(mask=bad)
    with pytest.raises(UsageError, match="has only 0 and 1 of 255: give it as bool or float"):
        dream(mask=np.eye(4, dtype=np.uint8))
    with pytest.raises(UsageError, match="own:broken, a mask of your own, failed: ZeroDivisionError"):
        dream(mask=phosphene.mask(lambda height, width: 1 / 0, "broken"))


def test_a_schedule_is_asked_for_each_step_and_its_numbers_are_kept(tmp_path):
    found = dream(step_size=lambda octave, step: 0.02 / octave / step, norm=signs)
    assert found.recipe.schedules == ("step_size=0.02,0.01/0.01,0.005",)
    first, second, third, fourth = (step.image for step in in_memory("sample:coffee", found.recipe).steps())
    moved = [(after - before).abs().median().item() for before, after in ((first, second), (third, fourth))]
    assert moved == pytest.approx([0.01, 0.005], rel=1e-3)
    assert found.recipe.drive == pytest.approx(0.015)
    recipe, _ = from_toml(to_toml(found.recipe, found.made))
    assert recipe == found.recipe


def test_a_constant_schedule_is_the_constant():
    found = dream(step_size=lambda octave, step: 0.01, jitter=lambda octave, step: 3, blur=lambda octave, step: 0.5)
    assert set(found.recipe.schedules) == {"step_size=0.01", "jitter=3", "blur=0.5"}
    assert torch.equal(found.image, dream(step_size=0.01, jitter=3, blur=0.5).image)


def test_the_last_step_and_the_last_octave_stay():
    schedule = Schedule.parse("step_size=0.02,0.01/0.005")
    assert [schedule.at(1, step) for step in (1, 2, 9)] == [0.02, 0.01, 0.01]
    assert [schedule.at(octave, 7) for octave in (2, 3)] == [0.005, 0.005]
    now = Ascent(schedules=("jitter=8,4", "blur=1")).at(1, 2)
    assert (now.jitter, now.blur, now.step_size) == (4, 1.0, Ascent().step_size)


def test_schedules_that_will_not_do_are_one_sentence():
    for given, said in [
        ({"step_size": lambda octave, step: step}, "step_size = 2.0 will not do: it should be less than or equal to 1"),
        ({"jitter": lambda octave, step: 1.5}, "jitter = 1.5 will not do: it should be a whole number"),
        ({"step_size": lambda octave: 1}, r"step_size at octave 1, step 1 failed \(TypeError"),
        ({"schedules": ("step_size:1",)}, "'step_size:1' is not a schedule; one is spelt SETTING=NUMBER"),
    ]:
        with pytest.raises(SettingsError, match=said):
            dream(**given)
    with pytest.raises(UnknownNameError, match="called 'step_sise'; did you mean step_size"):
        dream(step_sise=lambda octave, step: 0.01)


def test_a_number_that_is_changed_on_the_way_takes_the_place_of_its_schedule():
    steps = phosphene.steps("sample:coffee", **SMALL, step_size=lambda octave, step: 0.01 * step, norm=signs)
    next(steps)
    steps.change(step_size=0.03)
    assert steps.dream.recipe.schedules == ()
    steps.change(step_size=lambda octave, step: 0.01, norm=phosphene.norm(signs))
    assert steps.dream.recipe.schedules == ("step_size=0.01",)


def test_a_dream_whose_steps_are_made_fewer_is_whole():
    steps = phosphene.steps("sample:coffee", **SMALL | {"steps": 4})
    while (step := next(steps)).octave < 2 or step.step < 3:
        assert steps.dream.made.unfinished == "stopped before its end"
    steps.change(steps=2)
    assert next(steps, None) is None
    assert steps.dream.made.unfinished == "changed at octave 2, step 3: steps=2"


def test_a_step_that_was_not_waited_for_is_the_next_one():
    settings = {**SMALL, "octaves": 1, "steps": 3, "tile": "none"}

    async def impatient():
        steps = phosphene.steps("sample:coffee", **settings)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(steps), 1e-6)
        return [step.step async for step in steps], steps.dream

    seen, dream = asyncio.run(impatient())
    assert seen == [1, 2, 3]
    assert torch.equal(dream.image, phosphene.dream("sample:coffee", **settings).image)


def test_a_recipe_that_its_file_cannot_hold_is_told_before_the_first_step(tmp_path):
    def wild(octave, step):
        return 0.005 + 0.001 * np.sin(1000 * octave + step)

    given = {**SMALL, "octaves": 2, "steps": 5000, "step_size": wild}
    with pytest.raises(SettingsError, match=r"'out\.jpg' cannot hold a recipe of \d+ kB, only 65: use \.png or \.tif"):
        phosphene.dream(
            "sample:coffee", **given, output=tmp_path / "out.jpg", on_step=lambda _: pytest.fail("it was dreamed")
        )
    job = prepare("sample:coffee", phosphene.dream("sample:coffee", **SMALL).recipe, output=tmp_path / "out.png")
    assert isinstance(job, MemoryJob)


def test_a_sweep_takes_them(tmp_path):
    swept = phosphene.sweep(
        "sample:coffee", tmp_path / "sweep", vary={"layer": ["blocks.1.1"]}, norm=signs, mask=left,
        step_size=lambda octave, step: 0.01 / step, size=64, octaves=1, steps=2,
    )  # fmt: skip
    assert not swept.failures
    (result,) = swept.results.values()
    assert result.recipe.schedules == ("step_size=0.01,0.005",)


def test_a_sweep_over_functions_goes_on_where_it_was(tmp_path):
    """Their cells are named by the functions' names, not by where they are in memory."""

    def swept():
        norms = [scaled(1), signs]
        norms[0].__name__ = "once"
        return phosphene.sweep("sample:coffee", tmp_path / "sweep", vary={"norm": norms}, **SMALL | {"steps": 1})

    names = {path.name for path in swept().folder.path.glob("dreams/*.png")}
    assert names == {"norm=once.png", "norm=signs.png"}
    swept()
    assert names == {path.name for path in (tmp_path / "sweep" / "dreams").glob("*.png")}


def test_a_folder_is_dreamed_by_name(tmp_path):
    names = [f"{name}.png" for name in "bdaec"]
    for name in names:
        dream(octaves=1, steps=1).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    found = phosphene.dream_each(tmp_path, mask=left, octaves=1, steps=1)
    assert [each.made.source for each in found] == [str(tmp_path / name) for name in sorted(names)]
    with pytest.raises(UsageError, match="there is no folder of photographs at 'sample:coffee'; dream takes one"):
        phosphene.dream_each("sample:coffee")
    with pytest.raises(UsageError, match="several photographs are for dream_each"):
        phosphene.dream(["a.png", "b.png"])
    with pytest.raises(UsageError, match="several dreams have no output together: save each under a name of its own"):
        phosphene.dream_each(tmp_path, output=tmp_path / "out.png")


def test_several_photographs_keep_their_order_and_sizes_until_they_are_stopped():
    stop = threading.Event()
    pictures = [torch.rand(3, height, 70) for height in (90, 64, 80)]
    found = phosphene.dream_each(pictures, **SMALL | {"size": "full", "steps": 1}, stop=stop)
    assert [tuple(each.image.shape) for each in found] == [(3, height, 70) for height in (90, 64, 80)]
    second = []

    def on_step(step):
        second.append(step)
        if len(second) == 3:
            stop.set()

    found = phosphene.dream_each(pictures, **SMALL | {"octaves": 1, "steps": 2}, stop=stop, on_step=on_step)
    assert (len(found), len(second)) == (2, 3)


def test_a_film_takes_them(tmp_path):
    for name in "ab":
        dream(octaves=1, steps=1, size=64).save(tmp_path / f"{name}.png")
    (frame, _) = phosphene.frames(
        tmp_path, norm=signs, mask=left, step_size=lambda octave, step: 0.02, octaves=1, steps=1, carry=False
    )
    changed = (frame.image - frame.photograph).abs().amax(0)
    assert changed[:, 33:].max() < 1e-6
    assert changed[:, :31].median() == pytest.approx(0.02, rel=0.1)
    phosphene.animate(tmp_path, tmp_path / "out", norm=signs, mask=left, octaves=1, steps=1)
    assert len(list((tmp_path / "out").iterdir())) == 2
