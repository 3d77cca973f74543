"""People dream films: chosen, one frame at once, growing, played beside the film, downloaded."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("av")
sys.path.insert(0, str(Path(__file__).parent.parent))

from film.conftest import decoded, pan, write_film
from phosphene.film.sink import read_recipe
from studio.conftest import end, start
from studio.words import choose, dream, picture_of, set_to, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("film") / "street.mp4", pan(8, 64, 96), sound=True)


def downloaded(page, studio):
    """Download what is shown: it is the file in the studio's folder, whose name is returned."""
    name = picture_of(page)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == name
    assert Path(download.value.path()).read_bytes() == (studio.folder / name).read_bytes()
    return name


def test_a_film_is_dreamed_and_played_beside_itself(page, studio, film):
    choose(page, film)
    assert page.inner_text("#status") == "96 × 64"
    set_to(page, steps=3, octaves=1)
    page.wait_for_selector("#badge:visible")  # a frame at once
    assert page.inner_text("#badge") == "Preview at 256 px"
    words = page.evaluate_handle("""() => {
        const seen = new Set(), status = document.querySelector('#status');
        new MutationObserver(() => seen.add(status.textContent))
            .observe(status, { childList: true, characterData: true, subtree: true });
        return seen;
    }""")
    dream(page)
    page.wait_for_selector("#films:visible", timeout=120_000)
    assert any("of 8, " in word and word.startswith("frame ") for word in page.evaluate("seen => [...seen]", words))
    for name in ("film-before", "film-after"):
        until(page, f"document.querySelector('#{name}').readyState >= 1")
    assert page.evaluate("document.querySelector('#film-after').duration") == pytest.approx(1 / 3, abs=0.05)
    name = downloaded(page, studio)
    assert len(decoded(studio.folder / name)) == 8
    assert "steps = 3" in read_recipe(studio.folder / name)
    page.click("#show-command")
    command = page.inner_text("#command-text")
    assert command.startswith("phosphene animate ")
    assert command.split("-again.mp4")[1].strip()


def test_a_film_in_the_gallery_is_played(page, studio, film):
    choose(page, film)
    set_to(page, steps=1, octaves=1)
    dream(page)
    page.wait_for_selector("#films:visible", timeout=120_000)
    name = picture_of(page)
    page.goto(f"{studio.address}#picture/{name}")
    page.reload()
    page.wait_for_selector("#films:visible")
    until(page, "document.querySelector('#film-after').readyState >= 1")
    assert page.locator("#film-before").is_hidden()


def test_a_stopped_film_says_how_it_goes_on(page, studio, film):
    choose(page, film)
    set_to(page, steps=100, octaves=3)
    dream(page)
    page.click("#stop")
    page.wait_for_selector("#go:visible", timeout=60_000)
    until(page, "document.querySelector('#alert').textContent.includes('phosphene resume')")
    assert list(studio.folder.glob("*.phosphene"))


def test_a_photograph_is_zoomed_into_played_and_downloaded(page, studio, photographs):
    choose(page, photographs["coffee"])
    set_to(page, steps=1, octaves=1, size=48)
    page.click("#show-zoom")
    assert page.locator("button.primary:visible").all_inner_texts() == ["Dream the zoom"]
    box = page.locator("#towards").bounding_box()
    page.click("#towards", position={"x": 0.75 * box["width"], "y": 0.25 * box["height"]})
    towards = [float(share) for share in page.input_value("#set-towards").split(",")]
    assert towards == pytest.approx([0.25, 0.75], abs=0.01)
    for name, value in {"seconds": "0.5", "rate": "4", "towards": "0.25,0.75"}.items():
        page.fill(f"#set-{name}", value)
        page.press(f"#set-{name}", "Enter")
    page.check("#set-loop")
    page.click("#go-zoom")
    page.wait_for_selector("#films:visible", timeout=120_000)
    assert page.locator("#film-before").is_hidden()
    assert page.locator("#zoom").is_hidden()
    until(page, "document.querySelector('#film-after').readyState >= 1")
    assert page.evaluate("document.querySelector('#film-after').duration") == pytest.approx(0.5, abs=0.05)
    name = downloaded(page, studio)
    assert name.endswith("-zoom-1.mp4")
    assert len(decoded(studio.folder / name)) == 12
    assert 'towards = "0.25,0.75"' in read_recipe(studio.folder / name)
    page.click("#show-command")
    command = page.inner_text("#command-text")
    assert command.startswith("phosphene zoom ")
    assert command.endswith(" --seconds 0.5 --rate 4.0 --towards 0.25,0.75 --loop")
    page.reload()  # the address brings it back, and what was asked
    page.wait_for_selector("#films:visible")
    page.click("#show-zoom")
    assert page.input_value("#set-rate") == "4"
    assert page.is_checked("#set-loop")


def test_what_cannot_be_zoomed_into(page, studio, film):
    choose(page, film)
    assert page.locator("#show-zoom").is_hidden()
    name = studio.ask("POST", "/api/photographs?name=street.mp4", film.read_bytes())[1]["name"]
    status, answer = studio.ask("POST", "/api/dreams", {"photograph": name, "zoom": {}})
    assert status == 422
    assert "goes into a photograph" in answer["error"]
    status, answer = studio.ask("POST", "/api/dreams", {"photograph": "sample:coffee", "zoom": {"towards": "left"}})
    assert status == 422
    assert "'left' is no place" in answer["error"]


def test_what_is_no_film_is_told(studio):
    status, answer = studio.ask("POST", "/api/photographs?name=words.mp4", b"no film")
    assert status == 422
    assert "is not a film that can be read" in answer["error"]


def test_every_frame_of_a_film_costs(tmp_path, film):
    running = start(tmp_path / "dreams", "--most", "0.02")
    try:
        name = running.ask("POST", "/api/photographs?name=street.mp4", film.read_bytes())[1]["name"]
        order = {"photograph": name, "settings": {"steps": 1, "octaves": 1, "size": "full"}}
        assert running.ask("POST", "/api/previews", order)[0] == 201
        status, answer = running.ask("POST", "/api/dreams", order)
        assert status == 422
        assert "and this studio takes" in answer["error"]
        tiny = {"photograph": "sample:coffee", "settings": {"steps": 1, "octaves": 1, "size": 64}}
        assert running.ask("POST", "/api/dreams", tiny)[0] == 201
        assert running.ask("POST", "/api/dreams", tiny | {"zoom": {}})[0] == 422
        other = {"model": "vgg19", "weights": "untrained", "layers": ["block3_conv3"]}  # 51 times the arithmetic
        assert running.ask("POST", "/api/dreams", tiny | {"settings": tiny["settings"] | other})[0] == 422
    finally:
        end(running)
