"""The most memory that a process has held."""

from pathlib import Path


def peak() -> float:
    """Gigabytes that this process has held at most. (`ru_maxrss` would count what its parent held when it began.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9
