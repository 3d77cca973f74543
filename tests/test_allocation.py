"""Memory that is freed is kept: counted by the pages that the system has to clear."""

import os
import platform
import subprocess
import sys

import pytest

from phosphene.malloc import TUNABLES

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the settings")

ONE = 4 * 2**24
STEPS = f"""
import resource, sys, torch
from phosphene.malloc import keep_freed, keep_nothing
if sys.argv[1] == "kept, with few addresses":
    resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))
if sys.argv[1].startswith("kept"):
    keep_freed()
if sys.argv[1] == "kept no longer":
    keep_nothing()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

above = []

def steps(count):
    for _ in range(count):
        block = torch.empty({ONE} // 4).fill_(1)
        above.append(bytearray(10**5))  # so that the block is not at the heap's end

steps(20)
before = faults()
steps(10)
print(faults() - before)
"""

BUDGETS = """
import torch
from phosphene.malloc import keep_freed
from phosphene.setup.memory import budget, in_use
keep_freed()
torch.ones(8)
def left():
    return budget("8GB", torch.device("cpu"))
before = left()
torch.ones(2**27)
kept = in_use()
print(before, left(), kept, in_use())
"""


AGAIN = """
import os, sys
from phosphene.malloc import begin_again
print("begun", flush=True)
begin_again()
print(os.environ["GLIBC_TUNABLES"], *sys.argv[1:])
"""


def printed(script, *arguments):
    return [int(word) for word in subprocess.check_output([sys.executable, "-c", script, *arguments]).split()]


def test_a_step_finds_the_memory_of_the_one_before():
    (given_back,), (kept,) = printed(STEPS, "given back"), printed(STEPS, "kept")
    assert given_back > 9 * ONE / 4096
    assert kept < ONE / 4096


@pytest.mark.parametrize("why", ["kept no longer", "kept, with few addresses"])
def test_nothing_is_kept_when_memory_or_addresses_are_short(why):
    (faults,) = printed(STEPS, why)
    assert faults > 9 * ONE / 4096


@pytest.mark.parametrize("chosen", [None, "glibc.malloc.perturb=0"])
def test_a_process_begins_again_once_unless_its_user_has_chosen(chosen):
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    env |= {"GLIBC_TUNABLES": chosen} if chosen else {}
    lines = subprocess.check_output([sys.executable, "-c", AGAIN, "two words"], env=env, text=True).splitlines()
    begun, answer = lines.count("begun"), lines[-1]
    assert (begun, answer) == ((1, f"{chosen} two words") if chosen else (2, f"{TUNABLES} two words"))


def test_what_a_dream_has_freed_is_left_for_the_next():
    before, after, kept, given_back = printed(BUDGETS)
    assert kept - given_back > 400e6
    assert abs(after - before) < 50e6
