"""A film in, a film out: its times, its sound, its colours; stopped and gone on; held still and at one strength."""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import torch

import phosphene
from phosphene import imagefile
from phosphene.cli import run as command
from phosphene.dreaming.strength import rms_change
from phosphene.errors import BrokenFilmError, ImageError, OutputExistsError, SettingsError, StoreError, UsageError
from phosphene.film import frames as story
from phosphene.film import sink, workers
from phosphene.film.asked import AskedFilm, from_toml
from phosphene.film.film import prepare
from phosphene.film.plan import PLAN, begin
from phosphene.film.settings import Part
from phosphene.film.sink import read_recipe
from phosphene.film.sound import levels_of
from phosphene.film.source import look_at, shots

from .conftest import SMALL, decoded, frame_times, packets, pan, write_film

CLI = ["--layer", "blocks.1.1", "--octaves", "2", "--steps", "2", "--later-steps", "1", "--later-octaves", "1"]
GIVEN = {"layers": ["blocks.1.1"], "octaves": 2, "steps": 2}


@pytest.fixture(scope="module")
def undisturbed(film, tmp_path_factory):
    target = tmp_path_factory.mktemp("undisturbed") / "dream.mp4"
    assert phosphene.animate(film, target, **SMALL) == target
    return target


def test_sound_and_times_are_those_of_the_film(film, undisturbed):
    assert packets(undisturbed, "audio") == packets(film, "audio")
    assert frame_times(undisturbed) == frame_times(film)
    assert look_at(str(undisturbed)).rate == 24
    assert list(undisturbed.parent.iterdir()) == [undisturbed]


@pytest.mark.parametrize(
    ("rate", "times", "base"),
    [(Fraction(30000, 1001), None, None), (Fraction(25), [0, 40, 90, 100, 400], Fraction(1, 1000))],
    ids=["29.97", "variable"],
)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_times_of_other_rates(tmp_path, rate, times, base, ending):
    source = write_film(tmp_path / f"in.{ending}", pan(5), rate=rate, times=times, time_base=base, sound=True)
    phosphene.animate(source, tmp_path / f"out.{ending}", **SMALL)
    assert frame_times(tmp_path / f"out.{ending}") == frame_times(source)
    assert packets(tmp_path / f"out.{ending}", "audio") == packets(source, "audio")
    if times is None:
        assert look_at(str(tmp_path / f"out.{ending}")).rate == rate


@pytest.mark.parametrize(
    ("fps", "shown"),
    [
        (24, [*range(8)]),
        (12, [0, 2, 4, 6]),
        (48, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
        (30, [0, 1, 1, 2, 3, 4, 5, 5, 6, 7]),
    ],
)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])  # exact times, and those in whole milliseconds
def test_another_rate_keeps_length_and_sound(tmp_path, monkeypatch, fps, shown, ending):
    monkeypatch.setattr(story, "dreamed", lambda job, stop: job.image.cpu())
    greys = [torch.full((3, 48, 64), 0.1 * k + 0.1) for k in range(8)]
    source = write_film(tmp_path / f"in.{ending}", greys, sound=True)
    target = tmp_path / f"out.{ending}"
    assert command(["animate", str(source), "-o", str(target), "--fps", str(fps), "--no-carry", *CLI]) == 0
    assert [round(float(frame.float().mean()) / 25.5) - 1 for frame in decoded(target)] == shown
    assert [float(when) for when in frame_times(target)] == pytest.approx(
        [k / fps for k in range(len(shown))], abs=1e-3
    )
    assert look_at(str(target)).rate == fps
    assert [data for _, data in packets(target, "audio")] == [data for _, data in packets(source, "audio")]


def test_another_rate_of_a_part_and_of_variable_times(tmp_path, monkeypatch):
    monkeypatch.setattr(story, "dreamed", lambda job, stop: job.image.cpu())
    greys = [torch.full((3, 48, 64), 0.2 * k + 0.1) for k in range(4)]
    source = write_film(tmp_path / "in.mkv", greys, times=[0, 100, 600, 800], time_base=Fraction(1, 1000))

    def shown(**part):
        frames = phosphene.frames(source, fps=10, carry=False, **part, **SMALL)
        return [(frame.time, round((float(frame.photograph.mean()) - 0.1) / 0.2)) for frame in frames]

    assert [grey for _, grey in shown()][:9] == [0, 1, 1, 1, 1, 1, 2, 2, 3]
    assert shown(start=0.5, seconds=0.4) == [(0.0, 2), (0.1, 2), (0.2, 2), (0.3, 3)]


