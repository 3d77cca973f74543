"""The benchmarks' contestants take the same step: what is compared is the same work."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from phosphene.engine.algorithms import ALGORITHMS
from phosphene.engine.rewrite import PASSES

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SPEED_STEP = BENCHMARKS / "speed_step.py"


def test_what_is_compared_takes_the_same_step(tmp_path):
    """Up to rounding, and a unit at the kink of its clamp, which may be rounded to either side of it."""
    gradients = {}
    for name in ("ours", "folded", "plain"):
        command = [sys.executable, SPEED_STEP, name, "efficientnet_lite0", "96", "130", tmp_path]
        done = subprocess.run(list(map(str, command)), input="\n", capture_output=True, text=True, check=True)
        assert done.stdout.startswith("ready\n")
        gradients[name] = np.load(tmp_path / f"{name}.npy")
    plain = gradients.pop("plain")
    for other in gradients.values():
        assert 0 < np.linalg.norm(other - plain) < 5e-3 * np.linalg.norm(plain)
    assert not np.array_equal(*gradients.values())


def test_what_can_be_left_out_is_there(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import speed_step

    for part in speed_step.ALGORITHMS:
        assert any(algorithm.__name__ == part for algorithm in ALGORITHMS)
    assert [each.__name__ for each in PASSES if each.__name__ in speed_step.PASSES] == list(speed_step.PASSES)
    assert {each.__name__ for each in PASSES} - set(speed_step.PASSES) == {"freeze_convolutions"}  # others need it
