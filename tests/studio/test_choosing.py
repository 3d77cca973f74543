"""Layers, masks, guides, the gallery, pictures that bring their settings, and the comparison; in a real browser."""

import base64

import pytest
import torch

from phosphene import imagefile
from phosphene.api import dream as dream_here
from phosphene.recipe.provenance import from_toml
from phosphene.recipe.settings import Recipe
from studio.words import choose, dream, picture_of, set_to, until, wait_done

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dreamed(studio, photographs):
    """A picture in the folder: the coffee, with settings of its own."""
    data = photographs["coffee"].read_bytes()
    photograph = studio.ask("POST", "/api/photographs?name=coffee.png", data)[1]["name"]
    settings = {"steps": 3, "seed": 11, "octaves": 2}
    order = {"photograph": photograph, "look": "orchard", "settings": settings}
    task = studio.ask("POST", "/api/dreams", order)[1]["id"]
    report = {"state": "waiting"}
    while report["state"] in ("waiting", "dreaming"):
        report = studio.ask("GET", f"/api/dreams/{task}")[1]
    return report["picture"]


def recipe_in(studio, name):
    return from_toml(imagefile.read_recipe(studio.folder / name))


def restored(page):
    until(page, "document.querySelector('#set-seed')?.value === '11'")
    assert page.input_value("#set-steps") == "3"
    assert page.is_checked("#looks input[value=orchard]")
    page.wait_for_selector("#after:visible")


def test_opening_a_picture_of_the_gallery_restores_its_settings(page, dreamed):
    page.click("text=Gallery")
    page.click(f"#gallery-view a:has-text('{dreamed}')")
    restored(page)
    assert page.inner_text("#title") == dreamed.removesuffix(".png")
    assert "--look orchard" in page.text_content("#command-text")
    page.reload()
    restored(page)
    assert page.get_attribute("#curve polyline", "points").count(",") == 2 * 3, "a point for each step"


def test_the_gallery_is_the_folder_newest_first(page, dreamed, studio):
    (studio.folder / "notes.txt").write_text("not a picture")
    names = [path.name for path in sorted(studio.folder.glob("*.png"), key=lambda path: -path.stat().st_mtime_ns)]
    page.click("text=Gallery")
    page.wait_for_selector("#gallery-view li")
    assert page.locator("#gallery-view li").all_inner_texts() == names


def test_a_dreamed_picture_that_is_dropped_restores_its_settings(page, studio, dreamed):
    data = base64.b64encode((studio.folder / dreamed).read_bytes()).decode()
    page.evaluate(
        """async (data) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "a dream.png", { type: "image/png" }));
            document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: transfer }));
        }""",
        data,
    )
    restored(page)
    assert "coffee" in page.get_attribute("#before", "alt"), "its photograph is here, and is dreamed next"


def test_a_picture_whose_photograph_is_not_here_says_so(page, studio, photographs, tmp_path):
    dreamed = dream_here(imagefile.read(photographs["rocket"]).image, look="orchard", steps=3, seed=11)
    page.set_input_files("#file", dreamed.save(tmp_path / "elsewhere.png"))
    restored(page)
    assert "its photograph is not in the studio's folder" in page.text_content("#alert")


def test_a_mask_is_painted_on_the_photograph(page, studio, photographs):
    choose(page, photographs["coffee"])
    set_to(page, steps=4, octaves=1)
    page.click("#show-settings")
    page.click("text=Paint")
    page.fill(".brush input[type=range]", "50")
    box = page.locator("#mask-canvas").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] - 2, steps=5)
    page.mouse.up()
    with page.expect_response("**/api/recipe") as response:
        page.click("text=Use mask")
    assert response.value.json()["given"]["mask"].startswith("mask-")
    dream(page)
    wait_done(page)
    before = imagefile.read(photographs["coffee"]).image
    change = (imagefile.read(studio.folder / picture_of(page)).image - before).abs().mean(0)
    assert change[:, :16].mean() > 0.01, "dreamed where it was painted"
    assert torch.all(change[:, 64:] == 0), "and nowhere else"
    assert recipe_in(studio, picture_of(page))[1].mask_sha256


def test_a_guide_draws_the_dream_towards_it(page, studio, photographs):
    choose(page, photographs["coffee"])
    set_to(page, steps=2)
    page.click("#show-settings")
    with page.expect_response("**/api/recipe"):
        page.locator("[aria-label=Guide] input[type=file]").set_input_files(photographs["chelsea"])
    page.wait_for_selector("[aria-label=Guide] img")
    dream(page)
    wait_done(page)
    recipe, made = recipe_in(studio, picture_of(page))
    assert "chelsea" in recipe.guide
    assert made.guide_sha256 == imagefile.read(photographs["chelsea"]).sha256
    page.click("text=Gallery")
    page.click(f"#gallery-view a:has-text('{picture_of(page)}')")
    page.wait_for_selector("[aria-label=Guide] img", state="attached")


