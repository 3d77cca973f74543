"""What is given from Python is looked at before anything is read, computed or written: one sentence for each fault."""

import math
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import phosphene
from phosphene.errors import SettingsError, UnknownNameError, UsageError
from phosphene.job import prepare
from phosphene.recipe.settings import Recipe

QUICK = {"octaves": 1, "steps": 1, "jitter": 0, "layers": "blocks.1.1", "device": "cpu"}
PHOTO = np.random.default_rng(0).random((32, 40, 3)).astype(np.float32)


class Silent:
    def __repr__(self):
        raise RuntimeError("it has no name")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("look", 5, "look = 5 will not do: it should be a text"),
        ("look", ["creatures"], "look = ['creatures'] will not do: it should be a text"),
        ("look", "", "look = '' will not do: give a name or a value, or leave it out"),
        ("preset", {"steps": 1}, "preset = {'steps': 1} will not do: it should be a text"),
        ("layers", 5, "layers = 5 will not do: it should be an objective or a function or a list or a text"),
        ("on_step", 5, "on_step = 5 will not do: it should be a function"),
        ("stop", 5, "stop = 5 will not do: it should be an event"),
        ("memory", [1], "memory = [1] will not do: it should be a text or a whole number"),
        ("memory", 0, "0 is not an amount of memory; one is spelt 2GB, 1.5G or 800M, or in bytes"),
        ("cluster", 5, "cluster = 5 will not do: it should be a text"),
        ("output", 5, "output = 5 will not do: it should be a text or a path"),
        ("bits", 5, "bits = 5 will not do: it should be 8 or 16"),
        ("overwrite", "perhaps", "overwrite = 'perhaps' will not do: it should be true or false"),
        ("seed", len, "seed = <built-in function len> will not do: it should be a whole number"),
        ("guide", Silent(), "guide = something of type Silent will not do: it should be a text"),
        (
            "guide",
            np.zeros((2, 3)),
            "guide = something of type ndarray and shape (2, 3) will not do: it should be a text",
        ),
        ("classes", [0.5], "classes = 0.5 will not do: it should be a text"),
        ("step_size", math.nan, "step_size = nan will not do: it should be a finite number"),
    ],
)
def test_what_a_dream_cannot_be_given(name, value, sentence):
    with pytest.raises(SettingsError) as raised:
        phosphene.dream(PHOTO, **{**QUICK, name: value})
    assert str(raised.value) == sentence


def test_numbers_of_thousands_of_digits():
    with pytest.raises(SettingsError, match="seed = something of type int will not do: it should be less than"):
        phosphene.dream(PHOTO, **QUICK, seed=10**5000)


def test_a_function_for_a_setting_that_there_is_not():
    with pytest.raises(UnknownNameError, match="there is no setting called 'sead'; did you mean seed"):
        phosphene.dream(PHOTO, **QUICK, sead=len)


@pytest.mark.parametrize("image", [None, 5, b"x", math.nan, {"a": 1}, len])
def test_what_is_no_image_at_all(image):
    with pytest.raises(UsageError, match="is no image; one is a path, sample:NAME, noise:HEIGHTxWIDTH, an array"):
        phosphene.dream(image, **QUICK)


