"""How a process that dreams gets its memory."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's `mallopt`: what is free at the heap's end before it is given back, and what is never put there."""


def keep_freed() -> None:
    """Let this process keep the memory that it frees, for the next step, which needs as much again.

    Else glibc gives large blocks back to the system at once, and the system clears each page that it hands out again:
    docs/decisions/0010-frozen-convolutions.md says what that costs. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