def test_a_film_of_another_size_keeps_its_times(film, tmp_path):
    phosphene.animate(film, tmp_path / "small.mp4", size=32, **SMALL)
    assert look_at(str(tmp_path / "small.mp4")).size == (24, 32)
    assert frame_times(tmp_path / "small.mp4") == frame_times(film)
    assert packets(tmp_path / "small.mp4", "audio") == packets(film, "audio")


def test_a_part_of_a_film_has_the_sound_of_that_part(film, tmp_path):
    phosphene.animate(film, tmp_path / "part.mp4", start=0.25, seconds=0.125, **SMALL)
    assert frame_times(tmp_path / "part.mp4") == [0, Fraction(1, 24), Fraction(2, 24)]
    heard = packets(tmp_path / "part.mp4", "audio")
    assert [data for _, data in heard] == [data for when, data in packets(film, "audio") if 0.25 <= when < 0.375]
    assert all(0 <= when < Fraction(1, 8) for when, _ in heard)


@pytest.mark.parametrize("full", [False, True])
def test_colours_and_aspect_are_kept(tmp_path, full, monkeypatch):
    monkeypatch.setattr(story, "dreamed", lambda job, stop: job.image.cpu())
    ramp = torch.linspace(0, 1, 64).expand(3, 48, 64).contiguous()
    source = write_film(tmp_path / "in.mp4", [ramp, ramp], full=full, aspect=Fraction(4, 3))
    phosphene.animate(source, tmp_path / "out.mp4", carry=False, **{**SMALL, "later_steps": 1})
    before, after = look_at(str(source)), look_at(str(tmp_path / "out.mp4"))
    assert after.colour == before.colour
    assert (after.colour.range == 2) == full
    assert after.aspect == before.aspect == Fraction(4, 3)
    first = next(shots(after)).image
    assert (first - ramp).abs().mean() < 3 / 255
    assert (float(first.max()), float(first.min())) == pytest.approx((1, 0), abs=8 / 255)


def test_a_turned_film_is_dreamed_upright(tmp_path):
    image = pan(1)[0]
    lying = torch.rot90(image, -1, (1, 2)).contiguous()
    source = write_film(tmp_path / "in.mp4", [lying, lying], turned=90, aspect=Fraction(4, 3))
    footage = look_at(str(source))
    assert footage.size == (48, 64)
    assert footage.aspect == Fraction(3, 4)
    assert (next(shots(footage)).image - image).abs().mean() < 0.03


def test_ten_bits_are_said(tmp_path):
    source = write_film(tmp_path / "in.mp4", pan(2), pix_fmt="yuv420p10le")
    assert look_at(str(source)).notes == ("10 bits a channel come in, and 8 go out",)


def test_odd_sizes_become_even_and_that_is_said(tmp_path, capfd):
    source = write_film(tmp_path / "in.mp4", pan(2, 47, 61), pix_fmt="yuv444p")
    assert command(["animate", str(source), "-o", str(tmp_path / "out.mp4"), *CLI]) == 0
    assert ".mp4 holds even sides: 60 x 46 px, not 61 x 47" in capfd.readouterr().err
    assert look_at(str(tmp_path / "out.mp4")).size == (46, 60)


