"""The widget in a real JupyterLab, in a real browser; and what there is without it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import phosphene
from phosphene import notebook
from phosphene.errors import UnknownNameError

pytest.importorskip("anywidget")
pytest.importorskip("jupyterlab")

EXAMPLE = Path(__file__).parent.parent / "examples/notebook.ipynb"
SMALL = {"size": 64, "octaves": 1, "steps": 3, "layers": "blocks.1.1"}
QUIET = {
    "LabApp": {
        "news_url": None,
        "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "extension_manager": "readonly",
        "expose_app_in_browser": True,
    },
    "ServerApp": {"open_browser": False, "port": 0, "allow_root": True, "ip": "127.0.0.1"},
    "IdentityProvider": {"token": "here"},
}
"""A JupyterLab that asks nobody for news, updates or extensions."""


@pytest.fixture
def lab(tmp_path):
    """JupyterLab in a process of its own, with the example; gives its address."""
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "jupyter_lab_config.json").write_text(json.dumps(QUIET))
    home = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--config", str(tmp_path / "jupyter_lab_config.json")],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **home, "OMP_NUM_THREADS": "1"},
    )
    address = next(line.split()[-1] for line in process.stderr if "http://127.0.0.1" in line)
    yield address.replace("/lab?token=...", "/lab/tree/notebook.ipynb?token=here")
    process.terminate()
    process.communicate(timeout=30)


def test_a_dream_grows_in_jupyterlab(lab, browser, tmp_path):
    """Also: its seam, a step size that counts at once, stop, and a second dream."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto(lab)
    page.locator(".jp-Notebook").wait_for(timeout=60_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    widget = page.locator(".phosphene")
    widget.wait_for(timeout=60_000)
    widget.get_by_text("octave 2 of 2, step 8 of 8").wait_for(timeout=60_000)
    assert (page.locator(".jp-OutputArea").last.get_by_text("dream.png")).wait_for() is None
    assert (tmp_path / "dream.png").exists()
    dream, before = widget.get_by_alt_text("the dream"), widget.get_by_alt_text("the photograph")
    assert dream.evaluate("image => image.naturalWidth") == before.evaluate("image => image.naturalWidth") == 320
    assert dream.evaluate("image => image.src") != before.evaluate("image => image.src")
    box = dream.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.up()
    assert dream.evaluate("image => image.style.clipPath").startswith("inset(0px 0px 0px 50")
    if shown := os.environ.get("PHOSPHENE_SHOW"):
        page.screenshot(path=shown)
    widget.get_by_label("steps", exact=True).fill("900")
    widget.get_by_label("steps", exact=True).press("Tab")
    widget.get_by_role("button", name="Dream again").click()
    widget.get_by_text("of 900").wait_for(timeout=60_000)
    widget.get_by_role("button", name="Stop").click()
    widget.get_by_text(", stopped").wait_for(timeout=60_000)
    widget.get_by_role("button", name="Dream again").wait_for()
    page.close()


def test_the_widget_dreams_in_a_thread_what_a_dream_is():
    live = phosphene.watch("sample:coffee", **SMALL)
    live.wait()
    assert torch.equal(live.dream.image, phosphene.dream("sample:coffee", **SMALL).image)
    assert (live.said, live.running, live.looks) == ("octave 1 of 1, step 3 of 3", False, [])
    assert live.picture != live.photograph


def test_settings_count_at_once_or_for_the_next_dream():
    live = phosphene.watch("sample:coffee", size=64, octaves=1, steps=500)
    live.step_size = 0.02
    while "step_size=0.02" not in str(live.dream.made.unfinished):
        assert live.running
    live.stop()
    live.wait()
    assert live.said.endswith("stopped")
    live.steps = 2
    live.look = "rings"
    assert (live.step_size, live.steps) == (phosphene.watch("sample:coffee", size=64, look="rings").step_size, 500)
    live.steps = 2
    live.start()
    live.wait()
    assert live.dream.recipe.layers == phosphene.recipe.looks.LOOKS["efficientnet_lite0"]["rings"]["layers"]
    assert len(live.dream.trace.scores) == 2


def test_what_is_wrong_is_said():
    with pytest.raises(UnknownNameError, match="no look"):
        phosphene.watch("sample:coffee", look="no such")
    live = phosphene.watch("sample:coffee", **SMALL)
    live.wait()
    live.octaves = 99
    live.start()
    assert live.said.startswith("octaves = 99 will not do")
    assert not live.running


def test_without_anywidget_it_is_a_still_picture(monkeypatch):
    monkeypatch.setattr(notebook, "find_spec", lambda name: None)
    still = phosphene.watch("sample:coffee", **SMALL)
    assert still._repr_png_().startswith(b"\x89PNG")
    assert torch.equal(still.dream.image, phosphene.dream("sample:coffee", **SMALL).image)
