"""The same comparison of several photographs, in one page."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import phosphene
from phosphene import imagefile
from phosphene.cli import run
from phosphene.errors import PhospheneError, UsageError
from phosphene.studies.measure.claims import Finding, corrected
from phosphene.studies.page.survey import answer


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory):
    return phosphene.survey(
        ["sample:coffee", "sample:chelsea"],
        tmp_path_factory.mktemp("survey"),
        models=("efficientnet_lite0",),
        modes=("octaves",),
        depths=0,
        weights="both",
        seeds=1,
        size=64,
        octaves=1,
        steps=1,
    )


def test_each_photograph_has_its_folder_and_all_have_one_table(surveyed):
    assert {path.name for path in surveyed.folder.iterdir()} == {"coffee", "chelsea", "measures.csv", "report.html"}
    rows = list(csv.DictReader((surveyed.folder / "measures.csv").read_text().splitlines()))
    assert [row["photograph"] for row in rows] == ["sample:coffee"] * 2 + ["sample:chelsea"] * 2
    assert not surveyed.failures


def test_the_page_opens_with_the_answer_and_one_picture_and_asks_for_nothing(surveyed):
    page = surveyed.page.read_text()
    opening = page[page.index("<h1>") : page.index('id="how"')]
    assert opening.startswith("<h1>What one network sees in two photographs</h1>")
    assert re.findall("<dt>(.*)</dt>", opening)[-1].startswith("Cannot be tested here")
    assert opening.count("<img") == 1
    assert page.count("<img") == 1 + 2 * 3
    assert 'src="http' not in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("images", "names"),
    [
        ([], "none"),
        (["sample:coffee", "coffee.png"], "coffee, coffee"),
        (["a/Cat.png", "b/cat.png"], "Cat, cat"),
        (["measures.csv.png", "b.png"], "measures.csv, b"),
        (["Report.html.png", "b.png"], "Report.html, b"),
        ([np.zeros((70, 70, 3)), np.ones((70, 70, 3))], "array, array"),
    ],
)
def test_photographs_without_names_of_their_own_are_refused_before_the_first_step(images, names, tmp_path):
    with pytest.raises(UsageError, match=f"names of their own, and {names} will not do"):
        phosphene.survey(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_photograph_whose_name_is_dots_stays_within_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["..png", "...png"]
    for name in names:
        imagefile.write(Path(name), torch.rand(3, 64, 64))
    small = {"models": ["efficientnet_lite0"], "modes": ["plain"], "depths": 0, "weights": "untrained", "seeds": 1}
    found = phosphene.survey(names, tmp_path / "out", **small, size=64, octaves=1, steps=1)
    assert {path.name for path in tmp_path.iterdir()} == {"out", *names}
    assert {path.name for path in found.folder.iterdir()} == {*found.studies, "measures.csv", "report.html"}
    assert len(found.studies) == 2


@pytest.mark.parametrize("name", ["gone.png", "caf\udce9.png"])
def test_the_last_photograph_is_looked_for_before_the_first_step(tmp_path, name):
    told = {"on_progress": lambda _: pytest.fail("it was dreamed"), "models": ["efficientnet_lite0"]}
    with pytest.raises(PhospheneError, match=r"there is no file 'gone.png'|is no name in UTF-8"):
        phosphene.survey(["sample:coffee", name], tmp_path / "out", **told)
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_several_photographs(surveyed, capsys):
    flags = [
        "--models",
        "efficientnet_lite0",
        "--modes",
        "octaves",
        "--depths",
        "0",
        "--weights",
        "both",
        "--seeds",
        "1",
    ]
    small = ["--size", "64", "--octaves", "1", "--steps", "1", "--workers", "1"]
    assert run(["compare", "sample:coffee", "sample:chelsea", "-o", str(surveyed.folder), *flags, *small]) == 0
    assert capsys.readouterr().out.strip() == str(surveyed.page)


def test_the_answer_says_what_holds_what_does_not_and_what_is_open():
    found = [
        Finding("Training is strong", "", 9, 1.0, agreeing=9, p=0.004),
        Finding("Cats purr", "", 9, 1.0, agreeing=8, p=0.004),
        Finding("Deep is coarse", "", 9, -1.0, p=0.004),
        Finding("Eyes are blue", "", 9, 0.1, agreeing=5, p=0.3, least_p=0.004),
        Finding("Dogs bark", "", 2, 0.1, agreeing=2, p=0.5, least_p=0.5),
        Finding("A", ""),
    ]
    said = answer(corrected(found))
    assert [[each.sentence for each in found] for found in said.values()] == [
        ["Training is strong", "Cats purr"],
        ["Deep is coarse"],
        ["Eyes are blue"],
        ["Dogs bark"],
        ["A"],
    ]