def test_each_frame_alone_is_the_dream_of_its_photograph(film):
    settings = {"layers": "blocks.1.1", "octaves": 2, "steps": 2, "size": 40}
    found = list(phosphene.frames(film, carry=False, seconds=0.1, device="cpu", **settings))
    assert len(found) == 3
    for frame in found:
        expected = phosphene.dream(frame.photograph, device="cpu", **settings).image
        assert (frame.image - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_a_scene_begins_at_a_cut_and_only_there(film):
    found = list(phosphene.frames(film, **SMALL))
    assert [frame.index for frame in found if frame.begins] == [1, 9]
    assert [frame.time for frame in found] == pytest.approx(np.arange(12) / 24)


def test_a_still_does_not_drift(tmp_path):
    still = pan(1, 64, 80)[0]
    source = write_film(tmp_path / "still.mp4", [still] * 24)
    found = list(phosphene.frames(source, layers="blocks.2.1", octaves=2, steps=6, device="cpu"))
    changes = [frame.change for frame in found]
    assert changes == pytest.approx([changes[0]] * 24, rel=0.05)
    assert max(abs(float((frame.image - frame.photograph).mean())) for frame in found) < 1 / 255


def test_a_dream_moves_with_what_it_is_on():
    """Beside the same frames dreamed each alone, at the same change."""

    def flicker(found):
        pairs = itertools.pairwise(frame.image for frame in found)
        moved = [(after[:, :, :-3] - before[:, :, 3:]).square().mean() for before, after in pairs]
        return float(torch.stack(moved).mean())

    images = pan(4, 72, 96, step=3)
    shown = [(story.Shot(image, k), None) for k, image in enumerate(images)]
    course = phosphene.film.timeline.Timeline({"layers": ("blocks.2.1",), "size": "full", "octaves": 2, "steps": 6})
    moments = phosphene.film.moments.Moments(course, (72, 96), "cpu")

    def dream(**motion):
        settings = story.Motion(**motion)
        return list(story.dream_frames(iter(shown), float, moments, settings))

    held = dream()
    alone = dream(carry=False, change=held[0].change)
    assert [frame.begins for frame in held] == [True] + 3 * [False]
    assert held[-1].change == pytest.approx(alone[-1].change, rel=0.02)
    assert flicker(held) < flicker(alone) / 4


def test_another_flow_can_be_put_in(film):
    asked = []

    def standing(frame, other):
        asked.append(frame.shape)
        return torch.zeros(2, *frame.shape[1:])

    list(phosphene.frames(film, seconds=0.1, flow=standing, **SMALL))
    assert asked == [(3, 48, 64)] * 4


@pytest.mark.parametrize("at", [1, 2, 7, 9, 11])
def test_killed_and_gone_on_it_ends_in_the_same_frames(film, undisturbed, tmp_path, at):
    target = tmp_path / "dream.mp4"
    stop = threading.Event()

    def on_frame(reached):
        if reached.frame.index == at:
            stop.set()

    assert phosphene.animate(film, target, on_frame=on_frame, stop=stop, **SMALL) is None
    assert not target.exists()
    folder = tmp_path / "dream.mp4.phosphene"
    assert command(["resume", str(folder)]) == 0
    for one, other in zip(decoded(target), decoded(undisturbed), strict=True):
        assert torch.equal(one, other)
    assert packets(target, "audio") == packets(undisturbed, "audio")
    assert not folder.exists()


@pytest.mark.slow
def test_killed_by_the_system_it_goes_on_too(film, undisturbed, tmp_path):
    target, folder = tmp_path / "dream.mp4", tmp_path / "dream.mp4.phosphene"
    words = [sys.executable, "-m", "phosphene", "animate", str(film), "-o", str(target), "--device", "cpu", *CLI]
    child = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while not (folder / "00000003.png").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert command(["resume", str(folder)]) == 0
    for one, other in zip(decoded(target), decoded(undisturbed), strict=True):
        assert torch.equal(one, other)


def test_the_newest_frame_is_dreamed_again_if_the_journal_does_not_know_it(film, undisturbed, tmp_path):
    target, stop = tmp_path / "dream.mp4", threading.Event()
    phosphene.animate(film, target, on_frame=lambda now: now.frame.index == 4 and stop.set(), stop=stop, **SMALL)
    half = tmp_path / "dream.mp4.phosphene" / "00000005.png"
    half.write_bytes(b"half a fr")
    assert command(["resume", str(half.parent)]) == 0
    assert all(map(torch.equal, decoded(target), decoded(undisturbed)))


def test_interrupted_it_exits_with_130_and_can_be_resumed(film, tmp_path, capfd, monkeypatch):
    from phosphene.cli import film as cli

    class Interrupting(cli.Listener):
        def frame(self, now):
            if now.frame.index == 2:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cli, "Listener", Interrupting)
    target = tmp_path / "dream.mp4"
    assert command(["animate", str(film), "-o", str(target), *CLI]) == 130
    assert f"`phosphene resume {target}.phosphene` goes on with it" in capfd.readouterr().err
    assert not target.exists()
    with pytest.raises(UsageError, match="holds a film that was not finished"):
        phosphene.animate(film, target, **SMALL)


