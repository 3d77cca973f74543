"""The zoom: its speed, its sharpness, its end; stopped and gone on with."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import phosphene
from phosphene import imagefile
from phosphene.cli import run as command
from phosphene.cli.film import go_on
from phosphene.dreaming.resample import resize
from phosphene.errors import SettingsError, UsageError
from phosphene.film import zoom as zooming
from phosphene.film.asked import AskedZoom
from phosphene.film.geometry import Course, sample
from phosphene.film.plan import begin
from phosphene.film.settings import Zoom
from phosphene.film.source import look_at

from .conftest import decoded

KEYS = {"key_steps": 1, "key_octaves": 1}
GIVEN = {"layers": ("blocks.1.1",), "octaves": 2, "steps": 2, "size": 64}
SMALL = {**GIVEN, **KEYS, "device": "cpu"}


def plain(photograph, size=(80, 120), **zoom):
    """A zoom's course, and its keys without any dreaming."""
    course = Course(Zoom(**zoom), size)
    keys = [course.key_of(photograph)]
    for number in range(1, course.keys + 1):
        keys.append(course.next_key(keys[-1], number))
    return course, keys


def at(course, keys, time):
    first = min(int(time / course.step), course.keys - 1)
    return course.frame(time, first, keys[first], keys[first + 1])


@pytest.fixture(scope="module")
def coffee():
    return imagefile.read("sample:coffee").image


def smooth(height, width):
    rows, columns = torch.linspace(0, 9, height)[:, None], torch.linspace(0, 14, width)[None]
    return torch.stack([0.5 + 0.3 * torch.sin(rows + k) * torch.cos(columns - k) for k in range(3)])


def test_the_first_frame_is_the_photograph(coffee):
    course, keys = plain(coffee)
    assert (at(course, keys, 0.0) - resize(coffee, (80, 120))).abs().mean() < 0.01


@pytest.mark.parametrize(("turn", "towards"), [(0, "0.5,0.5"), (0, "0.3,0.8"), (20, "0.4,0.45")])
def test_a_frame_is_what_a_camera_would_see(turn, towards):
    """Against one resampling of a photograph that can be magnified without end."""
    photograph = smooth(800, 1200)
    course, keys = plain(photograph, rate=2, seconds=2, turn=turn, towards=towards)
    row, column = map(float, towards.split(","))
    still = np.array([column * 1200, row * 800])
    for time in (0.3, 1.0, 1.9):
        angle, scale = np.radians(turn * time), 10 / 2**time
        matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        expected = sample(photograph, np.column_stack([matrix, still - matrix @ (still / 10)]), (80, 120))
        error = (at(course, keys, time) - expected).abs()
        assert error[:, 8:-8, 8:-8].mean() < 0.006  # the border of a turned view is mirrored


def test_speed_does_not_depend_on_the_rate_of_frames(tmp_path):
    def film(fps):
        asked = AskedZoom(source="sample:coffee", given=GIVEN, zoom=Zoom(seconds=1, fps=fps, **KEYS))
        ready, folder = zooming.prepare(asked, Path("zoom.mkv"), "cpu"), tmp_path / f"{fps}"
        folder.mkdir()
        return {round(frame.time * 120): frame.image for frame in zooming.frames(ready, folder)}

    slow, fast = film(24), film(60)
    assert (len(slow), len(fast)) == (24, 60)
    same = slow.keys() & fast.keys()
    assert len(same) == 12
    assert all(torch.equal(slow[time], fast[time]) for time in same)


def sharpness(image):
    return float((4 * image[:, 1:-1, 1:-1] - image[:, :-2, 1:-1] - image[:, 2:, 1:-1] - image[:, 1:-1, :-2]
                  - image[:, 1:-1, 2:]).square().mean())  # fmt: skip


def test_a_frame_before_a_key_is_as_sharp_as_the_one_at_it(tmp_path):
    asked = AskedZoom(
        source="sample:coffee", given=GIVEN | {"size": 128, "steps": 6}, zoom=Zoom(seconds=1, fps=50, rate=2)
    )
    ready = zooming.prepare(asked, Path("zoom.mkv"), "cpu")
    course, keys = ready.course, list(zooming.keys(ready, tmp_path))
    assert course.keys == 2
    at_key = sharpness(course.frame(course.step, 1, keys[1], keys[2]))
    before = sharpness(course.frame(course.step - 0.02, 0, keys[0], keys[1]))
    assert before >= 0.9 * at_key


def test_a_loop_ends_where_it_began(tmp_path):
    asked = AskedZoom(
        source="sample:coffee", given=GIVEN, zoom=Zoom(seconds=2, fps=10, rate=4, turn=15, loop=True, **KEYS)
    )
    ready = zooming.prepare(asked, Path("zoom.mkv"), "cpu")
    course, keys = ready.course, list(zooming.keys(ready, tmp_path))
    end = course.frame(course.seconds, course.keys - 1, keys[-2], keys[-1])
    begin = course.frame(0.0, 0, keys[0], keys[1])
    assert (end - begin).abs().max() < 0.02
    assert (course.frame(course.seconds - 0.1, course.keys - 1, keys[-2], keys[-1]) - begin).abs().mean() > 0.02


