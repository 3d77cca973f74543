"""The command line: files, standard output and error, exit codes; processes where a signal has to reach one."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from rich.console import Console

from phosphene import api, imagefile, job
from phosphene.cli import models, run
from phosphene.cli.dreaming import Listeners, paired, run_job
from phosphene.errors import UsageError
from phosphene.job import prepare
from phosphene.recipe.settings import Recipe

QUICK = ["--layer", "blocks.2.1", "--octaves", "1", "--steps", "2", "--size", "64"]
PROCESS = [sys.executable, "-m", "phosphene"]
LONG = ["--layer", "blocks.4.2", "--octaves", "1", "--steps", "5000", "--size", "64"]


@dataclass
class Answer:
    returncode: int
    stdout: str
    stderr: str


def phosphene(*arguments, cwd="."):
    """Run a command within this process, which has the engine loaded already."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def dreamed(tmp_path_factory):
    """One dream, with everything that can be written beside it."""
    folder = tmp_path_factory.mktemp("dreamed")
    answer = phosphene(
        *("dream", "sample:coffee", "-o", "dream.png", *QUICK, "--json"),
        *("--trace", "trace.csv", "--preview", "preview.png", "--preview-every", "1"),
        cwd=folder,
    )
    assert answer.returncode == 0, answer.stderr
    return folder, answer


def test_json_events_tell_the_story(dreamed):
    _, answer = dreamed
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "step", "step", "saved"]
    assert events[0]["size"] == [43, 64]
    assert events[0]["recipe"]["layers"] == ["blocks.2.1"]
    assert events[2]["step"] == 2
    assert events[2]["seconds_left"] == 0
    assert answer.stderr == ""


def test_the_trace_and_the_preview_are_written(dreamed):
    folder, answer = dreamed
    rows = list(csv.DictReader((folder / "trace.csv").read_text().splitlines()))
    steps = [json.loads(line) for line in answer.stdout.splitlines()][1:3]
    assert [float(row["score"]) for row in rows] == [step["score"] for step in steps]
    assert torch.equal(imagefile.read(folder / "preview.png").image, imagefile.read(folder / "dream.png").image)
    assert not list(folder.glob(".phosphene*"))


def test_the_recipe_is_printed_and_replayed_to_the_same_pixels(dreamed):
    folder, _ = dreamed
    printed = phosphene("recipe", "dream.png", cwd=folder)
    assert tomllib.loads(printed.stdout)["made"]["source"] == "sample:coffee"
    replayed = phosphene("replay", "dream.png", "-o", "again.png", cwd=folder)
    assert replayed.returncode == 0
    assert "note" not in replayed.stderr
    assert (folder / "again.png").read_bytes() == (folder / "dream.png").read_bytes()


def test_a_photograph_whose_name_says_film_is_replayed(tmp_path):
    imagefile.write(tmp_path / "a [film].png", torch.rand(3, 40, 40))
    assert phosphene("dream", "a [film].png", "-o", "dream.png", *QUICK, cwd=tmp_path).returncode == 0
    assert phosphene("replay", "dream.png", "-o", "again.png", cwd=tmp_path).returncode == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "dream.png").read_bytes()


def test_a_replay_of_another_photograph_says_so(dreamed):
    folder, _ = dreamed
    answer = phosphene("replay", "dream.png", "--input", "sample:chelsea", "-o", "cat.png", cwd=folder)
    assert answer.returncode == 0
    assert "note: the photograph is not the one that the recipe was made with" in answer.stderr


def test_nothing_is_overwritten_unasked(dreamed):
    folder, _ = dreamed
    before = (folder / "dream.png").read_bytes()
    answer = phosphene("dream", "sample:chelsea", "-o", "dream.png", *QUICK, cwd=folder)
    assert answer.returncode == 2
    assert "exists already" in answer.stderr
    assert (folder / "dream.png").read_bytes() == before