def test_a_film_that_changed_is_not_gone_on_with(film, tmp_path):
    source, target, stop = tmp_path / "in.mp4", tmp_path / "out.mp4", threading.Event()
    shutil.copy(film, source)
    phosphene.animate(source, target, on_frame=lambda now: stop.set(), stop=stop, **SMALL)
    with source.open("ab") as file:
        file.write(b"more")
    assert command(["resume", str(tmp_path / "out.mp4.phosphene")]) == StoreError.exit_code


@pytest.mark.parametrize("ending", [".mov", ".mkv", ".webm", ".gif", ".apng", ".webp", ""])
def test_every_ending_holds_the_film_and_its_recipe(film, tmp_path, ending, capfd):
    target = tmp_path / f"dream{ending}"
    words = ["animate", str(film), "-o", str(target), "--seconds", "0.2", "--preview", str(tmp_path / "new.png"), *CLI]
    assert command(words) == 0
    said = capfd.readouterr()
    assert said.out == f"{target}\n"
    assert ("sound" in said.err) == (ending not in (".mov", ".mkv"))
    pictures = sorted(target.iterdir()) if ending == "" else [target]
    capfd.readouterr()
    assert command(["recipe", str(pictures[0])]) == 0
    text = capfd.readouterr().out
    assert 'layers = [\n    "blocks.1.1",\n]' in text
    assert "later_steps = 1" in text
    if ending == "":
        assert [path.name for path in pictures] == [f"{k:08d}.png" for k in range(1, 6)]
        assert all(imagefile.read(path).alpha is None for path in pictures)
    elif ending == ".webp":  # which FFmpeg does not read
        with PIL.Image.open(target) as moving:
            assert moving.n_frames == 5
    else:
        assert len(list(shots(look_at(str(target))))) == 5
    assert imagefile.read(tmp_path / "new.png").image.shape == (3, 48, 64)


def test_moving_pictures_last_as_long_as_the_film(tmp_path):
    phosphene.animate(write_film(tmp_path / "in.mp4", pan(12)), tmp_path / "out.gif", **SMALL)
    assert look_at(str(tmp_path / "out.gif")).seconds == pytest.approx(0.5, abs=0.01)


