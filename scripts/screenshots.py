"""Make the pictures of the studio in docs/studio: real dreams of sample photographs, in a real Chromium.

python scripts/screenshots.py docs/studio
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}
MINUTES = 60_000
COMPARED = ("rings", "eyes", "orchard", "creatures")


@contextmanager
def studio() -> Iterator[str]:
    """Open a studio over an empty folder, and give its address."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "phosphene", "studio", "--port", "0", "--folder", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait()


def shot(page: Page, path: Path) -> None:
    """Take a picture of what is seen, when the page has come to rest."""
    page.wait_for_timeout(1000)
    Image.open(BytesIO(page.screenshot())).save(path, quality=90, method=6)


def choose(page: Page, address: str, sample: str, look: str) -> None:
    """Choose a sample and a look."""
    page.goto("about:blank")
    page.goto(address)
    page.click(f"#samples button:has(img[alt*={sample}])")
    page.click(f"#looks .look:has(input[value={look}])")


def dream(page: Page, address: str, sample: str, look: str, cut: int) -> None:
    """Dream a sample to its end, and show so many percent of the photograph beside it."""
    choose(page, address, sample, look)
    page.click("#go")
    page.wait_for_selector("#download:visible", timeout=10 * MINUTES)
    page.wait_for_selector("#queue", state="hidden")
    page.fill("#slider", str(cut))


def paint(page: Page, address: str) -> None:
    """Paint a mask over an eye."""
    choose(page, address, "chelsea", "creatures")
    page.click("#show-settings")
    page.click("text=Paint")
    page.fill(".brush input[type=range]", "12")
    box = page.locator("#mask-canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.32 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.55 * box["height"], steps=9)


def compare(page: Page, address: str) -> str:
    """Compare looks to the end, and return the address of the comparison."""
    choose(page, address, "chelsea", "creatures")
    page.click("nav >> text=Compare")
    for look in COMPARED:
        page.click(f"#compare-looks .look:has(input[value={look}])")
    page.click("#compare-view button.primary")
    page.wait_for_selector("#compare-view >> text=each at a change of", timeout=30 * MINUTES)
    return page.url


def desk(browser: Browser, address: str, folder: Path) -> str:
    """Take the pictures of a desk's screen, and return the address of the comparison."""
    page = browser.new_page(**DESK)
    page.goto(address)
    page.wait_for_load_state("networkidle")
    shot(page, folder / "invitation.webp")
    for look in ("strokes", "rings", "orchard", "creatures"):
        dream(page, address, "coffee", look, 45)
    page.click("#show-command")
    shot(page, folder / "dream.webp")
    paint(page, address)
    shot(page, folder / "mask.webp")
    compared = compare(page, address)
    shot(page, folder / "compare.webp")
    page.click("nav >> text=Gallery")
    shot(page, folder / "gallery.webp")
    return compared


def dark(browser: Browser, address: str, folder: Path) -> None:
    """Take the pictures of a dark desk's screen: the browser of layers, and a dream that grows."""
    page = browser.new_page(**DESK, color_scheme="dark")
    choose(page, address, "astronaut", "creatures")
    page.click("#show-settings")
    page.click("text=Browse layers")
    page.wait_for_selector("#browser-count:has-text('17 of 17')", timeout=10 * MINUTES)
    shot(page, folder / "layers.webp")
    page.click("#browser-close")
    page.click("#close-settings")
    page.click("#go")
    page.wait_for_selector("#status:has-text('octave 4')", timeout=10 * MINUTES)
    shot(page, folder / "growing.webp")
    page.wait_for_selector("#download:visible", timeout=10 * MINUTES)


def phone(browser: Browser, address: str, folder: Path, compared: str) -> None:
    """Take the pictures of a telephone's screen."""
    page = browser.new_page(**PHONE)
    dream(page, address, "chelsea", "agate", 45)
    shot(page, folder / "phone-dream.webp")
    page.click("#show-settings")
    page.locator("#set-steps").scroll_into_view_if_needed()
    shot(page, folder / "phone-settings.webp")
    page.goto("about:blank")
    page.goto(compared)
    page.wait_for_selector("#compare-view >> text=each at a change of")
    shot(page, folder / "phone-compare.webp")


def main(folder: Path) -> None:
    """Make all of them."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with studio() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        compared = desk(browser, address, folder)
        dark(browser, address, folder)
        phone(browser, address, folder, compared)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