def test_a_folder_goes_on_after_a_failure(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    imagefile.write(photos / "one.png", imagefile.read("sample:coffee").image)
    (photos / "two.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    imagefile.write(photos / "three.jpg", imagefile.read("sample:chelsea").image)
    (photos / "notes.txt").write_text("no picture")
    answer = phosphene("dream", photos, "-o", tmp_path / "out", *QUICK)
    assert answer.returncode == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.png", "three.png"]
    assert "two.jpg" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_two_photographs_of_one_name_do_not_meet(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        imagefile.write(tmp_path / folder / "photo.png", torch.rand(3, 40, 40))
    answer = phosphene("dream", "a/photo.png", "b/photo.png", "-o", "out", *QUICK, cwd=tmp_path)
    assert answer.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo-2.png", "photo.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["drem"], 2, 'Did you mean "dream"'),
        (["dream", "sample:coffee", "-o", "x.png", "--step", "3"], 2, "Did you mean --steps"),
        (["dream", "sample:coffee", "-o", "x.png", "--steps", "0"], 2, "steps = '0' will not do"),
        (["dream", "sample:coffee", "-o", "x.png", "--steps", "many"], 2, "steps"),
        (["dream", "sample:coffee", "-o", "x.png", "--look", "creature"], 2, "did you mean creatures"),
        (["dream", "sample:coffee", "-o", "x.png", "--preset", "tile"], 2, "did you mean tiles"),
        (["dream", "sample:coffee", "-o", "x.png", "--layer", "block.4.2"], 2, "did you mean blocks.4.2"),
        (["dream", "sample:coffee", "-o", "x.png", "--class", "expresso"], 2, "did you mean espresso"),
        (["dream", "sample:coffee", "-o", "x.png", "--model", "vgg91"], 2, "did you mean vgg"),
        (["dream", "sample:cofee", "-o", "x.png"], 2, "did you mean coffee"),
        (["dream", "nothing.jpg", "-o", "x.png"], 1, "there is no file 'nothing.jpg'"),
        (["dream", "sample:coffee", "-o", "x.docx"], 2, "its ending must be one of"),
        (["dream", "sample:coffee", "-o", "x.jpg", "--bits", "16"], 2, "cannot hold 16 bits"),
        (["dream", "sample:coffee", "-o", "nowhere/x.png"], 1, "there is no folder"),
        (["dream", "sample:coffee", "-o", "x.png", "--weights", "nothing.pth"], 1, "nothing.pth"),
        (["dream", "sample:coffee", "-o", "x.png", "--mask", "nothing.png"], 1, "nothing.png"),
        (["dream", "sample:coffee", "sample:chelsea", "-o", "x", "--trace", "t.csv"], 2, "one photograph at a time"),
        (["recipe", "nothing.png"], 1, "nothing.png"),
        (["dream", "sample:coffee"], 2, "--output is missing: `phosphene dream --help` says what it is"),
        (["sweep", "sample:coffee", "-o", "x"], 2, "--vary is missing"),
        (["dream", "sample:coffee", "-o", "x.png", "--class", "cat"], 2, "did you mean tiger cat"),
        (["layers", "vgg91"], 2, "did you mean vgg"),
        (["looks", "vgg1"], 2, "did you mean vgg19"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(arguments, code, told, tmp_path):
    answer = phosphene(*arguments, cwd=tmp_path)
    assert answer.returncode == code
    assert told in answer.stderr
    assert answer.stderr.startswith("phosphene: ")
    assert answer.stderr.count("\n") == 1
    assert answer.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [[], ["--keep-partial"]])
def test_an_interrupt_ends_within_a_step(tmp_path, keep):
    process = subprocess.Popen(
        [*PROCESS, "dream", "sample:coffee", "-o", "x.png", "--json", *LONG, *keep],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while '"step"' not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert time.monotonic() - sent < 30
    assert process.returncode == 130
    assert "stopped after step" in told
    assert [path.name for path in tmp_path.iterdir()] == (["x.png"] if keep else [])
    if keep:
        assert "was written to x.png" in told
        assert "unfinished" in phosphene("recipe", "x.png", cwd=tmp_path).stdout


def test_alpha_is_kept(tmp_path):
    alpha = torch.linspace(0, 1, 40).repeat(30, 1)
    imagefile.write(tmp_path / "in.png", torch.rand(3, 30, 40), alpha=alpha)
    assert phosphene("dream", "in.png", "-o", "out.png", *QUICK, cwd=tmp_path).returncode == 0
    assert torch.allclose(imagefile.read(tmp_path / "out.png").alpha, alpha, atol=1 / 255)


def test_layers_are_listed_with_the_reports_names():
    answer = phosphene("layers", "vgg19", "--size", "224")
    row = next(line for line in answer.stdout.splitlines() if "block5_conv4" in line)
    assert re.split(r"\s{2,}", row.strip()) == [
        *("block5_conv4", "features.35", "512", "16", "252", "14 x 14", "99.4%")
    ]


def test_names_are_whole_in_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setattr(models, "Console", partial(Console, force_terminal=True, width=80, color_system=None))
    assert run(["layers", "efficientnet_lite0"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "receptive" in said.split()
    assert "…" not in said
    assert {"blocks.0.0", "blocks.4.2", "blocks.6.0", "global_pool"} <= {
        line.split()[0] for line in lines if line.split()
    }
    assert run(["models"]) == 0
    words = capsys.readouterr().out.split()
    assert {"efficientnet_lite0", "efficientnet_lite1", "keras/inception_v3", "block5_conv4"} <= {*words}


def test_a_network_without_blocks_lists_its_operations(tmp_path, monkeypatch, capsys):
    (tmp_path / "plain_net.py").write_text("import torch\ndef net():\n    return torch.nn.Conv2d(3, 4, 3)\n")
    monkeypatch.chdir(tmp_path)
    assert run(["layers", "plain_net:net", "--size", "64"]) == 0
    assert "62 x 62" in capsys.readouterr().out


def test_models_samples_and_looks_are_listed():
    assert "efficientnet_lite0" in phosphene("models").stdout
    assert "sample:coffee" in phosphene("samples").stdout
    assert "creatures (default)" in phosphene("looks", "resnet50").stdout


def test_the_default_model_knows_an_espresso_from_a_cat():
    answer = phosphene("models", "check", "efficientnet_lite0")
    assert answer.returncode == 0
    assert "espresso" in answer.stdout
    assert "Egyptian cat" in answer.stdout


def test_a_process_ends_with_the_code(tmp_path):
    answer = subprocess.run([*PROCESS, "dream", "no.jpg", "-o", "x.png"], capture_output=True, text=True, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (1, "")


def test_weights_that_are_not_here_are_told_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    answer = phosphene("models", "fetch", "vgg19")
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1
    for part in ("vgg19-dcbb9e9d.pth", str(tmp_path), "efficientnet_lite0"):
        assert part in answer.stderr


BYTES = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (["--trace", "missing/t.csv"], "there is no folder"),
        (["--trace", "."], "is no name of a file"),
        (["--trace", "x" * 300], "too many for a name"),
        (["--trace", BYTES], "is no name in UTF-8"),
        (["--trace", "out.png"], "--trace would be written over 'out.png'"),
        (["--trace", "in.png"], "--trace would be written over 'in.png'"),
        (["--preview", "link.png"], "--preview would be written over 'out.png'"),
        (["--preview", "p.png", "--trace", "p.png"], "--trace would be written over 'p.png'"),
        (["--preview", "p.xyz"], "its ending must be one of"),
        (["--preview", "p.dzi"], "a preview cannot be 'p.dzi'"),
        (["--preview", "p.png", "--preview-every", "0"], "preview-every = 0 will not do: it should be 1 or more"),
    ],
)
def test_what_tells_of_a_dream_is_looked_at_before_it(tmp_path, monkeypatch, capsys, told, sentence):
    monkeypatch.chdir(tmp_path)
    imagefile.write("in.png", torch.zeros(3, 8, 8))
    before = (tmp_path / "in.png").read_bytes()
    (tmp_path / "link.png").symlink_to("out.png")
    commands = [["dream", "in.png", "-o", "out.png", *told]]
    if told[0] == "--preview" and len(told) == 2:
        commands += [["zoom", "in.png", "-o", "out.gif", *told]] if "link.png" not in told else []
    for command in commands:
        assert run(command) in (1, 2)
        assert sentence in capsys.readouterr().err
    assert (tmp_path / "in.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "link.png"]


@pytest.mark.parametrize("name", ["x" * 300, BYTES])
@pytest.mark.parametrize(
    "command",
    [
        "dream NAME -o a.png", "dream in.png -o NAME", "resume NAME", "recipe NAME", "replay NAME -o a.png",
        "animate NAME -o a.gif", "animate frames -o NAME", "zoom NAME -o a.gif", "zoom in.png -o NAME",
        "compare NAME -o s", "compare in.png -o NAME", "sweep in.png -o NAME --vary steps=1,2",
    ],
)  # fmt: skip
def test_names_that_cannot_be_are_told_by_every_command(tmp_path, monkeypatch, capsys, name, command):
    monkeypatch.chdir(tmp_path)
    imagefile.write("in.png", torch.zeros(3, 64, 64))
    assert run([name if word == "NAME" else word for word in command.split()]) == 2
    assert ("too many for a name" if "x" in name else "is no name in UTF-8") in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.parametrize(
    "command",
    ["dream - -o a.png", "dream a.png -o -", "dream a.png -o b.png --trace -", "recipe -", "zoom - -o a.gif"],
)
def test_a_dash_is_told_to_be_no_name(command, capsys):
    assert run(command.split()) == 2
    assert "'-' would be standard input or output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("dream photos -o out", "photos/photo.png"),
        ("dream photo.png -o a.png --mask mask.png", "mask.png"),
        ("dream photo.png -o a.png --guide mask.png --layer blocks.1.1", "mask.png"),
        ("dream photo.png -o a.png --weights own.png", "own.png"),
        ("replay dream.png -o a.png", "photo.png"),
        ("replay dream.png -o a.png", "mask.png"),
        ("resume b.png.phosphene", "b.png"),
        ("animate photos -o a.gif", "photos/photo.png"),
        ("animate photos -o a.gif --mask mask.png", "mask.png"),
    ],
)
def test_a_preview_does_not_cost_what_is_read_or_written(tmp_path, monkeypatch, capsys, command, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("photo.png", "photos/photo.png", "mask.png", "own.png"):
        imagefile.write(name, torch.rand(3, 40, 40))
    made = ["dream", "photo.png", "-o", "dream.png", "--mask", "mask.png", *QUICK]
    assert run(made) == 0
    assert run([*command.split(), "--preview", told]) == 2
    assert f"--preview would be written over '{told}': give it a name of its own" in capsys.readouterr().err


def test_a_resumed_dreams_preview_does_not_cost_its_photograph(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    imagefile.write("photo.png", torch.rand(3, 40, 40))
    stop = threading.Event()
    stop.set()
    recipe = Recipe(layers=("blocks.1.1",), octaves=1, steps=2, size="full", tile=64)
    job.run(prepare("photo.png", recipe, "cpu", "1B", output="b.png"), stop=stop)
    assert run(["resume", "b.png.phosphene", "--preview", "photo.png"]) == 2
    assert "--preview would be written over 'photo.png': give it a name of its own" in capsys.readouterr().err


@pytest.mark.parametrize("trace", ["a.html", "a_files"])
def test_a_trace_does_not_cost_what_is_written_beside(tmp_path, monkeypatch, capsys, trace):
    monkeypatch.chdir(tmp_path)
    assert run(["dream", "sample:coffee", "-o", "a.dzi", *QUICK, "--trace", trace]) == 2
    assert f"--trace would be written over '{trace}'" in capsys.readouterr().err


@pytest.mark.parametrize("output", [["-o", ""], ["--output", ""], ["--output="]])
@pytest.mark.parametrize("command", ["dream", "compare", "animate", "zoom"])
def test_an_empty_output_is_not_the_folder_that_we_are_in(tmp_path, monkeypatch, capsys, command, output):
    monkeypatch.chdir(tmp_path)
    assert run([command, "sample:coffee", *output]) == 2
    assert "'' is no name of a file and no value" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_removed_while_we_are_in_it_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "here"
    for command in ("dream sample:coffee -o a.png", "compare sample:coffee -o s", "zoom sample:coffee -o a.gif"):
        here.mkdir()
        os.chdir(here)
        here.rmdir()
        assert run([*command.split(), *QUICK[2:]]) == 2
        assert capsys.readouterr().err == "phosphene: the folder that you are in was removed: go to another one\n"


def test_an_empty_name_is_not_taken_for_none(dreamed):
    with pytest.raises(UsageError, match="image = '' will not do: give a name"):
        api.replay(dreamed[0] / "dream.png", "")


def test_a_picture_is_no_folder_to_go_on_with(dreamed, capsys):
    assert run(["resume", str(dreamed[0] / "dream.png")]) == 2
    assert "there is no dream to go on with in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a-2.jpg", "a.jpg"], ["a-2", "a"]),
        (["beach-sunset.jpg", "beach.jpg"], ["beach-sunset", "beach"]),
        (["a.jpg", "x/a.png", "a-2.png", "y/a.jpg"], ["a", "a-2", "a-2-2", "a-3"]),
    ],
)
def test_each_photograph_has_a_name_of_its_own(tmp_path, sources, names):
    assert [path.stem for _, path in paired(sources, tmp_path)] == names


def test_a_folder_with_one_photograph(tmp_path):
    (tmp_path / "in").mkdir()
    imagefile.write(tmp_path / "in" / "photo.png", torch.rand(3, 40, 40))
    assert phosphene("dream", "in", "-o", "out", *QUICK, cwd=tmp_path).returncode == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]
    (tmp_path / "file.png").touch()
    answer = phosphene("dream", "in", "in/photo.png", "-o", "file.png", *QUICK, cwd=tmp_path)
    assert answer.returncode == 2
    assert "2 photographs go into a folder, and 'file.png' is a picture's name" in answer.stderr
    (tmp_path / "file").touch()
    answer = phosphene("dream", "in", "-o", "file", *QUICK, cwd=tmp_path)
    assert answer.returncode == 1
    assert "cannot be made: File exists" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_trace_that_cannot_be_written_does_not_cost_the_picture(tmp_path, capsys):
    """As on a full disk; here the folder is gone by then."""
    (tmp_path / "traces").mkdir()
    listeners = Listeners(trace=tmp_path / "traces" / "t.csv", preview=tmp_path / "traces" / "p.png", preview_every=1)
    job = prepare(
        torch.rand(3, 40, 50), Recipe(layers=("blocks.1.1",), octaves=1, steps=2), "cpu", output=tmp_path / "a.png"
    )
    (tmp_path / "traces").rmdir()
    assert run_job(job, listeners) == 1
    assert (tmp_path / "a.png").exists()
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'a.png'}\n"
    assert "t.csv' could not be written: No such file or directory" in said.err
    assert said.err.count("no more previews") == 1
