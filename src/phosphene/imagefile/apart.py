"""Pictures from strangers: decoded in a process apart, whose time and memory the system limits.

A picture that makes a decoder hang, starve or crash costs that process alone. What comes back is numbers and a few
words, read as such: nothing of it is run.
"""

import json
import multiprocessing
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from phosphene import imagefile
from phosphene.errors import ImageError, PhospheneError, UsageError

SECONDS, MEMORY = 60, 6 * 2**30
"""Processor time that a picture may take, twice that on the clock, and bytes beside what the process begins with."""


def read(source: str | Path, room: int | None = None, seconds: int = SECONDS, memory: int = MEMORY) -> imagefile.Photo:
    """As `imagefile.read`. Raises ImageError also where decoding took too long, too much memory, or crashed."""
    with tempfile.TemporaryDirectory(prefix="phosphene-") as folder:
        memory = min(memory, psutil.virtual_memory().available)
        process = _start(_decode, str(source), room, folder, seconds, memory)
        process.join(2 * seconds)
        if process.is_alive():
            process.kill()
            process.join()
        return _told(Path(folder), str(source), process.exitcode)


def _start(target: Any, *arguments: Any) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["phosphene.imagefile.apart", "phosphene.imagefile.tiff", "imagecodecs"])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _decode(source: str, room: int | None, folder: str, seconds: int, memory: int) -> None:
    """In the process apart: decode, and leave numbers and words in `folder`."""
    limit(seconds, memory)
    torch.set_num_threads(1)
    told: dict[str, Any]
    try:
        photo = imagefile.read_here(source, room)
        np.save(Path(folder, "image.npy"), photo.image.numpy(), allow_pickle=False)
        if photo.alpha is not None:
            np.save(Path(folder, "alpha.npy"), photo.alpha.numpy(), allow_pickle=False)
        told = {"sha256": photo.sha256, "notes": photo.notes, "alpha": photo.alpha is not None}
    except PhospheneError as error:
        told = {"error": str(error), "usage": isinstance(error, UsageError)}
    Path(folder, "told.json").write_text(json.dumps(told))


def limit(seconds: int, memory: int) -> None:
    """Let this process have so many more seconds of processor time and bytes of memory, by the system's own limits."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if sys.platform == "linux":  # macOS does not keep to it
        most = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _told(folder: Path, source: str, exitcode: int | None) -> imagefile.Photo:
    if exitcode or not (folder / "told.json").exists():
        raise ImageError(f"{source!r} took too long or too much memory to decode, or broke the decoder: give another")
    told = json.loads((folder / "told.json").read_text())
    if "error" in told:
        raise (UsageError if told["usage"] else ImageError)(told["error"])
    alpha = torch.from_numpy(np.load(folder / "alpha.npy", allow_pickle=False)) if told["alpha"] else None
    image = torch.from_numpy(np.load(folder / "image.npy", allow_pickle=False))
    return imagefile.Photo(image, alpha, source, str(told["sha256"]), tuple(map(str, told["notes"])))
