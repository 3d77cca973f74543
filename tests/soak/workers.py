"""Studies whose workers are killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psutil

from soak import Attempt, FindingError

STUDY = ["sweep", "sample:coffee", "--vary", "layer=blocks.1.1,blocks.2.0", "--vary", "steps=1,2", "--workers", "2",
         "--size", "64", "--octaves", "1", "--device", "cpu"]  # fmt: skip


def sweep(folder: Path) -> "subprocess.Popen[bytes]":
    """A study in a process."""
    command = [sys.executable, "-c", "from phosphene.cli import main; main()", *STUDY, "-o", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _below(process: int) -> list[psutil.Process]:
    return psutil.Process(process).children(recursive=True)


def _wait_for_workers(running: "subprocess.Popen[bytes]") -> None:
    while running.poll() is None and not _below(running.pid):
        time.sleep(0.1)


@contextmanager
def killed_workers(scratch: Path) -> Iterator[Attempt]:
    """One of a study's processes is killed, or all; the same command goes on, to the same measures."""
    whole = sweep(scratch / "whole")
    _wait_for_workers(whole)
    begun = time.monotonic()
    whole.communicate()
    takes = time.monotonic() - begun
    expected = (scratch / "whole" / "measures.csv").read_bytes()

    def attempt(chance: Random) -> Counter[str]:
        folder, killed = scratch / "killed", 0
        while True:
            running = sweep(folder)
            _wait_for_workers(running)
            time.sleep(chance.uniform(0, takes) if killed < 3 else 0)
            others = _below(running.pid) if running.poll() is None else []
            if others and killed < 3:
                victim = chance.choice([running.pid, *(other.pid for other in others)])
                os.kill(victim, signal.SIGKILL)
                killed += 1
            said = running.communicate()[1].decode()
            if "Traceback" in said:
                raise FindingError(said)
            if running.returncode == 0:
                break
            for other in others:
                if other.is_running():
                    other.wait(30)
        if (folder / "measures.csv").read_bytes() != expected:
            raise FindingError("other measures")
        shutil.rmtree(folder)
        return Counter({"kills": killed, "same measures": 1})

    yield attempt
