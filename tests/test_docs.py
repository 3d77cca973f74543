"""The documentation agrees with the code: its commands parse, its script runs, its names exist."""

import json
import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from phosphene.cli import app
from phosphene.recipe.looks import LOOKS
from phosphene.recipe.settings import Recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]


def commands():
    for page in PAGES:
        for line in re.findall(r"^(?:    )?(phosphene [a-z].*)$", page.read_text(), re.MULTILINE):
            yield pytest.param(shlex.split(line, comments=True)[1:], id=f"{page.name}: {line[:60]}")


@pytest.mark.parametrize("tokens", list(commands()))
def test_every_command_in_the_documentation_parses(tokens):
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    assert command is not None
    look = bound.arguments.get("look")
    assert look is None or look in LOOKS["efficientnet_lite0"]


@pytest.mark.slow
def test_the_readmes_script_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    assert len([line for line in script.splitlines() if line]) <= 5
    exec(script.replace('"sample:coffee"', '"sample:coffee", size=64, steps=1'), {})
    assert (tmp_path / "dream.png").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_names_make_targets_that_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in re.findall(r"`?make ([a-z]+)", README):
        assert name in targets


def test_the_changelog_knows_this_version():
    assert f"## {version('phosphene')}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_default_model_is_the_one_that_needs_no_download():
    from phosphene.networks.cards import DEFAULT_MODEL

    assert Recipe().model == DEFAULT_MODEL
    assert any(
        "efficientnet-lite0" in name
        for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    )


def test_the_table_of_speed_is_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import speed

    results = json.loads((ROOT / "docs/performance.json").read_text())
    assert speed.table(results) in (ROOT / "docs/performance.md").read_text()
