"""What people do on the page, in words that the tests share."""

import time
from pathlib import Path
from typing import Any

from phosphene.studio.folder import Folder


def until(page: Any, expression: str, seconds: float = 60) -> None:
    """Wait until a JavaScript expression is true; the page's own policy forbids Playwright's way of waiting."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        time.sleep(0.05)


def keep(folder: Folder, data: bytes, name: str) -> Path:
    """Give a folder a file, as the page does; return where it is kept."""
    with folder.arriving(name) as path:
        path.write_bytes(data)
        return folder.keep(path)[0]


def choose(page: Any, photograph: Path) -> None:
    """Give the page a photograph, as from its file dialog."""
    page.set_input_files("#file", photograph)
    page.wait_for_selector("#pair:visible")
    until(page, "document.querySelector('#before').naturalWidth > 0")
    page.wait_for_selector("#dock:visible")


def set_to(page: Any, **settings: Any) -> None:
    """Open the settings, and change some by typing."""
    if page.locator("#settings").is_hidden():
        page.click("#show-settings")
    for name, value in settings.items():
        with page.expect_response("**/api/recipe"):
            page.fill(f"#set-{name}", str(value))
            page.press(f"#set-{name}", "Enter")
    page.click("#close-settings")


def dream(page: Any) -> None:
    """Press Dream, and wait until it has begun or has its place in the queue."""
    page.click("#go")
    until(page, "location.hash.startsWith('#dream/')")
    page.wait_for_selector("#stop:visible, #download:visible")


def wait_done(page: Any) -> None:
    """Wait until the dream on the stage is a picture of the folder."""
    page.wait_for_selector("#download:visible", timeout=120_000)
    until(page, "document.querySelector('#after').src.includes('/api/pictures/')")


def picture_of(page: Any) -> str:
    """The name of the picture on the stage."""
    return page.get_attribute("#download", "href").split("/")[-2]
