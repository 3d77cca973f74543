"""torchvision and timm without PyTorch's compiler, which is there as soon as it is asked for."""

import subprocess
import sys

import pytest

ABSENT = """
import sys
from phosphene.libraries import timm, torchvision
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
"""

COMPILES = f"""
{ABSENT}
import torch
from phosphene.libraries import _disable
doubled = _disable(recursive=False, reason="a test")(lambda x: 2 * x)
assert doubled(torch.tensor(4)).item() == 8
assert "torch._dynamo" in sys.modules
compiled = torch.compile(lambda x: doubled(x) + 1, backend="eager")
assert compiled(torch.ones(2)).tolist() == [3, 3]
assert torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 1, 1, 3, 3]]), 1).item() == 1
"""

HUNGRY = f"""
{ABSENT}
from pathlib import Path
from phosphene.libraries import _import_without_compiler
Path("hungry.py").write_text("from torch._dynamo.utils import counters")
sys.path.insert(0, ".")
_import_without_compiler("hungry")
assert "hungry" not in sys.modules and "torch._dynamo" not in sys.modules
import hungry
assert hungry.counters is sys.modules["torch._dynamo"].utils.counters
"""

AFTER = """
import sys, torch, torch._dynamo
compiler = torch._dynamo
import phosphene.libraries
assert sys.modules["torch._dynamo"] is compiler
"""

CHANNELS = f"""
{ABSENT}
from phosphene import dream
dream("sample:coffee", weights="untrained", size=96, octaves=1, steps=1, layers=("blocks.2.0:3",))
dream("sample:coffee", weights="untrained", size=96, octaves=1, steps=1, classes=("goldfish",))
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.parametrize(
    "script", [ABSENT, COMPILES, HUNGRY, AFTER, CHANNELS], ids=["absent", "compiles", "hungry", "after", "channels"]
)
def test_the_compiler_is_left_out_until_it_is_needed(tmp_path, script):
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
