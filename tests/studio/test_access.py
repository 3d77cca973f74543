"""Everyone can use the page: axe's rules in every state, the keyboard alone, and a narrow screen."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from phosphene import imagefile
from studio.words import choose, set_to, wait_done

pytestmark = pytest.mark.slow

SCREENS = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


def faults(page):
    """What axe finds, a line each; its script is given to the browser from outside, past the page's own policy."""
    found = Axe().run(page).response["violations"]
    return [f"{fault['id']}: {node['html'][:120]}" for fault in found for node in fault["nodes"]]


def cut_off(page):
    """Parts that reach past the screen, if the page or its main part scrolls sideways."""
    return page.evaluate("""() => {
        const wide = [document.documentElement, document.querySelector("main")].some(
            part => part.scrollWidth > part.clientWidth);
        const edge = document.documentElement.clientWidth;
        return wide ? [...document.querySelectorAll("body *")].filter(
            part => part.getBoundingClientRect().right > edge + 0.5).map(
            part => `${part.tagName} #${part.id} .${part.className} ${part.getBoundingClientRect().right}`) : [];
    }""")


def states(page, photographs):
    """Lead the page through its states, and yield the name of each."""
    yield "invitation"
    choose(page, photographs["coffee"])
    page.wait_for_selector("#badge:visible")
    yield "preview"
    page.click("#show-settings")
    yield "settings"
    page.click("text=Browse layers")
    page.wait_for_selector(".tile img")
    yield "layers"
    page.click("#browser-close")
    page.click("text=Paint")
    yield "mask"
    page.click("text=Cancel")
    set_to(page, steps=2)
    page.click("#go")
    wait_done(page)
    page.click("#show-command")
    yield "dream"
    page.click("text=Compare")
    lacks = []
    for look in ("rings", "eyes"):
        lacks.append(page.text_content("#compare-lacks"))
        page.check(f"#compare-looks input[value={look}]", force=True)
    assert lacks == ["Choose two looks or layers at least", "Choose one more look or layer"]
    assert page.text_content("#compare-lacks") == ""
    yield "compare"
    page.click("#compare-view button.primary")
    page.wait_for_selector("#compare-view button:has-text('Stop')")
    yield "comparing"
    page.click("#compare-view button:has-text('Stop')")
    page.click("text=Gallery")
    page.wait_for_selector("#gallery-view img")
    yield "gallery"


def test_the_queue_fits_on_a_phone(page, studio):
    order = {"photograph": "sample:coffee", "settings": {"size": 64, "steps": 2500, "octaves": 1}}
    dreams = [studio.ask("POST", "/api/dreams", order)[1]["id"] for _ in range(3)]
    page.set_viewport_size(SCREENS["phone"])
    page.wait_for_selector("#queue-summary:has-text('1 dreaming, 2 waiting')")
    assert cut_off(page) == []
    for dream in dreams:
        studio.ask("POST", f"/api/dreams/{dream}/stop", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing_and_nothing_is_cut_off(page, photographs, screen, scheme):
    page.set_viewport_size(SCREENS[screen])
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for state in states(page, photographs):
        assert faults(page) == [], state
        assert cut_off(page) == [], state


def test_what_is_wrong_is_seen_over_the_settings_of_a_phone(page, photographs):
    page.set_viewport_size(SCREENS["phone"])
    choose(page, photographs["coffee"])
    page.click("#show-settings")
    model = "document.querySelector('#set-model')"
    assert page.evaluate(f"{model}.scrollWidth <= {model}.clientWidth"), "all of its name is seen"
    layer = page.locator("[aria-label=Layers] .term input[type=text]").first
    layer.fill("blocks.4.2[900]")
    layer.press("Enter")
    page.wait_for_selector("#alert:has-text('900 is not one')")
    assert page.inner_text("#alert span").startswith("blocks.4.2 of"), "a name keeps its spelling"
    box = page.locator("#alert").bounding_box()
    at = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    assert page.evaluate("at => Boolean(document.elementFromPoint(...at).closest('#alert'))", at)
    page.click("#close-settings")
    assert page.locator("main > #alert").is_visible()


def tab_to(page, selector):
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the tab key does not reach {selector}")


def test_the_keyboard_alone_paints_a_mask(page, studio, photographs):
    choose(page, photographs["coffee"])
    page.focus("#show-settings")
    page.keyboard.press("Enter")
    tab_to(page, "[aria-label=Mask] button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".brush .hint:visible")
    pixels = "document.querySelector('#mask-canvas').toDataURL()"
    assert page.evaluate("document.activeElement.id") == "mask-canvas"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is seen"
    seen = page.evaluate(pixels)
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert page.evaluate(pixels) != seen, "the brush is seen to move"
    assert page.text_content(".brush [role=status]") == "Brush lifted, 0 % from the left, 50 % from the top"
    page.keyboard.press("Space")
    assert page.text_content(".brush [role=status]").startswith("Brush down")
    for key in ["ArrowUp"] * 10 + ["ArrowDown"] * 20:
        page.keyboard.press(key)
    page.keyboard.press("Space")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    tab_to(page, ".brush input")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "mask-canvas"
    tab_to(page, ".brush .plain")
    with page.expect_response("**/api/recipe") as response:
        page.keyboard.press("Enter")
    mask = imagefile.read(studio.folder / "photographs" / response.value.json()["given"]["mask"]).image[0]
    assert mask[:, :50].min() > 0.9, "painted where the brush was down"
    assert mask[:, 100:].max() == 0, "and not where it was lifted"


def test_the_keyboard_alone_dreams(page):
    tab_to(page, "#samples button:has(img[alt*=coffee])")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "focus is seen"
    page.keyboard.press("Enter")
    page.wait_for_selector("#dock:visible")
    tab_to(page, "#looks input")
    page.keyboard.press("ArrowRight")
    tab_to(page, "#show-settings")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "close-settings"
    for name, value in {"size": "64", "steps": "2"}.items():
        tab_to(page, f"#set-{name}")
        page.keyboard.press("Control+A")
        page.keyboard.type(value)
    page.keyboard.press("Tab")
    page.focus("#close-settings")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "show-zoom"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "go"
    page.keyboard.press("Enter")
    wait_done(page)
    assert page.locator("#after").is_visible()