def test_a_folder_of_frames_is_a_film_in_the_order_of_its_numbers(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    images = pan(11)
    for number, image in enumerate(images, start=1):
        imagefile.write(folder / f"frame{number}.png", image)
    for source in (folder, folder / "frame*.png", folder / "frame%d.png"):
        found = list(shots(look_at(str(source))))
        assert [float((shot.image - image).abs().max()) < 1 / 255 for shot, image in zip(found, images, strict=True)]
    target = phosphene.animate(folder, tmp_path / "out.mp4", fps=10, **SMALL)
    assert frame_times(target) == [Fraction(k, 10) for k in range(11)]
    imagefile.write(folder / "frame12.png", pan(1, 40, 64)[0])
    with pytest.raises(ImageError, match=r"frame12\.png' is 64 x 40, and the frames before it 64 x 48"):
        list(shots(look_at(str(folder))))


def test_a_mask_may_be_a_picture_or_a_film(film, tmp_path):
    left, right = torch.zeros(3, 48, 64), torch.zeros(3, 48, 64)
    left[:, :, :32], right[:, :, 32:] = 1, 1
    imagefile.write(tmp_path / "left.png", left)
    mask = write_film(tmp_path / "mask.mkv", [left, right], codec="ffv1", pix_fmt="bgr0")
    changed = lambda frame: (frame.image - frame.photograph).abs().amax((0, 1)) > 0  # noqa: E731
    still = list(phosphene.frames(film, seconds=0.1, mask=str(tmp_path / "left.png"), **SMALL))
    moving = list(phosphene.frames(film, seconds=0.1, mask=str(mask), carry=False, **SMALL))
    assert not any(changed(frame)[34:].any() for frame in still)
    assert all(changed(frame)[:30].any() for frame in still)
    assert not changed(moving[0])[34:].any()
    assert [changed(frame)[34:].any().item() for frame in moving] == [False, True, True]
    assert not changed(moving[2])[:30].any()


@pytest.mark.parametrize("kind", ["half the rate", "frames"])
def test_a_masks_film_is_paired_by_time(film, tmp_path, kind):
    dark, light, rate = torch.zeros(3, 48, 64), torch.ones(3, 48, 64), 24
    if kind == "frames":  # which have the film's rate, whatever that is
        film, rate = write_film(tmp_path / "slow.mkv", pan(4), rate=Fraction(10)), 10
        (tmp_path / "mask").mkdir()
        for number, image in enumerate((dark, dark, light, light)):
            imagefile.write(tmp_path / "mask" / f"{number}.png", image)
        mask = tmp_path / "mask"
    else:
        slow = {"rate": Fraction(12), "codec": "ffv1", "pix_fmt": "bgr0"}
        mask = write_film(tmp_path / "mask.mkv", [dark, light, light], **slow)
    found = list(phosphene.frames(film, seconds=4 / rate, mask=str(mask), carry=False, **SMALL))
    assert [frame.change > 0 for frame in found] == [False, False, True, True]


def test_looks_fade_over_time(film):
    settings = {"octaves": 1, "steps": 2, "size": 40, "device": "cpu", "seconds": 0.1}
    faded = list(phosphene.frames(film, at=["0:look=strokes", "0.1:look=orchard"], carry=False, **settings))
    strokes = list(phosphene.frames(film, look="strokes", carry=False, **settings))
    assert torch.equal(faded[0].image, strokes[0].image)
    assert not torch.equal(faded[1].image, strokes[1].image)


def test_the_sound_drives_the_strength(tmp_path):
    source = write_film(tmp_path / "in.mp4", [pan(1)[0]] * 24, sound=True)
    found = list(phosphene.frames(source, follow="change=bass:0.02..0.08", **SMALL))
    changes = [frame.change for frame in found]
    assert changes[0] == pytest.approx(0.02, rel=0.1)
    assert changes[12] == pytest.approx(0.08, rel=0.05)  # it swells to the middle of the second


def broken(film: Path, target: Path) -> Path:
    """A Matroska file that ends in the middle."""
    write_film(target, pan(12))
    whole = target.read_bytes()
    target.write_bytes(whole[: len(whole) * 6 // 10])
    return target


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_film_that_breaks_off_keeps_what_came_before(film, tmp_path, workers):
    source = tmp_path / "in.mov"
    with av.open(str(source), "w", container_options={"movflags": "faststart"}) as out:
        video = out.add_stream("libx264", rate=24, options={"g": "1", "crf": "1", "bf": "0"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for image in pan(12):
            levels = np.ascontiguousarray((image * 255).byte().permute(1, 2, 0).numpy())
            out.mux(video.encode(av.VideoFrame.from_ndarray(levels, format="rgb24")))
        out.mux(video.encode(None))
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    target = tmp_path / "out.mp4"
    with pytest.raises(BrokenFilmError, match=r"after frame \d+.*; what came before is in .*out.mp4"):
        phosphene.animate(source, target, workers=workers, **SMALL)
    assert 0 < len(decoded(target)) < 12
    assert list(tmp_path.glob("*.phosphene")) == []
    with pytest.raises(BrokenFilmError, match=r"has no frame in the part that is asked for$"):
        phosphene.animate(source, target, start=0.4, overwrite=True, workers=workers, **SMALL)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda folder: folder / "absent.mp4", ImageError, "there is no film"),
        (lambda folder: text(folder / "words.mp4"), ImageError, "is not a film that can be read"),
        (lambda folder: sound(folder / "sound.m4a"), ImageError, "has no video: only sound"),
        (lambda folder: still(folder / "still.png"), UsageError, "is a still picture: `phosphene dream`"),
        (lambda folder: still(folder / "still.jpg"), UsageError, "is a still picture: `phosphene dream`"),
        (lambda folder: folder, ImageError, "there is no picture in the folder"),
        (lambda folder: folder / "frame*.png", ImageError, "no file is called like"),
    ],
)
def test_what_is_no_film(tmp_path, make, error, sentence):
    with pytest.raises(error, match=sentence):
        look_at(str(make(tmp_path)))


def text(path):
    path.write_text("no film")
    return path


def still(path):
    imagefile.write(path, pan(1)[0])
    return path


def sound(path):
    from .conftest import tones

    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        for frame in tones(0.5):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_what_cannot_be_asked_of_a_film(film, tmp_path, monkeypatch):
    def animate(name="out.mp4", **more):
        return phosphene.animate(film, tmp_path / name, **{**SMALL, **more})

    with pytest.raises(SettingsError, match=r"'out\.avi' cannot be written: a film's ending must be one of \.mp4"):
        animate("out.avi")
    with pytest.raises(ImageError, match="there is no folder"):
        animate("absent/out.mp4")
    with pytest.raises(UsageError, match=r"has 0\.50 seconds, and none at 7"):
        animate(start=7)
    (tmp_path / "there.mp4").touch()
    with pytest.raises(OutputExistsError):
        animate("there.mp4")
    silent = write_film(tmp_path / "silent.mp4", pan(2))
    with pytest.raises(SettingsError, match="has no sound to follow"):
        phosphene.animate(silent, tmp_path / "out.mp4", follow="sound", **SMALL)
    monkeypatch.setattr("phosphene.film.sink.CODECS", {".mp4": ("libx265z", {})})
    with pytest.raises(SettingsError, match="PyAV has no encoder libx265z here"):
        animate()
    assert list(tmp_path.glob("*.phosphene")) == []


def test_a_film_is_made_again_from_its_recipe(film, tmp_path, capfd):
    first, second, frames = tmp_path / "first.mp4", tmp_path / "second.mp4", tmp_path / "frames"
    words = ["--at", "0:look=strokes", "--at", "0.1:look=creatures", "--octaves", "1", "--steps", "2", "--fps", "12"]
    assert command(["animate", str(film), "-o", str(first), "--later-steps", "1", *words]) == 0
    capfd.readouterr()
    assert command(["replay", str(first), "-o", str(second), "--preview", str(tmp_path / "new.png")]) == 0
    assert "the recipe was made with" not in capfd.readouterr().err
    assert all(map(torch.equal, decoded(first), decoded(second)))
    assert packets(first, "audio") == packets(second, "audio")
    assert read_recipe(first) == read_recipe(second)
    assert (tmp_path / "new.png").exists()
    assert phosphene.replay_film(first, frames, write_film(tmp_path / "other.mp4", pan(4))) == frames
    assert command(["replay", str(frames / "00000002.png"), "-o", str(tmp_path / "again")]) == 0
    for one, other in zip(sorted(frames.iterdir()), sorted((tmp_path / "again").iterdir()), strict=True):
        assert torch.equal(imagefile.read(one).image, imagefile.read(other).image)
    assert command(["replay", str(first), "-o", str(tmp_path / "more.mp4"), "--bits", "16"]) == 2
    assert command(["replay", str(first), "-o", str(tmp_path / "more.mp4"), "--json"]) == 2
    assert "--json and --trace are for pictures" in capfd.readouterr().err


def test_nothing_given_is_nothing_recorded(film, tmp_path):
    target = phosphene.animate(film, tmp_path / "out.mp4", seconds=0.1, mask=None, **SMALL)
    asked, made = from_toml(read_recipe(target))
    assert asked.given["layers"] == ["blocks.1.1"]
    assert "mask" not in asked.given
    assert (asked.motion.later_steps, asked.part.seconds, made.source) == (1, 0.1, str(film))
    with pytest.raises(ImageError, match="the recipe in this film cannot be read: motion"):
        from_toml(read_recipe(target).replace("later_steps", "later_step"))


def test_a_picture_carries_no_films_recipe(film):
    with pytest.raises(ImageError, match="carries no recipe"):
        read_recipe(film)


def test_frames_are_of_the_change_that_they_say(undisturbed, film):
    for frame in phosphene.frames(film, seconds=0.1, **SMALL):
        assert frame.change == rms_change(frame.image, frame.photograph)


def test_an_older_folder_leaves_nothing_in_a_new_film(film, tmp_path):
    """Neither what was not removed whole, nor the frames of a longer film."""
    left, target = tmp_path / "dream.phosphene", tmp_path / "dream"
    left.mkdir()
    target.mkdir()
    for folder, number in ((left, 1), (target, 3)):
        imagefile.write(folder / f"{number:08d}.png", torch.zeros(3, 48, 64))
    (left / "journal-1.json").write_text("old")
    (left / "journal.json").write_text("old")
    settings = {**SMALL, "seconds": 0.08}
    phosphene.zoom("sample:coffee", target, fps=24, key_steps=1, overwrite=True, **{**GIVEN, "seconds": 0.08})
    assert sorted(path.name for path in target.iterdir()) == ["00000001.png", "00000002.png"]
    assert imagefile.read(target / "00000001.png").image.mean() > 0.1
    left.mkdir()
    (left / "journal.json").write_text("old")
    phosphene.animate(film, target, overwrite=True, **settings)
    assert len(list(target.iterdir())) == 2


def test_gone_on_with_from_another_folder_it_is_written_beside_its_own(film, tmp_path, monkeypatch):
    """What it is made from is found from there too, and the file says the same of it."""
    there, stop = tmp_path / "there", threading.Event()
    (there / "in").mkdir(parents=True)
    shutil.copy(film, there / "in" / "film.mkv")
    imagefile.write(there / "mask.png", torch.ones(3, 48, 64))
    monkeypatch.chdir(there)
    phosphene.animate("in/film.mkv", "whole.mp4", mask="mask.png", **SMALL)
    phosphene.animate("in/film.mkv", "out.mp4", mask="mask.png", on_frame=lambda _: stop.set(), stop=stop, **SMALL)
    monkeypatch.chdir(tmp_path)
    assert phosphene.resume_film(there / "out.mp4.phosphene") == there / "out.mp4"
    assert sorted(tmp_path.rglob("*.mp4")) == [there / "out.mp4", there / "whole.mp4"]
    (asked, made), whole = (from_toml(read_recipe(there / name)) for name in ("out.mp4", "whole.mp4"))
    assert asked == whole[0]
    assert (made.source, asked.given["mask"]) == ("in/film.mkv", "mask.png")


def test_a_part_follows_its_own_sound(tmp_path):
    source = write_film(tmp_path / "in.mp4", [pan(1)[0]] * 36, sound=True)
    whole, part = look_at(str(source)), look_at(str(source), Part(start=0.5))
    for seconds in (0.0, 0.25, 0.5):
        heard = levels_of(part, {"bass"})("bass", seconds)
        assert heard == levels_of(whole, {"bass"})("bass", seconds + 0.5)
    assert levels_of(part, {"bass"})("bass", 0.0) > levels_of(part, {"bass"})("bass", 0.5) + 0.5


def test_a_part_has_its_own_part_of_a_masks_film(film, tmp_path):
    dark, light = torch.zeros(3, 48, 64), torch.ones(3, 48, 64)
    mask = write_film(tmp_path / "mask.mkv", [dark, dark, light], codec="ffv1", pix_fmt="bgr0")
    found = list(phosphene.frames(film, start=1 / 24, seconds=0.1, mask=str(mask), carry=False, **SMALL))
    assert [frame.change > 0 for frame in found] == [False, True, True]
    with pytest.raises(UsageError, match=r"and none at 0\.4"):
        list(phosphene.frames(film, start=0.4, mask=str(mask), **SMALL))


@pytest.mark.parametrize("settings", [{"later_steps": 0}, {"seconds": -1}])
def test_settings_out_of_range_are_told(film, tmp_path, settings):
    with pytest.raises(SettingsError, match=rf"{next(iter(settings))} = .* will not do"):
        phosphene.animate(film, tmp_path / "out.mp4", **{**SMALL, **settings})
    for fps in (0, 0.0004):
        with pytest.raises(SettingsError, match=f"fps = {fps} will not do"):
            phosphene.zoom("noise:48x64", tmp_path / "out.mp4", fps=fps)
    with pytest.raises(SettingsError, match=r"fps = 1e-09 will not do: it should be greater than or equal to 0\.01"):
        phosphene.animate("film.mp4", tmp_path / "out.mp4", fps=1e-9)


@pytest.mark.parametrize("overwrite", [False, True])
def test_frames_do_not_go_into_a_file(film, tmp_path, overwrite):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ImageError, match="is a file, and frames go into a folder"):
        phosphene.animate(film, tmp_path / "out", overwrite=overwrite, **SMALL)
    assert (tmp_path / "out").read_text() == "mine"


def test_frames_through_a_link_that_leads_nowhere(tmp_path):
    (tmp_path / "out").symlink_to("gone")
    with pytest.raises(ImageError, match="out' is a link to a folder that is missing: make that first"):
        phosphene.zoom("noise:48x64", tmp_path / "out", seconds=0.1)


@pytest.mark.parametrize("name", ["x" * 300 + ".gif", "caf\udce9.png", ""])
def test_names_of_a_film_and_its_mask_are_looked_at(film, tmp_path, name):
    for source, mask in ((name, None), (film, name)):
        with pytest.raises(UsageError, match=r"no name|too many for a name|film = '' will not do"):
            phosphene.animate(source, tmp_path / "out.mp4", mask=mask, **SMALL)


def test_an_encoder_that_refuses_in_the_middle_is_one_sentence(film, tmp_path, monkeypatch):
    def refuse(*_):
        raise av.InvalidDataError(0, "Invalid data found", "")

    monkeypatch.setattr(sink.Video, "add", refuse)
    with pytest.raises(StoreError, match=r"out\.webm' could not be written \(Invalid data found\)"):
        phosphene.animate(film, tmp_path / "out.webm", **SMALL)


@pytest.mark.parametrize("place", ["add", "close"])
def test_a_disk_that_is_full_is_one_sentence_and_the_film_goes_on(film, tmp_path, monkeypatch, place):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sink.Video, place, full)
    with pytest.raises(StoreError, match=r"out.mp4' could not be written \(No space left on device\): `phosphene res"):
        phosphene.animate(film, tmp_path / "out.mp4", **SMALL)
    monkeypatch.undo()
    assert phosphene.resume_film(tmp_path / "out.mp4.phosphene") == tmp_path / "out.mp4"


