"""People dream: the whole way in a real browser."""

import re
import shlex
import threading

import pytest
import torch

from phosphene import imagefile
from phosphene.api import dream as dream_here
from phosphene.cli import run
from phosphene.recipe.provenance import from_toml
from studio.words import choose, dream, picture_of, set_to, until, wait_done

pytestmark = pytest.mark.slow


def recipe_in(studio, page):
    return from_toml(imagefile.read_recipe(studio.folder / picture_of(page)))


def watched(page):
    """Sets that fill with the widths of the dream and the words of the status, however briefly they are shown."""
    widths = page.evaluate_handle("""() => {
        const seen = new Set(), after = document.querySelector('#after');
        new MutationObserver(async () => { await after.decode().catch(() => {}); seen.add(after.naturalWidth); })
            .observe(after, { attributes: true, attributeFilter: ['src'] });
        return seen;
    }""")
    words = page.evaluate_handle("""() => {
        const seen = new Set(), status = document.querySelector('#status');
        new MutationObserver(() => seen.add(status.textContent))
            .observe(status, { childList: true, characterData: true, subtree: true });
        return seen;
    }""")
    return widths, words


def test_a_sample_becomes_a_dream_that_grows_before_the_eyes(page, studio):
    page.click("#samples button:has(img[alt*=chelsea])")
    page.wait_for_selector("#dock:visible")
    page.check("#looks input[value=rings]", force=True)
    set_to(page, size=128, steps=30)
    widths, words = watched(page)
    dream(page)
    wait_done(page)
    assert page.evaluate("seen => seen.size", widths) >= 2, "the picture grows from octave to octave"
    told = page.evaluate("seen => [...seen]", words)
    assert any(re.search(r"octave \d of \d, step \d+ of 30, .* left", text) for text in told), told
    assert page.locator("#curve polyline").get_attribute("points").count(",") == 90
    recipe, made = recipe_in(studio, page)
    assert recipe.layers == ("blocks.3.2",)
    assert (recipe.steps, made.size) == (30, (85, 128))


def test_full_size_is_the_default_and_the_download_is_the_file(page, studio, photographs):
    choose(page, photographs["coffee"])
    set_to(page, steps=2)
    dream(page)
    wait_done(page)
    with page.expect_download() as download:
        page.click("#download")
    ours, theirs = download.value.path(), studio.folder / picture_of(page)
    assert ours.read_bytes() == theirs.read_bytes()
    assert imagefile.read(ours).image.shape == imagefile.read(photographs["coffee"]).image.shape
    assert from_toml(imagefile.read_recipe(ours))[0].size == "full"


def test_the_command_that_is_shown_makes_the_picture_again(page, studio, photographs, tmp_path, monkeypatch):
    choose(page, photographs["chelsea"])
    page.check("#looks input[value=agate]", force=True)
    set_to(page, steps=40, seed=5)
    dream(page)
    set_to(page, seed=6)  # for the next dream; the command stays this one's
    wait_done(page)
    page.click("#show-command")
    command = shlex.split(page.inner_text("#command-text"))
    assert command[:2] == ["phosphene", "dream"]
    monkeypatch.chdir(tmp_path)
    assert run(command[1:]) == 0
    again = imagefile.read(tmp_path / command[command.index("-o") + 1]).image
    assert torch.equal(again, imagefile.read(studio.folder / picture_of(page)).image)


def test_stop_ends_within_a_step_and_keeps_what_there_is(page, studio, photographs):
    choose(page, photographs["coffee"])
    set_to(page, steps=5000)
    dream(page)
    page.wait_for_selector("#curve polyline")
    task = page.evaluate("location.hash").removeprefix("#dream/")
    before = studio.ask("GET", f"/api/dreams/{task}")[1]["steps_done"]
    page.click("#stop")
    wait_done(page)
    report = studio.ask("GET", f"/api/dreams/{task}")[1]
    assert report["state"] == "stopped"
    assert before < report["steps_done"] < before + 200
    assert "stopped" in page.inner_text("#status")
    made = recipe_in(studio, page)[1]
    assert made.unfinished.startswith(f"stopped after step {report['step']} of 5000")


def test_a_running_dream_is_told_to_stop_once_and_takes_no_further_step(studio, photographs):
    steps = []
    stop = threading.Event()

    def hear(step):
        steps.append(step)
        stop.set()

    dream_here(str(photographs["coffee"]), steps=50, on_step=hear, stop=stop)
    assert len(steps) == 1


