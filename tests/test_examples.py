"""Short programs of users, which the documentation shows: they run as they stand."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_runs(name):
    runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.slow
def test_what_an_installed_package_brings_is_there_on_the_command_line(tmp_path):
    """Installed as pip does it: a folder of metadata beside the module."""
    (tmp_path / "entry_point.py").write_text((EXAMPLES / "entry_point.py").read_text())
    about = tmp_path / "stripes-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[phosphene.models]\nstripes = entry_point:CARD\nbroken = not_there:CARD\n\n"
        "[phosphene.terms]\nvivid = entry_point:vivid\n"
    )
    target = tmp_path / "dream.png"
    dream = ["dream", "sample:coffee", "-o", str(target), "--model", "stripes", "--term", "vivid", "--size", "48"]
    script = (
        "from phosphene.cli import run; from phosphene.studio.catalogue import catalogue\n"
        f"print(run(['looks', 'stripes']), run({dream!r}), 'stripes' in [m['name'] for m in catalogue()['models']])"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert answer.stdout.strip().endswith("0 0 True"), answer.stderr
    assert "not_there:CARD" in answer.stderr
    assert target.exists()