@pytest.mark.parametrize(("name", "value"), [("path", 5), ("path", ""), ("bits", 0), ("overwrite", [])])
def test_what_a_dream_cannot_be_saved_as(name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dreamed = phosphene.dream(PHOTO, **QUICK, output="kept.png")
    with pytest.raises(SettingsError, match=f"^{name} = "):
        dreamed.save(**{name: value})
    with pytest.raises(SettingsError, match=r"^side = 0 will not do"):
        dreamed.look(0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("images", [5, None, ""])
def test_what_is_not_several_images(images):
    with pytest.raises(SettingsError, match=r"^images = "):
        phosphene.dream_each(images, **QUICK)


@pytest.mark.parametrize("verb", [phosphene.resume, phosphene.resume_film, phosphene.replay])
@pytest.mark.parametrize("place", [5, None, ["x"], ""])
def test_what_is_no_place(verb, place):
    with pytest.raises(SettingsError, match="will not do"):
        verb(place)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("folder", ""),
        ("folder", 5),
        ("models", 5),
        ("depths", "many"),
        ("weights", "trained"),
        ("change", math.nan),
        ("on_progress", 5),
        ("device", 5),
    ],
)
def test_what_a_study_cannot_be_given(name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"folder": "study", "models": "efficientnet_lite0", "weights": "untrained", "depths": 0, name: value}
    with pytest.raises(SettingsError, match=f"^{name} = .* will not do"):
        phosphene.compare(PHOTO, **given)
    with pytest.raises(SettingsError, match="seeds"):
        phosphene.compare(PHOTO, "study", models="efficientnet_lite0", seeds=10**400)
    assert not list(tmp_path.iterdir())


def test_a_word_to_vary_is_one_value(tmp_path):
    with pytest.raises(SettingsError, match="steps = 'many' will not do"):
        phosphene.sweep(PHOTO, tmp_path / "sweep", vary={"steps": "many"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("look", 5), ("preset", [1]), ("at", 5), ("layers", 5), ("on_frame", 5), ("stop", 5), ("output", None)],
)
def test_what_a_zoom_cannot_be_given(name, value, tmp_path):
    given = {"output": tmp_path / "zoom.mp4", name: value}
    with pytest.raises(SettingsError, match=f"^{name} = .* will not do"):
        phosphene.zoom("sample:chelsea", **given)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_events_of_other_modules_and_devices_of_pytorch_are_taken(tmp_path):
    given = {"octaves": np.int64(1), "steps": np.int64(1), "jitter": 0, "size": np.int32(32)}
    stop, device = multiprocessing.Event(), torch.device("cpu")
    assert phosphene.dream(PHOTO, **given, stop=stop, device=device, memory=64 * 10**9).made.size == (26, 32)
    film = phosphene.zoom("sample:chelsea", tmp_path / "zoom.gif", **given, seconds=0.1, fps=10, key_steps=1)
    assert film == tmp_path / "zoom.gif"
    assert [path.name for path in tmp_path.iterdir()] == ["zoom.gif"]


def test_names_that_are_not_utf_8_of_a_films_guide(tmp_path):
    with pytest.raises(UsageError, match="is no name in UTF-8"):
        phosphene.zoom("sample:chelsea", tmp_path / "zoom.mp4", guide="\udcff.png", size=32)


def test_preparing_leaves_nothing_behind(tmp_path):
    recipe = Recipe(octaves=1, steps=1, size=48, layers=("blocks.1.1",))
    job = prepare("noise:40x48", recipe, "cpu", output=tmp_path / "out.dzi")
    assert not list(tmp_path.iterdir())
    steps = job.steps()
    next(steps)
    assert job.resumable == Path(tmp_path / "out.dzi.phosphene")
    assert job.resumable.is_dir()
    with pytest.raises(UsageError, match="was not finished"):
        prepare("noise:40x48", recipe, "cpu", output=tmp_path / "out.dzi")
    steps.close()


def test_a_dream_prints_in_a_line():
    found = phosphene.dream("noise:40x50", layers="blocks.1.1", octaves=1, steps=2, weights="untrained")
    assert re.fullmatch(r"<dream of noise:40x50, 50 x 40 px, blocks.1.1, score [\d.e+-]+>", repr(found))


@pytest.mark.parametrize(
    ("sum", "sentence"),
    [
        ("layer('a') * 'x'", "an objective is multiplied by a number, and not by 'x'"),
        ("layer('a') * layer('b')", "an objective is multiplied by a number, and not by Objective"),
        ("layer('a') + 1", "an objective or a function is added to an objective, and not 1"),
    ],
)
def test_sums_of_objectives_that_will_not_do(sum, sentence):
    """In a process without the tests' own check of types."""
    command = [sys.executable, "-c", f"from phosphene import layer; {sum}"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert f"SettingsError: {sentence}" in said
