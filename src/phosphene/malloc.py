"""How a process that dreams gets its memory."""

import ctypes
import os
import sys
from contextlib import suppress
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Names of glibc's `mallopt`: what is free at the heap's end before it is given back, what is never put there, and how
many heaps there are for threads."""

THRESHOLD = 2**17
"""Bytes with which glibc begins, of both thresholds."""

NEVER = -1

TUNABLES = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
"""Of glibc, for its environment: no free scraps are put aside."""

BEGUN = "PHOSPHENE_BEGUN"
"""Loop guard: set in the re-executed process, in case the OS strips GLIBC_TUNABLES."""

STARVED = ("can't allocate memory", "could not create a primitive", "std::bad_alloc", "can't start new thread",
           "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")  # fmt: skip
"""What is said when memory runs out: by PyTorch's allocator, by oneDNN, which computes its convolutions, by C++, by
Python of a thread, and by CUDA and MPS."""

_keeps = False


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: PyTorch says so in a class of its own on a GPU, and in words on the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in STARVED)
    )


def begin_again() -> None:
    """Replace this process by itself with glibc's `TUNABLES`, which only a new process takes; else nothing happens.

    PyTorch's blocks are aligned, which leaves scraps on both sides. Scraps that are put aside are not joined with the
    block when it is freed, the next one of the same size does not fit there, and what is kept grows. With nothing put
    aside the peaks of whole processes were 12 to 27 % lower. Who has set `GLIBC_TUNABLES` keeps what is set.
    """
    if _of_glibc("mallopt") and not os.environ.keys() & {"GLIBC_TUNABLES", BEGUN}:
        settings = {"GLIBC_TUNABLES": TUNABLES, BEGUN: "1"}
        with suppress(OSError):  # no interpreter to be found: go on as it is
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | settings)


def keep_freed() -> None:
    """Let this process keep the memory that it frees, for the next step, which needs as much again.

    Else glibc gives large blocks back to the system at once, and the system clears each page that it hands out again:
    src/phosphene/engine/NOTES.md says what that costs. Other C libraries are left as they are, and so are
    threads other than the main one, whose heaps hold no large blocks, and processes whose addresses are limited
    (`ulimit -v`): what is free there still has its addresses, and nothing else gets them.
    """
    global _keeps
    mallopt = _of_glibc("mallopt")
    if mallopt is None or _has_few_addresses():
        return
    if mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25):  # glibc has had both limits
        mallopt(M_TRIM_THRESHOLD, NEVER)
        _keeps = True


def keep_nothing() -> None:
    """Give the system what is free, and from now on at once what is freed: for when memory is short.

    Threads begun from now on get no heaps of their own, each of which would reserve 64 MB, unless many have them.
    """
    global _keeps
    mallopt = _of_glibc("mallopt")
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, THRESHOLD)
        mallopt(M_ARENA_MAX, 1)
        _of_glibc("malloc_trim")(0)
        _keeps = False


def give_back() -> None:
    """Give the system what is kept and free now, if anything is kept."""
    if _keeps:
        _of_glibc("malloc_trim")(0)


def _has_few_addresses() -> bool:
    from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit  # not on Windows

    return getrlimit(RLIMIT_AS)[0] != RLIM_INFINITY


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