def test_stopped_it_goes_on_to_the_same_film(tmp_path):
    whole, target, stop = tmp_path / "whole.mp4", tmp_path / "zoom.mp4", threading.Event()
    settings = {**SMALL, "seconds": 1.5, "fps": 8}
    assert phosphene.zoom("sample:coffee", whole, **settings) == whole

    def on_frame(reached):
        if reached.frame.index == 5:
            stop.set()

    assert phosphene.zoom("sample:coffee", target, on_frame=on_frame, stop=stop, **settings) is None
    with pytest.raises(UsageError, match="was not finished"):
        phosphene.zoom("sample:coffee", target, **settings)
    assert command(["resume", f"{target}.phosphene"]) == 0
    assert all(map(torch.equal, decoded(target), decoded(whole)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.mp4", "zoom.mp4"]


def test_the_time_left_is_said_once_a_key_was_dreamed_after_the_first_frame(tmp_path):
    heard = []
    phosphene.zoom("noise:48x64", tmp_path / "zoom.mp4", seconds=1, fps=6, on_frame=heard.append, **SMALL)
    known = [now.frame.index for now in heard if now.seconds_left is not None]
    assert known == [4, 5, 6]
    assert heard[3].seconds_left == pytest.approx((heard[3].seconds - heard[0].seconds) / 3 * 2)


def test_the_command(tmp_path, capfd):
    target = tmp_path / "zoom.webp"
    words = ["zoom", "noise:48x64", "-o", str(target), "--seconds", "1", "--fps", "4", "--towards", "0.5,0.4"]
    words += ["--at", "0:step-size=0.01", "--at", "1:step-size=0.02", "--preview", str(tmp_path / "new.png")]
    words += ["--layer", "blocks.1.1", "--octaves", "1", "--steps", "2", "--key-steps", "1"]
    assert command(words) == 0
    said = capfd.readouterr()
    assert said.out == f"{target}\n"
    assert "frames are cut out of 3 pictures of 128 x 96 px" in said.err
    assert "4 frames of 64 x 48 px; up to " in said.err
    assert command(["recipe", str(target)]) == 0
    assert 'towards = "0.5,0.4"' in capfd.readouterr().out
    assert imagefile.read(tmp_path / "new.png").image.shape == (3, 48, 64)


def test_a_preview_that_cannot_be_written_does_not_cost_the_film(tmp_path, capfd):
    """As on a full disk; here the folder is gone by then."""
    (tmp_path / "previews").mkdir()
    run = begin(
        AskedZoom(source="noise:48x64", given=GIVEN, zoom=Zoom(**KEYS, seconds=1, fps=4)), tmp_path / "zoom.webp"
    )
    (tmp_path / "previews").rmdir()
    assert go_on(run, tmp_path / "previews" / "new.png") == 0
    assert (tmp_path / "zoom.webp").exists()
    assert capfd.readouterr().err.count("no more previews") == 1


def test_a_zoom_is_made_again_from_its_recipe(tmp_path):
    zoom, again, moving = tmp_path / "zoom.mp4", tmp_path / "again.mp4", tmp_path / "again.apng"
    phosphene.zoom("noise:40x64", zoom, seconds=0.25, rate=4, loop=True, at="0:step_size=0.01", **SMALL)
    assert command(["replay", str(zoom), "-o", str(again)]) == 0
    assert all(map(torch.equal, decoded(zoom), decoded(again)))
    assert command(["replay", str(zoom), "-o", str(moving), "--input", "sample:coffee"]) == 0
    assert command(["replay", str(moving), "-o", str(tmp_path / "other.apng")]) == 0
    assert moving.read_bytes() == (tmp_path / "other.apng").read_bytes()


def test_odd_sizes_and_what_cannot_be_asked(tmp_path):
    target = phosphene.zoom("noise:47x63", tmp_path / "zoom.mp4", seconds=0.2, **{**SMALL, "size": "full"})
    assert look_at(str(target)).size == (46, 62)
    with pytest.raises(SettingsError, match=r"'0\.5' is no place; one is spelt ROW,COLUMN"):
        Zoom(towards="0.5")
    with pytest.raises(UsageError, match="a zoom takes no mask"):
        phosphene.zoom("noise:48x64", tmp_path / "new.mp4", mask="mask.png", **SMALL)
    assert command(["zoom", "noise:48x64", "-o", str(tmp_path / "new.mp4"), "--rate", "1"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["zoom.mp4"]


def test_contrast_and_brightness_are_those_of_the_first_key():
    first, picture = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    found = zooming.exposed_as(0.5 * picture + 0.3, first)
    assert torch.allclose(found.mean((1, 2)), first.mean((1, 2)), atol=1e-3)
    assert torch.allclose(found.std((1, 2)), first.std((1, 2)), atol=1e-3)
