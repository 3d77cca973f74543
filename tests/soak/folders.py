"""Dreams by way of the disk: killed, on a full disk, and damaged."""

import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.errors import PhospheneError
from phosphene.job import resume, run
from phosphene.recipe.settings import Recipe
from soak import Attempt, FindingError
from soak.mutate import mutated
from test_disk import RECIPE, begin, dream, in_a_process

SMALL = RECIPE.but(octaves=2, steps=2)
ALL = RECIPE.but(colour="original", octaves=2, steps=1, balanced=True, layers=("blocks.1.1", "blocks.2.0:-1"))
WANTED = {"out.tif": RECIPE, "out.png": ALL, "small.tif": SMALL}
"""Outputs, and the recipes of their dreams."""


def photograph(folder: Path) -> Path:
    """A small photograph with alpha, of 16 bits."""
    pixels = resize(imagefile.read("sample:coffee").image, (110, 150))
    imagefile.write(folder / "photo.tif", pixels, alpha=pixels[0], bits=16)
    return folder / "photo.tif"


def undisturbed(folder: Path, source: Path, output: str, recipe: Recipe) -> bytes:
    """The bytes of a dream that nothing disturbs."""
    begun = begin(source, recipe, folder / output)
    run(begun).save()
    data = (folder / output).read_bytes()
    (folder / output).unlink()
    return data


@contextmanager
def kills(scratch: Path) -> Iterator[Attempt]:
    """SIGKILL at random moments, until a process comes through; the picture has to be the undisturbed one."""
    source = photograph(scratch)
    expected = {output: undisturbed(scratch, source, output, recipe) for output, recipe in WANTED.items()}

    def attempt(chance: Random) -> Counter[str]:
        output = chance.choice(list(WANTED))
        target, killed, patience = scratch / output, 0, 4.0
        while not target.exists():
            started = {"source": str(source), "recipe": WANTED[output], "output": target}
            process = in_a_process(dream, Path(f"{target}.phosphene"), **started)
            process.join(chance.uniform(0, patience))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                killed, patience = killed + 1, patience * 1.25
            process.join()
            if process.exitcode not in (0, -signal.SIGKILL):
                raise FindingError(f"after {killed} kills a process ended with {process.exitcode}")
        data = target.read_bytes()
        target.unlink()
        if data != expected[output]:
            raise FindingError(f"another picture after {killed} kills")
        shutil.rmtree(f"{target}.phosphene", ignore_errors=True)
        return Counter({"kills": killed, "same picture": 1})

    yield attempt


@contextmanager
def full_disks(scratch: Path) -> Iterator[Attempt]:
    """A real disk that fills up at a random moment. What fails says so, and goes on when there is room again."""
    disk = scratch / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        source = photograph(disk)
        expected = undisturbed(disk, source, "out.tif", SMALL)

        def attempt(chance: Random) -> Counter[str]:
            try:
                return _on_a_full_disk(disk, source, expected, chance)
            finally:
                for path in set(disk.iterdir()) - {source}:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

        yield attempt
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _on_a_full_disk(disk: Path, source: Path, expected: bytes, chance: Random) -> Counter[str]:
    target, filler, out = disk / "out.tif", disk / "filler", Counter[str]()
    job = begin(source, SMALL, target)
    folder = job.resumable
    full_at, left = chance.randrange(5), int(2 ** chance.uniform(0, 22))

    def fill(step: object = None) -> None:
        nonlocal full_at
        full_at -= 1
        if full_at == -1:
            free = shutil.disk_usage(disk).free
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, free - left))

    fill()
    try:
        run(job, fill).save()
        out["there was room"] += 1
    except PhospheneError as error:
        out["said so"] += 1
        if target.exists() or "No space left" not in str(error):
            raise FindingError(f"{error}, and {target.exists()=}") from error
    del job
    left_over = [path.name for path in disk.iterdir() if path.name.startswith(".phosphene-")]
    if left_over:
        raise FindingError(f"left over: {left_over}")
    filler.unlink(missing_ok=True)
    if not target.exists():
        run(resume(folder)).save()
        out["went on"] += 1
    if target.read_bytes() != expected:
        raise FindingError("another picture")
    return out


@contextmanager
def damages(scratch: Path) -> Iterator[Attempt]:
    """One file of a run's folder is damaged, lost, or changes places. It is found out, or the picture is the same."""
    source, target = photograph(scratch), scratch / "out.tif"
    expected = undisturbed(scratch, source, "out.tif", SMALL)
    folder, kept = Path(f"{target}.phosphene"), []
    for steps in range(4):
        stop, seen = threading.Event(), []

        def count(step: object, steps: int = steps, stop: threading.Event = stop, seen: list[object] = seen) -> None:
            seen.append(step)
            if len(seen) > steps:
                stop.set()

        run(begin(source, SMALL, target), count, stop)
        kept.append(shutil.copytree(folder, scratch / f"after-{steps}"))
        shutil.rmtree(folder) if folder.exists() else target.unlink(missing_ok=True)

    def attempt(chance: Random) -> Counter[str]:
        shutil.rmtree(folder, ignore_errors=True)
        target.unlink(missing_ok=True)
        shutil.copytree(chance.choice(kept), folder)
        what = _damage(folder, chance)
        try:
            run(resume(folder)).save()
        except PhospheneError as error:
            if target.exists() or "\n" in str(error):
                raise FindingError(f"{what}: {error}") from error
            return Counter(["found out"])
        if target.read_bytes() != expected:
            raise FindingError(f"{what}: another picture")
        return Counter(["no matter"])

    yield attempt


def _damage(folder: Path, chance: Random) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path, other, way = chance.choice(files), chance.choice(files), chance.randrange(8)
    data = path.read_bytes()
    if way == 0:
        path.unlink()
    elif way == 1:
        path.write_bytes(other.read_bytes())
    elif way == 2:
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif way == 3:
        shutil.rmtree(path.parent)
    else:
        path.write_bytes(mutated(data, chance))
    return f"way {way}: {path.relative_to(folder)}, {other.relative_to(folder)}"
