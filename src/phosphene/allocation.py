"""How a process that dreams gets its memory."""

import ctypes
import os
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's `mallopt`: what is free at the heap's end before it is given back, and what is never put there."""

NEVER = -1

_keeps = False


def keep_freed() -> None:
    """Let this process keep the memory that it frees, for the next step, which needs as much again.

    Else glibc gives large blocks back to the system at once, and the system clears each page that it hands out again:
    docs/decisions/0010-frozen-convolutions.md says what that costs. Other C libraries are left as they are, and so are
    threads other than the main one, whose heaps hold no large blocks.
    """
    global _keeps
    mallopt = _of_glibc("mallopt")
    if mallopt and (mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)):  # glibc has had both limits
        mallopt(M_TRIM_THRESHOLD, NEVER)
        _keeps = True


def give_back() -> None:
    """Give the system what is kept and free now, if anything is kept."""
    if _keeps:
        _of_glibc("malloc_trim")(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
