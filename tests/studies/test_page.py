"""The page in a real browser: it loads whole, asks no network, fits a phone, and its slider moves."""

from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no browser at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "light"), (390, 844, "dark")], ids=str)
def page(browser, compared, request):
    width, height, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.troubles, page.asked = [], []
    page.on("console", lambda message: page.troubles.append(message.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    address = (compared.folder.path / "report.html").as_uri()
    page.goto(address)
    page.wait_for_load_state("networkidle")
    yield page
    assert page.troubles == []
    assert [url for url in page.asked if not url.startswith("data:")] == [address]
    page.close()


def test_all_images_load_and_nothing_is_wider_than_the_screen(page):
    broken = "[...document.images].filter(i => i.src && !(i.complete && i.naturalWidth)).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("document.images.length") > 12
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]


def test_the_slider_moves_the_border_between_before_and_after(page):
    border = "getComputedStyle(document.querySelector('#hero .after')).clipPath"
    slider = page.locator("#before-and-after .cut")
    assert page.evaluate(border) == "inset(0px 0px 0px 50%)"
    slider.focus()
    page.keyboard.press("Home")
    assert page.evaluate(border) == "inset(0px 0px 0px 0%)"
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
    assert 70 < float(slider.input_value()) < 80


def test_a_picture_is_enlarged_zoomed_and_put_away(page):
    page.locator("button.picture").nth(1).click()
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    width = viewer.locator(".compare").bounding_box()["width"]
    viewer.locator(".zoom").click()
    assert viewer.locator(".compare").bounding_box()["width"] == pytest.approx(2 * width, rel=0.02)
    first = viewer.locator("pre").inner_text()
    viewer.get_by_label("Next picture").click()
    assert first.startswith("phosphene dream sample:coffee")
    assert viewer.locator("pre").inner_text() != first
    page.keyboard.press("Escape")
    assert viewer.is_hidden()


def test_text_stands_out_in_both_schemes(page):
    """WCAG's contrast of the soft text on the paper is at least 4.5."""
    contrast = page.evaluate("""() => {
        const light = (css) => {
            const [r, g, b] = css.match(/[\\d.]+/g).map((v) => v / 255);
            const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
        };
        const [a, b] = [getComputedStyle(document.querySelector(".lede")).color,
                        getComputedStyle(document.body).backgroundColor].map(light);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }""")
    assert contrast >= 4.5
