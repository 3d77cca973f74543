"""Memory that is freed is kept: counted by the pages that the system has to clear."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from phosphene.allocation import keep_freed
if sys.argv[1] == "kept":
    keep_freed()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.zeros(2**24)
before = faults()
for _ in range(10):
    torch.zeros(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_a_step_finds_the_memory_of_the_one_before():
    pages = 10 * 4 * 2**24 // 4096
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", SCRIPT, choice])) for choice in ("given back", "kept")
    )
    assert kept < pages / 100
    assert given_back > 10 * kept