def test_frames_that_changed_places_are_found_out(film, tmp_path):
    target, folder, stop = tmp_path / "out.mp4", tmp_path / "out.mp4.phosphene", threading.Event()
    phosphene.animate(film, target, on_frame=lambda now: now.frame.index == 2 and stop.set(), stop=stop, **SMALL)
    one, other = (folder / f"0000000{number}.png" for number in (1, 2))
    one.rename(tmp_path / "aside.png")
    other.rename(one)
    (tmp_path / "aside.png").rename(other)
    with pytest.raises(StoreError, match=r"00000001\.png is damaged or in a wrong place"):
        phosphene.resume_film(folder)
    imagefile.write(one, imagefile.read(one).image)
    with pytest.raises(StoreError, match=r"00000001\.png has no name in it, as those of older versions of Phosphene:"):
        phosphene.resume_film(folder)
    one.write_bytes(one.read_bytes()[:-400])
    for _ in ("cut off", "lost"):
        with pytest.raises(StoreError, match=r"00000001\.png is damaged or lost: remove the folder, and begin again"):
            phosphene.resume_film(folder)
        one.unlink(missing_ok=True)
    assert not target.exists()


def test_a_pipe_is_no_film(film, pipe):
    path = pipe("film.mp4")
    for read in (read_recipe, phosphene.frames, lambda path: phosphene.frames(film, mask=path, **SMALL)):
        with pytest.raises(ImageError, match=r"film\.mp4' is a pipe: give a film"):
            next(iter(read(path)))
    with pytest.raises(ImageError, match="'/dev/null' is a device: give a film"):
        next(iter(phosphene.frames("/dev/null")))


