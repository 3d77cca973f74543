"""Try for so many minutes, and print what was tried and what came out."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from soak.parts import PARTS
from soak.running import Tally, leaks, soak


def main() -> int:
    """Return 1 where there were findings."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all parts together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", action="append", choices=[part.name for part in PARTS], help="a part; may be repeated"
    )
    parser.add_argument("--first", type=int, default=0, help="the number of the first try, to see a finding again")
    parser.add_argument("--tries", type=int, default=0, help="so many of each part, however long they take")
    given = parser.parse_args()
    parts = [part for part in PARTS if not given.only or part.name in given.only]
    scratch = Path(tempfile.mkdtemp(prefix="soak-"))
    found = []
    print("| part | tries | what came out | slowest | memory | process after 5 tries, at the end |", flush=True)
    print("| --- | ---: | --- | ---: | ---: | --- |", flush=True)
    for part in parts:
        seconds = 0 if given.tries else 60 * given.minutes * part.share / sum(part.share for part in parts)
        tally = soak(part, given.seed, scratch, seconds, given.tries, given.first)
        print(row(part.name, tally), flush=True)
        found += tally.findings + leaks(part, tally)
    shutil.rmtree(scratch, ignore_errors=True)
    print("", *(found or ["No findings."]), sep="\n")
    return 1 if found else 0


def row(name: str, tally: Tally) -> str:
    """A part's line in the table."""
    out = ", ".join(f"{count:,} {word}" for word, count in sorted(tally.out.items(), key=lambda each: -each[1]))
    out += f", **{len(tally.findings)} findings**" if tally.findings else ""
    held = [
        f"{mb} MB, {threads} threads, {files} files" for mb, threads, files in filter(None, (tally.began, tally.ended))
    ]
    return f"| {name} | {tally.tried:,} | {out} | {tally.slowest:.1f} s | {tally.largest} MB | {'; '.join(held)} |"


if __name__ == "__main__":
    sys.exit(main())
