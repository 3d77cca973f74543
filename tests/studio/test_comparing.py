"""One photograph in several ways, by the engine of `phosphene compare`; in a real browser."""

import json
import shlex
import time
from pathlib import Path

import pytest
import torch

from phosphene import imagefile
from phosphene.cli import run
from phosphene.dreaming.strength import rms_change
from phosphene.errors import SettingsError, UsageError
from phosphene.recipe.provenance import from_toml
from phosphene.studies.run.calibrate import TOLERANCE
from phosphene.studies.run.cell import Ended, dream_cell
from phosphene.studio.comparisons import Comparison, Way, described, planned
from phosphene.studio.folder import Folder
from studio.conftest import end, start
from studio.words import choose, set_to, until

LITE0 = "efficientnet_lite0"
RINGS, EYES, LAYER = (
    Way(model=LITE0, look="rings"),
    Way(model=LITE0, look="eyes"),
    Way(model="resnet18", layer="layer2.1"),
)
DONE = "#compare-view .grid figure:nth-child({}) a[href^='#picture/']"


def asked(*ways, **settings):
    given = {"size": 48, "octaves": 1, "steps": 1} | settings
    return Comparison(photograph="sample:coffee", ways=ways, settings=given)


def recipe_in(path):
    return from_toml(imagefile.read_recipe(path))[0]


def test_what_others_have_done_is_taken_over(tmp_path):
    folder = Folder(tmp_path)
    one = folder.comparison(planned(asked(RINGS, EYES), folder))
    photo = imagefile.read("sample:coffee")
    *_, ended = dream_cell(one.plan().cells[0], photo, "cpu")
    assert isinstance(ended, Ended)
    one.keep(ended)
    name = planned(asked(EYES, RINGS, Way(model=LITE0, look="silk")), folder)
    assert [bool(cell["picture"]) for cell in described(name, folder)["cells"]] == [False, True, False]
    assert folder.comparison(name).done(one.plan().cells[0], photo.sha256)
    other = planned(asked(RINGS, EYES, steps=2), folder)
    assert [cell["picture"] for cell in described(other, folder)["cells"]] == [None, None]


def test_what_cannot_be_compared_is_said_and_leaves_nothing(tmp_path):
    folder = Folder(tmp_path)
    with pytest.raises(UsageError, match="two of these dreams are rings"):
        planned(asked(RINGS, RINGS), folder)
    with pytest.raises(UsageError, match=r"blocks\.9"):
        planned(asked(RINGS, Way(model=LITE0, layer="blocks.9.9")), folder)
    with pytest.raises(SettingsError, match="a comparison takes layers from its ways"):
        planned(asked(RINGS, EYES, layers=["blocks.1.1"]), folder)
    assert list((tmp_path / "comparisons").iterdir()) == []


@pytest.fixture
def compared(page, photographs):
    """Two looks and a layer, chosen on the page; their comparison has begun."""
    choose(page, photographs["coffee"])
    set_to(page, steps=2, octaves=2)
    page.click("nav >> text=Compare")
    page.check("#compare-looks input[value=rings]", force=True)
    page.check("#compare-looks input[value=eyes]", force=True)
    page.click("#compare-view >> text=Browse layers")
    page.click(".tile:has-text('blocks.5.3')")
    page.click("#browser-close")
    page.fill("#compare-change", "0.05")
    page.press("#compare-change", "Enter")
    page.click("#compare-view button.primary")
    until(page, "location.hash.startsWith('#compare/')")
    return page.evaluate("location.hash").removeprefix("#compare/")