def test_a_worker_that_lives_on_tells_plans_apart(film, tmp_path):
    target, folder, found = tmp_path / "out.mp4", tmp_path / "out.mp4.phosphene", []
    for steps in (1, 2):
        begin(AskedFilm(source=str(film), given={**GIVEN, "steps": steps}), target, device="cpu")
        found.append(workers._film(folder, "efficientnet_lite0", imagefile.checksum(folder / PLAN)))
        assert workers._film(folder, "efficientnet_lite0", imagefile.checksum(folder / PLAN)) is found[-1]
        shutil.rmtree(folder)
    assert [each.recipe.steps for each in found] == [1, 2]


def test_the_recipe_has_the_cuts_that_were_planned(film):
    given = {**GIVEN, "layers": ["blocks.3.1"], "cuts": ["blocks.1.1"], "tile": 16}
    ready = prepare(AskedFilm(source=str(film), given=given), device="cpu")
    (job,) = ready.moments._ready.values()
    assert ready.recipe.cuts == job.recipe.cuts


def test_the_first_frame_says_nothing_of_the_time_left(film, tmp_path):
    heard = []
    phosphene.animate(film, tmp_path / "out.mp4", seconds=0.12, on_frame=heard.append, **SMALL)
    assert [now.seconds_left is None for now in heard] == [True, False, False]
    assert heard[1].seconds_left == heard[1].seconds - heard[0].seconds
    assert heard[2].seconds_left == 0
