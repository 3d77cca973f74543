"""`make study` where there is a network: the report's weights come from a server on this machine, with random numbers.

They are in files of Keras's names and layout, which Keras itself writes, and torchvision's in one of its checkpoints.
"""

import csv
import hashlib
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

from phosphene.cli import run
from phosphene.networks.card import ModelCard
from phosphene.networks.cards import CARDS
from phosphene.studies import api
from test_keras import MAKERS, Server, keras, save, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]

PROJECT = Path(__file__).parents[2]
KERAS = tuple(f"keras/{architecture}" for architecture in MAKERS)
MODELS = (*KERAS, "resnet50")
SMALL = {"--size": "128", "--octaves": "1", "--steps": "1", "--seeds": "1", "--depths": "0", "--workers": "1"}


def words_of_make(folder: Path) -> list[str]:
    """The words behind `phosphene` that `make study` runs, with other models, into `folder`, and small."""
    outside = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE")
    }  # not `make test`'s own
    told = subprocess.run(
        ["make", "-n", "study"], cwd=PROJECT, env=outside, capture_output=True, text=True, check=True
    ).stdout
    words = shlex.split(told.replace("\\\n", " ")[told.index("phosphene compare") :])[1:]
    for option, value in {**SMALL, "-o": str(folder), "--models": ",".join(MODELS)}.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return words


def published(server: Server, card: ModelCard, file: Path) -> ModelCard:
    """The card of a file at the server."""
    body = file.read_bytes()
    address = f"http://127.0.0.1:{server.server_port}/{file.name}"
    return replace(
        card, weights_url=address, sha256=hashlib.sha256(body).hexdigest(), md5=hashlib.md5(body).hexdigest()
    )


@pytest.fixture(autouse=True)
def no_costs(monkeypatch):
    """They are measured in processes that know the real cards alone, and are not on a survey's page."""
    monkeypatch.setattr(api, "costs", lambda *_: {})


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Hands out random weights of the four networks, whose cards know it for their publisher."""
    with served(tmp_path / "published") as serving:
        _publish(serving, monkeypatch)
        yield serving


def _publish(serving, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(serving.folder.with_name("torch")))
    keras.config.set_floatx("float32")
    for name, maker in zip(KERAS, MAKERS.values(), strict=True):
        card = CARDS[name]
        model = getattr(keras.applications, maker)(weights=None, include_top=False)
        file = save(model, serving.folder / card.without_top.weights_file)
        monkeypatch.setitem(CARDS, name, replace(card, without_top=published(serving, card.without_top, file)))
    file = serving.folder / CARDS["resnet50"].weights_file
    torch.save(torchvision.models.resnet50().state_dict(), file)
    monkeypatch.setitem(CARDS, "resnet50", published(serving, CARDS["resnet50"], file))


def test_it_fetches_the_reports_weights_and_makes_the_page_with_them(server, tmp_path):
    folder = tmp_path / "study"
    words = words_of_make(folder)
    assert run(words) == 0
    assert sorted(server.asked) == sorted(file.name for file in server.folder.iterdir())
    rows = list(csv.DictReader((folder / "measures.csv").read_text().splitlines()))
    trained = {row["model"] for row in rows if row["weights"] == "pretrained"}
    assert trained == set(MODELS)
    assert {row["photograph"] for row in rows} == {"sample:chelsea", "sample:coffee", "sample:rocket"}
    page = (folder / "report.html").read_text()
    assert "Trained weights that are missing" not in page
    assert "keras/inception_v3 trained" in page
    # The same command again asks for nothing and dreams nothing.
    times = {file: file.stat().st_mtime_ns for file in folder.glob("*/dreams/*.png")}
    assert run(words) == 0
    assert len(server.asked) == len(MODELS)
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*/dreams/*.png")} == times


def test_without_a_network_the_page_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    nowhere = replace(CARDS["resnet50"], weights_url="http://127.0.0.1:9/resnet50-0676ba61.pth")
    monkeypatch.setitem(CARDS, "resnet50", nowhere)
    words = words_of_make(tmp_path / "study")
    words[words.index("--models") + 1] = "resnet50,efficientnet_lite0"
    assert run(words) == 0
    assert "resnet50 has no trained weights here" in capsys.readouterr().err
    page = (tmp_path / "study" / "report.html").read_text()
    assert "Trained weights that are missing" in page
    assert "resnet50 trained" not in page
