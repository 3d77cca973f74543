"""Run the tries of a part in a process apart, and watch it."""

import ctypes
import gc
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import psutil

from soak import Part

WARM = 5
"""Tries after which a process has loaded what it loads."""

REST = "rest"
"""Asks a process to give back what is free."""

PROCESSES = multiprocessing.get_context("spawn")


@dataclass
class Tally:
    """What a part's tries came to."""

    tried: int = 0
    out: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0
    largest: int = 0
    began: tuple[int, int, int] | None = None
    ended: tuple[int, int, int] | None = None
    """Megabytes, threads and descriptors of the process, after some tries and after the last."""


class Worker:
    """A process that tries when it is told to."""

    def __init__(self, part: Part, seed: int, scratch: Path) -> None:
        self.part, self.scratch = part, scratch
        self.here, there = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=_try, args=(part, seed, scratch, there))
        self.process.start()
        there.close()

    def attempt(self, number: int) -> dict[str, Any]:
        """Have it try once; what came out, or a finding where it did not answer."""
        try:
            self.here.send(number)
            if self.here.poll(2 * self.part.seconds + 60):
                return self.here.recv()
            finding = f"no answer after {2 * self.part.seconds + 60:.0f} s"
        except (EOFError, ConnectionError):
            self.process.join()
            finding = f"the process ended with {self.process.exitcode}"
        self.process.kill()
        return {"finding": finding}

    def holds(self) -> tuple[int, int, int]:
        """Megabytes, threads and descriptors; what is free is given back first, so that it does not count."""
        self.here.send(REST)
        self.here.recv()
        process = psutil.Process(self.process.pid)
        return process.memory_info().rss >> 20, process.num_threads(), process.num_fds()

    def end(self) -> None:
        """Have it put away what it made ready."""
        if self.process.is_alive():
            self.here.send(None)
            self.process.join(60)
        self.process.kill()
        self.process.join()


def soak(part: Part, seed: int, scratch: Path, seconds: float = 0, tries: int = 0, first: int = 0) -> Tally:
    """Try a part, so many times or for so long."""
    tally, worker, begun, since = Tally(), None, time.monotonic(), 0
    while tally.tried < tries or time.monotonic() - begun < seconds:
        if worker is None:
            folder = scratch / f"{part.name.replace(' ', '-')}-{tally.tried}"
            folder.mkdir(parents=True)
            worker, since = Worker(part, seed, folder), tally.tried
        number = first + tally.tried
        told = worker.attempt(number)
        tally.tried += 1
        tally.out += Counter(told.get("out", {}))
        tally.slowest = max(tally.slowest, told.get("seconds", 0))
        tally.largest = max(tally.largest, told.get("megabytes", 0))
        for finding in [told["finding"]] if "finding" in told else _excesses(part, told):
            tally.findings.append(f"{part.name}, try {number}: {finding}")
            print(tally.findings[-1], file=sys.stderr, flush=True)
        if not worker.process.is_alive():
            worker = None
        elif tally.tried - since >= WARM and (tally.tried - since == WARM or tally.tried % 20 == 0):
            tally.ended = worker.holds()
            tally.began = tally.ended if tally.began is None or tally.tried - since == WARM else tally.began
    if worker is not None:
        worker.end()
    return tally


def _excesses(part: Part, told: dict[str, Any]) -> list[str]:
    found = []
    if told["seconds"] > part.seconds:
        found.append(f"took {told['seconds']:.1f} s of processor time: {told['out']}")
    if told["megabytes"] > part.megabytes:
        found.append(f"took {told['megabytes']} MB: {told['out']}")
    return found


def leaks(part: Part, tally: Tally) -> list[str]:
    """What a part's process holds at the end and did not hold after its first tries."""
    if tally.began is None or tally.ended is None:
        return []
    (memory, threads, files), (later, more_threads, more_files) = tally.began, tally.ended
    found = []
    if later - memory > part.may_grow:
        found.append(f"{part.name}: from {memory} to {later} MB")
    if more_threads - threads > 8 or more_files - files > 8:
        found.append(f"{part.name}: from {threads} to {more_threads} threads, {files} to {more_files} descriptors")
    return found


def _try(part: Part, seed: int, scratch: Path, parent: Connection) -> None:
    import torch

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    with part.ready(scratch) as attempt:
        while (number := parent.recv()) is not None:
            if number == REST:
                gc.collect()
                _trim()
                parent.send(REST)
            else:
                parent.send(_told(part, attempt, Random(f"{seed} {part.name} {number}")))


def _told(part: Part, attempt: Any, chance: Random) -> dict[str, Any]:
    _forget_peak()
    held, begun = _status("VmRSS"), time.process_time()
    told: dict[str, Any] = {}
    try:
        told["out"] = dict(attempt(chance))
    except Exception:
        told["finding"] = traceback.format_exc()
    return told | {"seconds": time.process_time() - begun, "megabytes": max(0, _status("VmHWM") - held)}


def _forget_peak() -> None:
    """Have Linux forget the most memory that this process has had."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) >> 10


def _trim() -> None:
    """Have glibc give back what is free."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
