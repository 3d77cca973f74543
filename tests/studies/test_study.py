"""A whole small study: its files, its numbers, its page, its commands; stopped and gone on with."""

import csv
import io
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from statistics import mean

import pytest
import torch

from phosphene import cli, imagefile
from phosphene.dreaming.resample import resize
from phosphene.networks import weights
from phosphene.studies.measure import table
from phosphene.studies.measure.measures import ssim
from phosphene.studies.page.plots import log_ticks, nice_ticks
from phosphene.studies.run.calibrate import TOLERANCE

SWEEP = ["sweep", "sample:coffee", "--vary", "layer=blocks.1.1,blocks.2.1", "--vary", "steps=1,2", "--workers", "1"]


def test_the_folder_holds_what_it_should(compared):
    path = compared.folder.path
    assert {file.name for file in path.iterdir()} == {
        "dreams", "costs", "report.html", "contact-sheet.png", "measures.csv", "times.csv", "study.json",
    }  # fmt: skip
    assert len(list((path / "dreams").glob("*.png"))) == len(compared.study.cells) == 2 * 2 * 2 + 2 * (2 - 1) * 2
    assert json.loads((path / "study.json").read_text())["kind"] == "comparison"


def test_every_dream_has_the_wanted_change_and_its_recipe(compared):
    for row in compared.rows:
        assert row["change"] == pytest.approx(0.08, rel=TOLERANCE + 0.02)
        recipe = imagefile.read_recipe(compared.folder.picture(row["cell"]))
        assert f"step_size = {row['step_size']}" in recipe


def test_the_table_is_what_measuring_a_file_gives(compared):
    rows = list(csv.DictReader(io.StringIO((compared.folder.path / "measures.csv").read_text())))
    assert len(rows) == len(compared.rows) == 2 * 2 * 2 + 2 * 2 * 2
    row = rows[3]
    dream = imagefile.read(compared.folder.picture(row["cell"])).image
    photograph = resize(compared.photo.image, tuple(dream.shape[1:]))
    assert float(row["ssim"]) == pytest.approx(ssim(dream, photograph), abs=1e-9)
    assert float(row["score_gain"]) == pytest.approx(float(row["score_after"]) / float(row["score_before"]))


def test_of_two_networks_each_is_as_far_from_the_other(compared):
    for seed in (0, 1):
        pair = [r for r in compared.rows if (r["grid"], r["column"], r["seed"]) == ("experiments", "octaves", seed)]
        for column in ("uniqueness_features", "uniqueness_pixels"):
            assert pair[0][column] == pytest.approx(pair[1][column]) != 0


