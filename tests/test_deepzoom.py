"""A pyramid, with its page in a real browser."""

import io
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from phosphene import imagefile
from phosphene.cli import run as phosphene
from phosphene.disk import deepzoom
from phosphene.dreaming.resample import resize
from phosphene.errors import ImageError, OutputExistsError
from phosphene.job import prepare, run
from phosphene.recipe.provenance import from_toml
from phosphene.recipe.settings import Recipe

RECIPE = Recipe(layers=("blocks.1.1",), octaves=1, steps=1, size="full", tile=1024, halo=0, step_size=1e-4)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pyramid")
    imagefile.write(folder / "in.png", resize(imagefile.read("sample:coffee").image, (700, 1100)))
    run(prepare(str(folder / "in.png"), RECIPE, "cpu", output=folder / "out.dzi")).save()
    return folder


def test_the_pyramid(pyramid):
    image = ET.parse(pyramid / "out.dzi").getroot()
    assert (image.get("TileSize"), image.get("Overlap"), image.get("Format")) == ("510", "1", "jpg")
    assert [image[0].get(side) for side in ("Height", "Width")] == ["700", "1100"]
    assert len(list((pyramid / "out_files" / "11").iterdir())) == 6
    assert all(path.is_dir() for path in (pyramid / "out_files").iterdir()), "nothing carries the clock"
    assert sorted(path.name for path in pyramid.iterdir()) == ["in.png", "out.dzi", "out.html", "out_files"]
    assert "model = &quot;efficientnet_lite0&quot;" in (pyramid / "out.html").read_text()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux says what a process holds open")
def test_nothing_that_was_removed_is_held_open(pyramid):
    """A file that is open stays on the disk, whole, though no folder names it."""
    held = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [name for name in held if name.endswith("levels.tif (deleted)")]


def test_the_pyramids_recipe(pyramid, tmp_path, capsys):
    assert phosphene(["recipe", str(pyramid / "out.dzi")]) == 0
    recipe, made = from_toml(capsys.readouterr().out)
    assert recipe == RECIPE
    assert made.size == (700, 1100)
    (tmp_path / "other.dzi").write_text("<Image/>")
    assert phosphene(["recipe", str(tmp_path / "other.dzi")]) == 1
    assert "other.dzi' carries no recipe" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["out.html", "out_files"])
def test_what_is_beside_a_pyramid_is_not_written_over(tmp_path, other):
    (tmp_path / other).write_text("mine")
    with pytest.raises(OutputExistsError, match=f"{other}' exists already"):
        imagefile.check_output(tmp_path / "out.dzi", overwrite=False)
    (tmp_path / other).unlink()
    (tmp_path / "out_files").mkdir()
    imagefile.check_output(tmp_path / "out.dzi", overwrite=True)
    with pytest.raises(OutputExistsError, match="out_files' exists already"):
        imagefile.check_output(tmp_path / "out.dzi", overwrite=False)
    (tmp_path / "out.html").mkdir()
    with pytest.raises(ImageError, match=r"out\.html' is a folder"):
        imagefile.check_output(tmp_path / "out.dzi", overwrite=True)


def test_a_pyramid_through_a_link_is_written_where_it_points(pyramid, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.dzi").symlink_to("there/real.dzi")
    small = RECIPE.but(size=64, tile="auto", halo="exact")
    run(prepare("sample:coffee", small, "cpu", output=tmp_path / "link.dzi")).save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.dzi", "there"]
    assert (tmp_path / "link.dzi").is_symlink()
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["real.dzi", "real.html", "real_files"]


def test_a_name_cannot_break_the_page():
    text = deepzoom.page((1, 1), "</script><b>", "x = '</script>'")
    assert text.count("</script>") == 2
    line = next(line for line in text.splitlines() if line.startswith("const { files"))
    assert json.loads(line.split(" = ")[1].rstrip(";"))["files"] == "</script><b>_files"


@pytest.fixture(scope="module")
def page(browser, pyramid):
    page = browser.new_page(viewport={"width": 550, "height": 350})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto((pyramid / "out.html").as_uri())
    yield page
    page.close()


def shown(page):
    """What the browser shows once all tiles are there, [3, height, width] in 0..1."""
    page.wait_for_function("document.querySelector('canvas').dataset.pending === '0'")
    page.evaluate("document.querySelector('p').hidden = true")
    pixels = np.asarray(PIL.Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    assert page.errors == []
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_in_a_browser(pyramid, page):
    picture = imagefile.read(pyramid / "in.png").image
    assert (shown(page) - resize(picture, (350, 550))).abs().mean() < 0.02
    assert page.locator("canvas").get_attribute("data-level") == "10"

    page.mouse.move(0, 0)
    page.mouse.wheel(0, -300)  # twice as large, around the corner: pixel for pixel
    assert (shown(page) - picture[:, :350, :550]).abs().mean() < 0.02
    assert page.locator("canvas").get_attribute("data-level") == "11"

    page.mouse.move(500, 300)
    page.mouse.down()
    page.mouse.move(100, 50)
    page.mouse.up()
    assert (shown(page) - picture[:, 250:600, 400:950]).abs().mean() < 0.02

    page.keyboard.press("0")
    assert (shown(page) - resize(picture, (350, 550))).abs().mean() < 0.02