@pytest.mark.slow
def test_several_looks_and_layers_side_by_side(page, studio, compared, photographs, tmp_path, monkeypatch):
    page.wait_for_selector(DONE.format(3), timeout=120_000)
    page.wait_for_selector("#compare-view >> text=3 dreams, each at a change of 0.05", timeout=60_000)
    page.reload()
    page.wait_for_selector(DONE.format(3))
    figures = page.locator("#compare-view .grid a")
    assert figures.all_inner_texts() == ["rings", "eyes", "blocks.5.3"]
    dreams = sorted((studio.folder / "comparisons" / compared / "dreams").glob("*.png"))
    assert {recipe_in(path).layers for path in dreams} == {("blocks.3.2",), ("blocks.4.2",), ("blocks.5.3",)}
    before = imagefile.read(photographs["coffee"]).image
    for path in dreams:
        assert rms_change(imagefile.read(path).image, before) == pytest.approx(0.05, rel=TOLERANCE + 0.02)
    figures.nth(1).click()
    page.wait_for_selector("#curve polyline")
    assert page.input_value("#set-steps") == "2"
    assert page.is_checked("#looks input[value=eyes]")
    command = shlex.split(page.text_content("#command-text"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run(command[1:]) == 0
    [eyes] = [path for path in dreams if "eyes" in path.name]
    assert torch.equal(imagefile.read(Path(command[command.index("-o") + 1])).image, imagefile.read(eyes).image)


@pytest.mark.slow
def test_the_report_works_and_is_shut_off(page, context, studio, compared, noted):
    page.wait_for_selector("#compare-view a:text-is('Report')", timeout=120_000)
    with context.expect_page() as opened:
        page.click("#compare-view a:text-is('Report')")
    report = opened.value
    report.wait_for_selector("text=Side by side")
    assert report.locator(".strip .picture img").count() == 3
    report.click(".strip .picture")
    assert report.locator("#viewer").is_visible(), "its own script runs"
    assert noted.errors == []
    noted.expected = ("Content Security Policy", "Failed to load", "net::ERR")
    asked = """async (address) => {
        const say = (promise) => promise.then(() => "answered", () => "refused");
        return [await say(fetch(address + "api/pictures")), await say(fetch("http://192.0.2.1/")), String(origin)];
    }"""
    assert report.evaluate(asked, studio.address) == ["refused", "refused", "null"]


@pytest.mark.slow
def test_a_comparison_is_stopped_gone_on_with_and_found_again(page, studio, photographs):
    choose(page, photographs["rocket"])
    set_to(page, steps=2500, octaves=1)
    page.click("nav >> text=Compare")
    for look in ("rings", "eyes"):
        page.check(f"#compare-looks input[value={look}]", force=True)
    page.click("#compare-view button.primary")
    page.wait_for_selector("#compare-view >> text=dreaming", timeout=60_000)
    page.click("#compare-view button:has-text('Stop')")
    page.wait_for_selector("#compare-view >> text=0 of 2 dreamed", timeout=60_000)
    name = page.evaluate("location.hash").removeprefix("#compare/")
    page.click("#compare-view button:has-text('Go on')")
    page.wait_for_selector("#compare-view >> text=about", timeout=60_000)
    page.click("#compare-view button:has-text('Stop')")
    page.wait_for_selector("#compare-view >> text=0 of 2 dreamed", timeout=60_000)
    page.click("text=Another comparison")
    page.click(f".earlier >> text={name}")
    page.wait_for_selector(f"#compare-view h2:text-is('{name}')")
    assert studio.ask("GET", "/api/dreams")[1] == []


@pytest.mark.slow
def test_a_studio_that_is_ended_goes_on_with_what_waited(tmp_path):
    ways = [{"model": LITE0, "look": "rings"}, {"model": LITE0, "look": "eyes"}]
    settings = {"size": 48, "steps": 1, "octaves": 1}
    running = start(tmp_path / "dreams")
    begun = running.ask(
        "POST", "/api/comparisons", {"photograph": "sample:coffee", "ways": ways, "settings": settings}
    )[1]
    waits = running.ask("POST", "/api/dreams", {"photograph": "sample:coffee", "settings": settings})[1]["id"]
    end(running)  # while the comparison's processes begin
    running = start(tmp_path / "dreams")
    try:
        report = {"state": "waiting"}
        while report["state"] in ("waiting", "dreaming"):
            time.sleep(0.1)
            report = running.ask("GET", f"/api/dreams/{waits}")[1]
        assert report["picture"] == "coffee-creatures-1.png"
        name = begun["order"]["comparison"]
        assert running.ask("GET", "/api/comparisons")[1] == [name]
        known = running.ask("GET", f"/api/comparisons/{name}")[1]
        assert (known["task"], [cell["picture"] for cell in known["cells"]]) == (None, [None, None])
    finally:
        end(running)


def test_orders_are_read_as_strictly_as_dreams(studio):
    ways = [{"model": LITE0, "look": "rings"}, {"model": LITE0, "look": "eyes"}]
    for order, status in [
        ({"photograph": "sample:coffee", "ways": ways[:1]}, 422),
        ({"photograph": "../secret.png", "ways": ways}, 404),
        ({"photograph": "sample:coffee", "ways": ways, "settings": {"mask": "/etc/passwd"}}, 404),
        ({"photograph": "sample:coffee", "ways": ways, "settings": {"octaves": 99}}, 422),
        ({"photograph": "sample:coffee", "ways": ways, "change": 2}, 422),
    ]:
        answer = studio.ask("POST", "/api/comparisons", order)
        assert answer[0] == status, (order, answer)
        assert json.dumps(answer[1]["error"]).count("\\n") == 0
    for path in ("..%2Fphotographs", ".cache", "nothing"):
        assert studio.ask("GET", f"/api/comparisons/{path}")[0] == 404
        assert studio.ask("GET", f"/api/comparisons/{path}/report")[0] == 404
        assert studio.ask("POST", f"/api/comparisons/{path}", {})[0] == 404