def test_the_measures_are_a_data_frame_where_there_is_pandas(compared, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert compared.measures == [dict(row) for row in compared.rows]


def test_the_measures_as_a_data_frame(compared):
    pytest.importorskip("pandas")
    frame = compared.measures
    assert list(frame.columns) == list(table.COLUMNS)
    assert frame["change"].mean() == pytest.approx(mean(row["change"] for row in compared.rows))


def test_a_captions_command_makes_the_same_picture(compared, tmp_path):
    from phosphene.recipe.spelling import command

    cell = next(cell for cell in compared.study.cells if "resnet18" in cell.name and "plain" in cell.name)
    recipe = compared.results[cell.name].recipe
    words = shlex.split(command(recipe, "sample:coffee", str(tmp_path / "again.png")))
    assert words[:3] == ["phosphene", "dream", "sample:coffee"]
    assert torch.get_num_threads() == 1
    assert cli.run(words[1:]) == 0
    assert (tmp_path / "again.png").read_bytes() == compared.folder.picture(cell.name).read_bytes()


def test_the_page_has_its_parts_and_asks_for_nothing(compared, tmp_path):
    page = compared.report(tmp_path / "page.html").read_text()
    for words in (
        "Experiments",
        "From strokes to objects",
        "Not tested here",
        "Zhang, Isola",
        "resnet18",
    ):
        assert words in page
    assert page.count("phosphene dream sample:coffee -o") == 2 * (2 * 2 * 2 + 2 * 2 * 2)
    assert 'src="http' not in page
    assert '<link rel="stylesheet"' not in page


def test_a_photographs_name_cannot_break_the_page(compared, tmp_path):
    name = "</script><script>alert(1)</script>.png"
    study = compared.study.model_copy(update={"source": name})
    page = type(compared)(**{**vars(compared), "study": study}).report(tmp_path / "page.html").read_text()
    assert "<script>alert" not in page


def test_a_sweep_from_the_command_line(tmp_path, capsys, tiny_flags):
    assert cli.run([*SWEEP, *tiny_flags, "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "report.html")
    assert "4 of 4 cells" in printed.err
    assert cli.run([*SWEEP, *tiny_flags, "-o", str(tmp_path)]) == 0
    assert "cells" not in capsys.readouterr().err


def test_a_failed_cell_is_told_and_shown(tmp_path, capsys, tiny_flags):
    vary = ["--vary", "layer=blocks.1.1,blocks.1.1:1e300"]
    given = ["sweep", "sample:coffee", *vary, *tiny_flags, "-o", str(tmp_path / "s")]
    assert cli.run([*given, "--workers", "1"]) == 1
    assert "the gradient of blocks.1.1.add is not finite" in capsys.readouterr().err
    page = (tmp_path / "s" / "report.html").read_text()
    assert "1 of 2 cells failed" in page
    assert "<strong>Failed</strong>" in page
    rows = list(csv.DictReader(io.StringIO((tmp_path / "s" / "measures.csv").read_text())))
    assert [bool(row["failure"]) for row in rows] == [False, True]
    assert rows[1]["ssim"] == ""


@pytest.mark.parametrize(
    "vary",
    ["mask=mask.png,missing.png", "mask=broken.png", "guide=mask.png,missing.png", "weights=pretrained,missing.pth",
     "weights=broken.pth", "model=efficientnet_lite0,alexnet"],
)  # fmt: skip
def test_a_file_that_cannot_be_had_ends_it_before_the_first_step(tmp_path, monkeypatch, capsys, tiny_flags, vary):
    def offline(card):
        raise OSError("offline")

    monkeypatch.setattr(weights, "_download", offline)
    monkeypatch.chdir(tmp_path)
    imagefile.write("mask.png", torch.ones(3, 8, 8))
    for broken in ("broken.png", "broken.pth"):
        (tmp_path / broken).write_bytes(b"broken")
    for command in (["sweep", "sample:coffee", "--vary", vary], ["compare", "sample:coffee", "--mask", "missing.png"]):
        assert cli.run([*command, "--workers", "1", *tiny_flags, "-o", "study"]) == 1
        told = capsys.readouterr().err
        assert told.startswith("phosphene: ")
        assert told.count("\n") == 1
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_script_that_sweeps_runs_once(tmp_path, networks):
    script = tmp_path / "script.py"
    settings = f"vary={{'steps': [1]}}, model={networks[1]!r}, weights='untrained', size=64, octaves=1"
    script.write_text(
        f"print('once')\nimport phosphene\nstudy = phosphene.sweep('sample:coffee', 'study', {settings})\n"
        f"print(list(study.costs))\n"
    )
    answer = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout == f"once\n['{networks[1]}']\n"


def test_a_wrong_value_ends_before_the_first_step(tmp_path, capsys):
    code = cli.run(["sweep", "sample:coffee", "-o", str(tmp_path), "--vary", "octave_scael=1.2"])
    assert code == 2
    assert "did you mean octave_scale" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ticks_are_round_and_hold_the_values():
    assert nice_ticks(0.013, 0.094) == [0, 0.02, 0.04, 0.06, 0.08, 0.1]
    assert nice_ticks(-1.0, 4.2) == [-2, 0, 2, 4, 6]
    assert nice_ticks(3.0, 3.0)[0] <= 3.0 <= nice_ticks(3.0, 3.0)[-1]
    assert log_ticks(0.8, 30) == pytest.approx([0.5, 1, 2, 5, 10, 20, 50])


SCRIPT = "import sys; from phosphene.cli import main; main()"


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_in_the_same_places(compared, tmp_path, networks, tiny_flags):
    pytest.importorskip("ray")
    arguments = ["compare", "sample:coffee", "--models", ",".join(networks), "--modes", "plain,octaves", "--weights"]
    arguments += ["untrained", "--depths", "2", "--seeds", "2", *tiny_flags, "--cluster", "local", "-o", str(tmp_path)]
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, capture_output=True)
    here = compared.folder.path
    assert (tmp_path / "measures.csv").read_bytes() == (here / "measures.csv").read_bytes()
    for picture in (here / "dreams").glob("*.png"):
        assert (tmp_path / "dreams" / picture.name).read_bytes() == picture.read_bytes()


@pytest.mark.slow
def test_a_study_killed_at_any_point_goes_on_to_the_same_measures(tmp_path, networks, tiny_flags):
    """The process is killed outright, three times, and its workers with it."""
    arguments = ["compare", "sample:coffee", "--models", ",".join(networks), "--modes", "plain,octaves", "--weights"]
    arguments += ["untrained", "--depths", "0", "--seeds", "2", *tiny_flags, "--workers", "2"]

    def start(folder):
        command = [sys.executable, "-c", SCRIPT, *arguments, "-o", str(folder)]
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    rng = random.Random(0)
    for kill in range(3):
        running, dreams = start(tmp_path / "killed"), tmp_path / "killed" / "dreams"
        while running.poll() is None and len(list(dreams.glob("*.json"))) < 2 * kill + 1:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        running.send_signal(signal.SIGKILL)
        running.wait()
    done = set((tmp_path / "killed" / "dreams").glob("*.json"))
    before = {file: file.stat().st_mtime_ns for file in done}
    assert start(tmp_path / "killed").wait() == 0
    whole, killed = (tmp_path / name / "measures.csv" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
    assert len(before) >= 3
    assert sum(file.stat().st_mtime_ns == then for file, then in before.items()) >= len(before) - 1
    assert not [name for name in os.listdir(tmp_path / "killed") if name.endswith(".part")]
