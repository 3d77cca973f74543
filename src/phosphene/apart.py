"""Files from strangers: decoded in a process apart, whose time and memory the system limits.

A file that makes a decoder hang, starve or crash costs that process alone. What comes back through a pipe is JSON and
arrays of float32, read as such: nothing of it is run.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from math import prod
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from phosphene.errors import BrokenFilmError, ImageError, PhospheneError, SettingsError, StoreError, UsageError

SECONDS, MEMORY = 60, 6 * 2**30
"""Processor time that an answer may take, twice that on the clock, and bytes beside what the process begins with."""

LONGEST_FACTS = 2**26
"""Bytes of an answer's facts: a recipe with all its schedules, and more."""

ERRORS = {kind.__name__: kind for kind in (BrokenFilmError, ImageError, SettingsError, StoreError, UsageError)}
"""Errors that come back as what they are, the first that fits; all of them are a sentence."""

Answer = dict[str, Any]
"""By name, what JSON can spell, and arrays."""

_on = False


def decode_apart(on: bool = True) -> None:
    """From now on, have this process's pictures and films decoded apart, as a server does; or no longer.

    Windows has no such limits, and there they are decoded here.
    """
    global _on
    _on = on and sys.platform != "win32"


def is_on() -> bool:
    """Whether pictures and films are to be decoded apart."""
    return _on


def answer(function: Callable[..., Iterator[Answer]], source: Any, *arguments: Any) -> Answer:
    """Return the one answer that `function` yields; else as `answers`."""
    with closing(answers(function, source, *arguments)) as found:
        return next(found)


def answers(
    function: Callable[..., Iterator[Answer]], source: Any, *arguments: Any, mapped: int = 0
) -> Generator[Answer]:
    """Yield what a function of a module yields for a file in a process apart. `mapped` bytes of files are not memory.

    Raises its errors, and ImageError where an answer takes too long or too much memory, or the process crashes.
    """
    process, pipe = _start(function, (source, *arguments), mapped)
    broken = ImageError(
        f"{str(source)!r} took too long or too much memory to decode, or broke the decoder: give another"
    )
    try:
        while pipe.poll(2 * SECONDS):
            said = json.loads(pipe.recv_bytes(LONGEST_FACTS))
            if said is None:
                return
            if "error" in said:
                raise ERRORS.get(said["kind"], ImageError)(said["error"])
            yield said["facts"] | {name: _array(pipe, shape) for name, shape in said["shapes"].items()}
        raise broken
    except (EOFError, OSError):
        raise broken from None
    finally:
        process.kill()
        process.join()
        pipe.close()


def _start(
    function: Callable[..., Iterator[Answer]], arguments: tuple[Any, ...], mapped: int
) -> tuple[ForkServerProcess, Connection]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["phosphene.imagefile.tiff", "imagecodecs", "av"])
    ours, theirs = context.Pipe(duplex=False)
    memory = min(MEMORY, psutil.virtual_memory().available) + mapped
    process = context.Process(target=_tell, args=(theirs, function, arguments, SECONDS, memory), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _array(pipe: Connection, shape: list[int]) -> NDArray[np.float32]:
    array = np.empty(prod(shape), np.float32)
    pipe.recv_bytes_into(array)
    return array.reshape(shape)


def _tell(
    pipe: Connection,
    function: Callable[..., Iterator[Answer]],
    arguments: tuple[Any, ...],
    seconds: int,
    memory: int,
) -> None:
    """In the process apart: send what the function yields, and at last None, or the error that ended it."""
    limit_memory(memory)
    limit_time(seconds)
    torch.set_num_threads(1)
    try:
        for found in function(*arguments):
            arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
            facts = {name: value for name, value in found.items() if name not in arrays}
            _send(pipe, {"facts": facts, "shapes": {name: array.shape for name, array in arrays.items()}})
            for array in arrays.values():
                pipe.send_bytes(np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint8).data)
            limit_time(seconds)
        _send(pipe, None)
    except PhospheneError as error:
        kind = next((name for name, kind in ERRORS.items() if isinstance(error, kind)), "")
        _send(pipe, {"error": str(error), "kind": kind})


def _send(pipe: Connection, said: Any) -> None:
    pipe.send_bytes(json.dumps(said).encode())


def limit_time(seconds: int) -> None:
    """Let this process have so many more seconds of processor time, by the system's own limit."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, most))


def limit_memory(memory: int) -> None:
    """Let this process have so many more bytes of addresses, and leave no core behind, by the system's own limits."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS does not keep to it
        most = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
