"""What a step of a network costs on this machine, in seconds and memory, at the size of the study's pictures."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import Field, ValidationError

from phosphene.imagefile import write_atomically
from phosphene.job import prepare, run
from phosphene.malloc import keep_freed
from phosphene.recipe.settings import Recipe, Settings
from phosphene.studies.run.cell import Result, one_thread
from phosphene.studies.run.folder import Folder
from phosphene.studies.run.workers import is_private
from phosphene.studies.study import Study, file_name
from phosphene.types import Size


class Cost(Settings):
    """The cost of a step at one size of picture, with the whole image's gradient."""

    model: str
    size: Annotated[Size, Field(description="Height and width, in px.")]
    layers: tuple[str, ...]
    device: str
    seconds: Annotated[float, Field(description="Median of a few steps.")]
    memory: Annotated[int | None, Field(description="Peak of a process that dreams nothing else, in bytes.")]
    libraries: Annotated[int | None, Field(description="The part of it that was there before the network was.")]


def costs(study: Study, folder: Folder, results: Mapping[str, Result], device: str) -> dict[str, Cost]:
    """Measure a step of each model, in a fresh process each, unless the folder has the answer already.

    The process is a command of its own: one of `multiprocessing` would run a caller's script once more.

    A model whose pictures did not fit the memory as a whole is left out, and so are what only this process knows and
    what cannot be measured: a finished study is not lost for it.
    """
    found = {}
    for model in study.models:
        sizes = [
            (r.made.size, r.recipe)
            for r in results.values()
            if r.made and r.recipe and r.recipe.model == model and not (_was_cut(r) or is_private(r.recipe))
        ]
        if sizes:
            size, recipe = sizes[0]
            with suppress(subprocess.SubprocessError, OSError, ValueError, IndexError):
                found[model] = _known(folder, model, size) or _measured(folder, recipe, size, device)
    return found


def _was_cut(result: Result) -> bool:
    return result.cell.recipe.tile == "auto" and result.recipe is not None and result.recipe.tile != "none"


def _known(folder: Folder, model: str, size: Size) -> Cost | None:
    try:
        cost = Cost.model_validate_json(_path(folder, model).read_bytes())
    except (OSError, ValidationError):
        return None
    return cost if cost.size == size else None


def _measured(folder: Folder, recipe: Recipe, size: Size, device: str) -> Cost:
    asked = json.dumps([recipe.model_dump(), size, device])
    command = [sys.executable, "-P", "-m", "phosphene.studies.measure.cost", asked]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    answer = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, check=True)
    cost = Cost.model_validate_json(answer.stdout.splitlines()[-1])
    path = _path(folder, recipe.model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, cost.model_dump_json(indent=1).encode())
    return cost


def measure_step(recipe: Recipe, size: Size, device: str) -> Cost:
    """Dream a few steps of noise of `size`, in this process, and return what they took."""
    before = _peak_memory()
    plain = recipe.but(octaves=1, steps=4, tile="none", size="full", guide=None, mask=None)
    with one_thread():
        job = prepare(f"noise:{size[0]}x{size[1]}", plain, device)
        rows = run(job).trace.rows
    seconds = [after[3] - earlier[3] for earlier, after in pairwise(rows)]
    return Cost(
        model=recipe.model,
        size=size,
        layers=plain.layers,
        device=job.made.device,
        seconds=median(seconds),
        memory=_peak_memory(),
        libraries=before,
    )


def _peak_memory() -> int | None:
    """Largest resident size that this process ever had, in bytes; None on systems that do not say.

    Linux is asked by its status file, because what `getrusage` says there begins with the parent's.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return _peak_of_usage()


def _peak_of_usage() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _path(folder: Folder, model: str) -> Path:
    return folder.path / "costs" / f"{file_name(model)}.json"


if __name__ == "__main__":
    keep_freed()
    words, (height, width), where = json.loads(sys.argv[1])
    print(measure_step(Recipe(**words), (height, width), where).model_dump_json())