def test_layers_are_picked_from_their_thumbnails(page, studio, photographs):
    choose(page, photographs["coffee"])
    page.check("#looks input[value=eyes]", force=True)
    page.click("#show-settings")
    page.click("text=Browse layers")
    page.wait_for_selector(".tile img")
    page.fill("#browser-filter", "blocks.2")
    page.click(".tile:visible")
    page.click("#browser-close")
    names = page.locator("[aria-label=Layers] .term input[type=text]")
    until(page, "document.querySelectorAll('[aria-label=Layers] .term').length === 2")
    assert [names.nth(0).input_value(), names.nth(1).input_value()] == ["blocks.4.2", "blocks.2.1"]
    with page.expect_response("**/api/recipe") as response:
        weight = page.locator("[aria-label=Layers] .term input[type=number]").nth(1)
        weight.fill("-0.5")
        weight.press("Enter")
    assert response.value.json()["recipe"]["layers"] == ["blocks.4.2", "blocks.2.1:-0.5"]
    assert page.locator("#looks input:checked").count() == 0, "a layer of one's own is no look"


def test_channels_are_asked_for_beside_a_chosen_layer(page, photographs):
    choose(page, photographs["coffee"])
    page.check("#looks input[value=eyes]", force=True)
    page.click("#show-settings")
    page.click("text=Browse layers")
    page.wait_for_selector(".tile[aria-pressed=true] img")
    assert int(page.inner_text("#browser-count").split()[0]) >= 1
    channels = page.locator(".channels input:visible")
    with page.expect_response("**/api/recipe") as response:
        channels.fill("3, 40")
        channels.press("Enter")
    assert response.value.json()["recipe"]["layers"] == ["blocks.4.2[3,40]"]
    channels.fill("3, 112")
    channels.press("Enter")
    refused = channels.evaluate("input => input.validationMessage")
    assert refused == "blocks.4.2 has channels 0 to 111; 112 is not one"
    page.click("#browser-close")
    assert page.locator("[aria-label=Layers] .term input[type=text]").input_value() == "blocks.4.2[3,40]"
    page.click("text=Browse layers")
    assert channels.input_value() == "3,40"
    with page.expect_response("**/api/recipe") as response:
        channels.fill("")
        channels.press("Enter")
    assert response.value.json()["recipe"]["layers"] == ["blocks.4.2"]


def test_technical_settings_are_folded_until_one_is_changed(page, photographs):
    choose(page, photographs["coffee"])
    page.click("#show-settings")
    assert page.locator("#set-tile").is_hidden()
    page.click("fieldset:has(#set-tile) summary")
    with page.expect_response("**/api/recipe"):
        page.fill("#set-tile", "64")
        page.press("#set-tile", "Enter")
    page.wait_for_selector(".field.changed #set-tile")
    page.click("fieldset:has(#set-tile) summary")
    with page.expect_response("**/api/recipe"):
        page.fill("#set-seed", "7")
        page.press("#set-seed", "Enter")
    page.wait_for_selector(".field.changed #set-seed")
    assert page.locator("#set-tile").is_hidden(), "what a person folds stays folded"
    assert page.locator("legend").all_inner_texts()[:3] == ["Looks, shown on a sample", "Picture", "What to maximise"]


def test_the_chosen_look_is_in_view(page):
    page.click("#samples button:has(img[alt*=coffee])")
    page.wait_for_selector("#dock:visible")
    page.check("#looks input[value=orchard]", force=True)
    page.click("#show-settings")
    page.wait_for_selector("#looks .strip.more-before")
    page.evaluate("document.querySelector('#looks .strip').scrollLeft = 0")
    page.wait_for_selector("#looks .strip.more-behind:not(.more-before)")
    page.check("#looks input[value=creatures]", force=True)
    seen = """() => {
        const [look, strip] = [".look:has(:checked)", ".strip"].map(
            part => document.querySelector("#looks " + part).getBoundingClientRect());
        return look.left >= strip.left && look.right <= strip.right;
    }"""
    page.wait_for_selector("#looks .strip.more-before")
    assert page.evaluate(seen)


def test_drive_and_step_size_move_together(page, photographs):
    choose(page, photographs["coffee"])
    set_to(page, drive=0.3)
    until(page, "document.querySelector('#set-step_size').value === '0.02'")
    assert page.input_value("#set-drive") == "0.3"
    set_to(page, steps=30)
    until(page, "document.querySelector('#set-drive').value === '0.6'")
    assert page.input_value("#set-step_size") == "0.02"


def test_an_answer_leaves_what_is_being_typed(page, photographs):
    choose(page, photographs["coffee"])
    page.click("#show-settings")
    page.route("**/api/recipe", lambda route: (page.fill("#set-steps", "23"), route.continue_()))
    with page.expect_response("**/api/recipe"):
        page.fill("#set-seed", "7")
        page.press("#set-seed", "Tab")
    page.wait_for_selector(".field.changed #set-seed")
    assert page.input_value("#set-steps") == "23"


def test_settings_come_from_their_classes(page):
    for name, field in Recipe.model_fields.items():
        assert page.text_content(f"#set-{name}-help") == field.description
    assert page.get_attribute("#set-octaves", "max") == "30"
    assert page.get_attribute("#set-octave_scale", "max") == "4"