def test_the_seam_shows_the_photograph_on_its_left(page, photographs):
    choose(page, photographs["coffee"])
    set_to(page, steps=2)
    dream(page)
    wait_done(page)
    page.focus("#slider")
    page.keyboard.press("End")
    assert page.evaluate("getComputedStyle(document.querySelector('#after')).clipPath") == "inset(0px 0px 0px 100%)"
    page.keyboard.press("Home")
    assert page.evaluate("getComputedStyle(document.querySelector('#after')).clipPath") == "inset(0px 0px 0px 0%)"
    box = page.locator("#pair").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 3)
    assert page.evaluate("Number(document.querySelector('#slider').value)") == pytest.approx(25, abs=2)


def test_a_reload_finds_the_dream_and_so_does_a_new_tab(page, open_page, photographs):
    choose(page, photographs["rocket"])
    set_to(page, steps=5000)
    dream(page)
    page.wait_for_selector("#curve polyline")
    page.reload()
    page.wait_for_selector("#curve polyline")
    points = page.get_attribute("#curve polyline", "points").count(",")
    until(page, f"document.querySelector('#curve polyline').getAttribute('points').split(',').length > {points} + 2")
    assert page.input_value("#set-steps") == "5000"
    assert page.locator("#after").is_visible()
    page.close()
    other = open_page()
    other.wait_for_selector("#queue:visible")
    other.click("#queue-summary")
    other.click("#queue-list a")
    other.wait_for_selector("#curve polyline")
    other.click("#stop")
    wait_done(other)


def test_a_lost_connection_is_said_and_got_over(page, context, noted, photographs):
    noted.expected = ("ERR_INTERNET_DISCONNECTED",)
    choose(page, photographs["rocket"])
    set_to(page, steps=5000)
    dream(page)
    page.wait_for_selector("#curve polyline")
    context.set_offline(True)
    page.wait_for_selector("text=The studio does not answer; trying again")
    context.set_offline(False)
    page.wait_for_selector("text=/step \\d+ of 5000/")
    page.click("#stop")
    wait_done(page)


def test_two_tabs_do_not_disturb_each_other(open_page, photographs, studio):
    one, two = open_page(), open_page()
    choose(one, photographs["coffee"])
    set_to(one, steps=400)
    choose(two, photographs["chelsea"])
    two.check("#looks input[value=strokes]", force=True)
    set_to(two, steps=3)
    dream(one)
    dream(two)
    two.wait_for_selector("text=waiting, one ahead")
    two.wait_for_selector("text=1 dreaming, 1 waiting")
    one.click("#stop")
    wait_done(one)
    wait_done(two)
    assert picture_of(one).startswith("coffee-creatures")
    assert picture_of(two).startswith("chelsea-strokes")
    assert two.input_value("#set-steps") == "3"
    assert one.input_value("#set-steps") == "400"


def test_a_preview_follows_the_settings(page, photographs):
    choose(page, photographs["coffee"])
    page.wait_for_selector("#badge:visible")
    first = page.get_attribute("#after", "src")
    page.check("#looks input[value=orchard]", force=True)
    until(page, f"document.querySelector('#after').src.split('/')[5] !== '{first.split('/')[3]}'")
    assert page.inner_text("#badge") == "Preview at 256 px"
    assert page.locator("#download").is_hidden()


def test_what_is_out_of_range_is_said_and_nothing_is_lost(page, noted, photographs):
    noted.expected = ("422",)
    choose(page, photographs["coffee"])
    set_to(page, octaves=99)
    assert "octaves = 99 will not do" in page.text_content("#alert")
    set_to(page, octaves=2)
    assert page.locator("#alert").is_hidden()


def test_a_model_without_weights_says_what_can_be_done(page, noted, photographs):
    noted.expected = ("422", "404")
    choose(page, photographs["coffee"])
    set_to(page, model="vgg19")
    page.wait_for_selector("#looks >> text=weights are not here yet")
    page.click("#go")  # it may have failed before anything else can be seen
    page.wait_for_selector("#alert:visible")
    assert re.search("the weights of vgg19 are not on this machine", page.text_content("#alert"))
    assert page.locator("#go").is_visible()
