"""Dreams by way of the disk: the same file as in memory, whatever kills them on the way."""

import multiprocessing
import os
import random
import re
import resource
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from phosphene import imagefile
from phosphene.cli import run as phosphene
from phosphene.disk import files, journal, plan, raster
from phosphene.disk.plan import PLAN, disk_bytes
from phosphene.disk.run import DiskJob
from phosphene.dreaming.resample import resize
from phosphene.errors import ImageError, OutputExistsError, SettingsError, StoreError, UsageError
from phosphene.imagefile import streaming
from phosphene.job import prepare, resume, run
from phosphene.recipe.settings import Eye, Recipe
from phosphene.setup.memory import parse_bytes
from phosphene.setup.session import load_network

RECIPE = Recipe(
    layers=("blocks.1.1",), octaves=2, steps=3, size="full", tile=64, jitter=20, norm="laplacian", step_size=0.03
)


@pytest.fixture(scope="module")
def coffee(tmp_path_factory):
    """A photograph in a TIFF of strips, and one with alpha and 16 bits."""
    folder = tmp_path_factory.mktemp("photographs")
    pixels = resize(imagefile.read("sample:coffee").image, (150, 210))
    alpha = torch.linspace(0, 1, 150)[:, None].expand(150, 210)
    imagefile.write(folder / "coffee.tif", pixels)
    imagefile.write(folder / "deep.png", pixels, alpha=alpha, bits=16)
    return folder


def in_memory(source, recipe, target, bits=8):
    return run(prepare(str(source), recipe, "cpu")).save(target, bits=bits)


def begin(source, recipe, output, **more):
    """A dream by way of the disk, which takes more memory than it may have."""
    job = prepare(str(source), recipe, "cpu", "1B", output=output, **more)
    assert isinstance(job, DiskJob)
    return job


def dream_on_disk(source, recipe, output, **more):
    return run(begin(source, recipe, output, **more)).save()


@pytest.fixture(scope="module")
def undisturbed(coffee, tmp_path_factory):
    target = tmp_path_factory.mktemp("undisturbed") / "out.tif"
    dream_on_disk(str(coffee / "coffee.tif"), RECIPE, target)
    return target


def test_the_file_has_the_pixels_of_the_one_in_memory(coffee, undisturbed, tmp_path):
    expected = in_memory(coffee / "coffee.tif", RECIPE, tmp_path / "memory.tif")
    assert torch.equal(imagefile.read(undisturbed).image, imagefile.read(expected).image)
    assert imagefile.read_recipe(undisturbed).split("[made]")[0] == imagefile.read_recipe(expected).split("[made]")[0]
    assert list(undisturbed.parent.iterdir()) == [undisturbed]


@pytest.mark.parametrize(
    ("ending", "bits", "changes"),
    [
        (".png", 16, {"octaves": 1, "size": 100}),
        (".tif", 16, {"octaves": 1, "steps": 1, "colour": "original", "mask": "deep.png"}),
    ],
)
def test_alpha_depth_size_mask_and_colour(coffee, tmp_path, ending, bits, changes):
    changes = {key: str(coffee / value) if key == "mask" else value for key, value in changes.items()}
    recipe = RECIPE.but(**changes)
    expected = imagefile.read(in_memory(coffee / "deep.png", recipe, tmp_path / f"memory{ending}", bits))
    dream_on_disk(str(coffee / "deep.png"), recipe, tmp_path / f"disk{ending}", bits=bits)
    found = imagefile.read(tmp_path / f"disk{ending}")
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.alpha, expected.alpha)


def test_a_picture_wider_than_a_block(coffee, tmp_path):
    pixels = resize(imagefile.read("sample:coffee").image, (140, 1100))
    imagefile.write(tmp_path / "wide.png", pixels, alpha=pixels[0])
    recipe = RECIPE.but(octaves=1, steps=1, colour="original", halo=0)
    expected = imagefile.read(in_memory(tmp_path / "wide.png", recipe, tmp_path / "memory.png"))
    dream_on_disk(str(tmp_path / "wide.png"), recipe, tmp_path / "disk.png")
    found = imagefile.read(tmp_path / "disk.png")
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.alpha, expected.alpha)


def test_another_picture_under_the_same_names(tmp_path):
    """libvips remembers files by name."""
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"

    def fill(level):
        tifffile.imwrite(source, np.full((150, 210, 3), 255 * level, np.uint8), photometric="rgb", tile=(64, 64))

    for level in (0, 1):
        fill(level)
        _, part = next(files.decoded(streaming.look(source), tmp_path))
        assert part.mean() == level
    for level in (0, 1):
        fill(level)
        dream_on_disk(str(source), RECIPE.but(octaves=1, steps=1), target, overwrite=True)
        assert imagefile.read(target).image.mean() == pytest.approx(level, abs=0.1)


def test_a_sample(tmp_path):
    recipe = RECIPE.but(octaves=1, steps=1, size=90)
    expected = imagefile.read(in_memory("sample:coffee", recipe, tmp_path / "memory.png"))
    dream_on_disk("sample:coffee", recipe, tmp_path / "disk.png")
    assert torch.equal(imagefile.read(tmp_path / "disk.png").image, expected.image)


def test_a_tiff_has_a_pyramid(undisturbed):
    with tifffile.TiffFile(undisturbed) as tiff:
        assert tiff.is_bigtiff
        assert [page.shape[:2] for page in tiff.pages] == [(150, 210), (75, 105)]


FORKS = multiprocessing.get_context("forkserver")
"""Processes that share imports, made once, and nothing else; autograd does not outlive a plain fork."""
FORKS.set_forkserver_preload(["phosphene.disk.run", "phosphene.imagefile", "pytest", "tifffile", "pyvips"])


def dream(folder, **started):
    """Run or go on, in a process that may be killed."""
    torch.set_num_threads(1)
    job = resume(folder) if (folder / "plan.json").exists() else begin(**started)
    run(job).save()


def in_a_process(target, *arguments, **more):
    process = FORKS.Process(target=target, args=arguments, kwargs=more)
    process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again_it_ends_in_the_same_bytes(coffee, undisturbed, tmp_path, seed):
    """SIGKILL of a real process at random moments: while decoding, in a step, between steps, while encoding."""
    chance, target = random.Random(seed), tmp_path / "out.tif"
    started = {"source": str(coffee / "coffee.tif"), "recipe": RECIPE, "output": target}
    folder, kills, patience = tmp_path / "out.tif.phosphene", 0, 0.4
    while not target.exists():
        process = in_a_process(dream, folder, **started)
        process.join(chance.uniform(0, patience))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            kills, patience = kills + 1, patience * 1.15
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    assert kills >= 3
    assert target.read_bytes() == undisturbed.read_bytes()


def stopped(coffee, target, after=2, recipe=RECIPE):
    """A dream that was stopped after some steps, in its folder."""
    stop, steps = threading.Event(), []

    def count(step):
        steps.append(step)
        if len(steps) == after:
            stop.set()

    job = begin(coffee / "coffee.tif", recipe, target)
    assert run(job, count, stop).made.unfinished
    return job.resumable


def test_stopped_it_goes_on_from_the_last_step(coffee, undisturbed, tmp_path):
    target = tmp_path / "out.tif"
    folder = stopped(coffee, target)
    job = resume(folder)
    assert job.notes == ("going on from octave 1, step 2",)
    steps = []
    dreamed = run(job, steps.append)
    assert [(step.octave, step.step) for step in steps] == [(1, 3), (2, 1), (2, 2), (2, 3)]
    assert len(dreamed.trace.rows) == 6
    assert dreamed.save() == target
    assert target.read_bytes() == undisturbed.read_bytes()
    del job, dreamed
    assert not folder.exists()


def test_two_runs_on_one_folder(coffee, tmp_path):
    folder = stopped(coffee, tmp_path / "out.tif")
    with journal.locked(folder), pytest.raises(StoreError, match="in use by another run"):
        run(resume(folder)).save()
    with pytest.raises(UsageError, match=r"`phosphene resume .*` goes on with it"):
        begin(coffee / "coffee.tif", RECIPE, tmp_path / "out.tif")


def test_a_changed_input(coffee, tmp_path):
    source = tmp_path / "photo.tif"
    source.write_bytes((coffee / "coffee.tif").read_bytes())
    stop = threading.Event()
    stop.set()
    job = begin(source, RECIPE, tmp_path / "out.tif")
    run(job, stop=stop)
    imagefile.write(source, torch.zeros(3, 150, 210))
    with pytest.raises(StoreError, match=r"the photograph '.*photo.tif' has changed"):
        resume(job.resumable)
    source.write_bytes((coffee / "coffee.tif").read_bytes())
    assert resume(job.resumable).notes


def test_a_missing_chunk(coffee, tmp_path):
    folder = stopped(coffee, tmp_path / "out.tif")
    dream = folder / journal.last(folder).dream
    next(path for path in (dream / "c").rglob("*") if path.is_file()).unlink()
    with pytest.raises(StoreError, match="misses a chunk"):
        run(resume(folder)).save()
    assert not (tmp_path / "out.tif").exists()


def chunks(folder):
    dream = folder / journal.last(folder).dream
    return sorted(path for path in (dream / "c").rglob("*") if path.is_file())


def swap(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at % 8)
    path.write_bytes(data)


def test_chunks_that_changed_places(coffee, tmp_path):
    """Within an array, and with one that is left from the step before."""
    folder = stopped(coffee, tmp_path / "out.tif", recipe=RECIPE.but(octaves=1))
    dream = folder / journal.last(folder).dream
    before = next(path for path in folder.glob("dream-*") if path != dream)
    first = chunks(folder)[0]
    places = [(first, chunks(folder)[1]), (first, before / first.relative_to(dream))]
    for one, other in places:
        swap(one, other)
        with pytest.raises(StoreError, match="is damaged or in a wrong place; the photograph is not touched"):
            run(resume(folder))
        swap(one, other)
    run(resume(folder))


@pytest.mark.parametrize("name", [PLAN, "journal.json", "raster.json"])
def test_a_flipped_bit_at_every_place(coffee, tmp_path, name):
    """Nothing goes on with what is not what was written: a recipe, a random state, an array's own description."""
    folder = stopped(coffee, tmp_path / "out.tif", recipe=RECIPE.but(octaves=1))
    path = folder / journal.last(folder).dream / name if name == "raster.json" else folder / name
    whole = path.read_bytes()
    for at in range(0, len(whole), 1 if len(whole) < 2000 else 97):
        flip(path, at)
        with pytest.raises(StoreError, match=r"is damaged|cannot be read|could not be read"):
            raster.reopen(path.parent) if name == "raster.json" else (resume(folder), journal.last(folder))
        path.write_bytes(whole)
    resume(folder)


def test_a_lost_description_of_a_raster_says_what_to_do(coffee, tmp_path):
    folder = stopped(coffee, tmp_path / "out.tif", recipe=RECIPE.but(octaves=1))
    (folder / "photograph" / "raster.json").unlink()
    with pytest.raises(
        StoreError, match=r"raster.json was lost, and the dream cannot go on: remove .*, and begin again"
    ):
        run(resume(folder))


def test_a_raster_is_not_an_older_one_under_its_name(tmp_path):
    """Another process may have the older one open still; a picture that travelled to it says which one is meant."""
    older = raster.create(tmp_path / "picture", (1, 4, 4))
    older.write(torch.zeros(1, 4, 4), slice(0, 4))
    newer = raster.create(tmp_path / "picture", (1, 4, 4))
    newer.write(torch.ones(1, 4, 4), slice(0, 4))
    for found in (newer, raster.reopen(newer.path)):
        assert torch.equal(found.read(slice(0, 4)), torch.ones(1, 4, 4))
    with pytest.raises(StoreError, match="is damaged or in a wrong place"):
        older.read(slice(0, 4))


def test_files_that_changed_places(coffee, tmp_path):
    folder = stopped(coffee, tmp_path / "out.tif", recipe=RECIPE.but(octaves=1))
    swap(folder / PLAN, folder / "journal.json")
    with pytest.raises(StoreError, match=r"plan.json is damaged: its checksum is another one; the photograph and"):
        resume(folder)


def test_a_folder_that_vanishes(coffee, tmp_path):
    target = tmp_path / "out.tif"
    folder = stopped(coffee, target)

    def lose(step):
        folder.rename(tmp_path / "elsewhere")

    with pytest.raises(StoreError, match=r"out\.tif\.phosphene"):
        run(resume(folder), lose)
    with pytest.raises(UsageError, match="no dream to go on with"):
        resume(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written(coffee, tmp_path):
    folder = stopped(coffee, tmp_path / "out.tif")
    folder.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="could not be used"):
            run(resume(folder)).save()
    finally:
        folder.chmod(0o700)


def starved_of_disk(folder):
    """The process may write no file larger than 100 kB, as if the disk were full."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        run(resume(folder)).save()
    except StoreError as error:
        os._exit(7 if "too large" in str(error) else 8)


def test_a_disk_that_is_full_loses_nothing(coffee, undisturbed, tmp_path):
    """A real write that the system refuses."""
    folder = stopped(coffee, tmp_path / "out.tif")
    process = in_a_process(starved_of_disk, folder)
    process.join()
    assert process.exitcode == 7
    run(resume(folder)).save()
    assert (tmp_path / "out.tif").read_bytes() == undisturbed.read_bytes()


def test_too_little_disk_is_said_before_the_first_step(coffee, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("phosphene.disk.plan.shutil.disk_usage", lambda path: usage)
    needed = disk_bytes(RECIPE, (150, 210), (150, 210)) / 1e6
    with pytest.raises(StoreError, match=f"needs {needed:.0f} MB on disk, and 1 MB are free"):
        begin(coffee / "coffee.tif", RECIPE, tmp_path / "out.tif")
    assert not list(tmp_path.iterdir())


def size_of(file):
    try:
        return os.stat(file).st_size
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("changes", [{"octaves": 1}, {"octaves": 2}, {"octaves": 1, "cuts": ("blocks.0",)}], ids=str)
def test_the_disk_that_is_said_is_enough(coffee, tmp_path, changes):
    """Watch the folder while it is dreamed in; what is known at cuts lies there too."""
    target, recipe = tmp_path / "out.tif", RECIPE.but(jitter=0, **changes)
    job = begin(coffee / "deep.png", recipe, target, bits=16)
    most, over = 0, threading.Event()

    def watch():
        nonlocal most
        while not over.is_set():
            files = [os.path.join(folder, name) for folder, _, names in os.walk(job.resumable) for name in names]
            sizes = [size_of(file) for file in files]
            most = max(most, sum(sizes))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run(job).save()
    finally:
        over.set()
        watcher.join()
    said = parse_bytes(re.search(r"up to ([\d.]+ \w+) on disk", job.notes[0])[1].replace(" ", ""))
    assert 0 < most < said
    if "cuts" in changes:
        assert said > 1.1 * disk_bytes(recipe, (150, 210), (150, 210))


def test_balanced_patterns_take_a_gradient_for_each_layer(coffee, tmp_path):
    said = []
    for layers in (("blocks.1.*.add",), ("blocks.[0-3].*.add",)):
        job = begin(coffee / "coffee.tif", RECIPE.but(layers=layers, balanced=True), tmp_path / f"{len(said)}.tif")
        said.append(int(re.search(r"up to (\d+) MB on disk", job.notes[0])[1]))
    assert said[1] > said[0]


def test_a_tiff_that_is_cut_off(coffee, tmp_path):
    whole = (coffee / "coffee.tif").read_bytes()
    (tmp_path / "half.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"half\.tif' is broken or cut off: give a whole picture"):
        dream_on_disk(str(tmp_path / "half.tif"), RECIPE, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def test_what_cannot_be_begun(coffee, tmp_path):
    source = coffee / "coffee.tif"
    (tmp_path / "there.tif").touch()
    with pytest.raises(OutputExistsError):
        begin(source, RECIPE, tmp_path / "there.tif")
    with pytest.raises(SettingsError, match="must be one of"):
        begin(source, RECIPE, tmp_path / "out.gif")
    with pytest.raises(SettingsError, match="16 bits"):
        begin(source, RECIPE, tmp_path / "out.jpg", bits=16)
    with pytest.raises(UsageError, match=r"a cluster .* 'out.webp' cannot be written in strips"):
        begin(source, RECIPE, tmp_path / "out.webp", cluster="local")
    with pytest.raises(UsageError, match=r"'out.dzi' is written by way of the disk, .* leave --tile none out"):
        begin(source, RECIPE.but(tile="none"), tmp_path / "out.dzi")
    assert [path.name for path in tmp_path.iterdir()] == ["there.tif"]


@pytest.mark.parametrize("source", ["noise:90x130", torch.rand(3, 90, 130, generator=torch.Generator().manual_seed(1))])
def test_what_is_in_memory_already(source, tmp_path):
    expected = run(prepare(source, RECIPE, "cpu"))
    job = prepare(source, RECIPE, "cpu", memory="1B")
    assert isinstance(job, DiskJob)
    found = run(job)
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.look(60), expected.look(60))
    folder = job.scratch.path
    assert folder.exists()
    del job, found
    assert not folder.exists()


def test_a_noise_that_was_stopped_goes_on(tmp_path):
    stop = threading.Event()
    stop.set()
    job = prepare("noise:90x130", RECIPE, "cpu", "1B", output=tmp_path / "out.png")
    run(job, stop=stop)
    found = run(resume(job.resumable))
    assert torch.equal(found.image, run(prepare("noise:90x130", RECIPE, "cpu")).image)


@pytest.mark.parametrize("colour", ["dream", "original"])
def test_what_was_stopped_can_be_saved_as_far_as_it_came(coffee, tmp_path, colour):
    stop = threading.Event()
    stop.set()
    pictures = []
    for memory in (None, "1B"):
        job = prepare(
            str(coffee / "deep.png"), RECIPE.but(colour=colour), "cpu", memory, output=tmp_path / f"{memory}.png"
        )
        dreamed = run(job, stop=stop)
        pictures.append(imagefile.read(dreamed.save()).image)
        assert "stopped after step 1 of 3" in dreamed.made.unfinished
    assert job.resumable.exists()
    assert (pictures[0] - pictures[1]).abs().mean() < (0.02 if colour == "original" else 1e-6)


def test_the_commands(coffee, undisturbed, tmp_path, capsys):
    """What does not fit is streamed without being asked for, and `resume` goes on with what was stopped."""
    settings = ["--layer", "blocks.1.1", "--octaves", "1", "--steps", "1", "--size", "full", "--tile", "64"]
    target = tmp_path / "small.tif"
    command = ["dream", str(coffee / "coffee.tif"), "-o", str(target), "--memory", "1B", "--device", "cpu", *settings]
    assert phosphene(command) == 0
    assert "streamed by way of" in capsys.readouterr().err
    assert imagefile.read(target).image.shape == (3, 150, 210)
    folder = stopped(coffee, tmp_path / "out.tif")
    assert phosphene(["resume", str(folder)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out.tif'}\n"
    assert (tmp_path / "out.tif").read_bytes() == undisturbed.read_bytes()
    assert phosphene(["resume", str(folder)]) == 2
    assert "no dream to go on with" in capsys.readouterr().err


def test_alpha_and_mask_that_are_lost_are_missed(coffee, tmp_path):
    """A folder without them is damaged, and not one of a dream that has none."""
    stop = threading.Event()
    stop.set()
    recipe = RECIPE.but(octaves=1, steps=2, mask=str(coffee / "coffee.tif"))
    job = begin(coffee / "deep.png", recipe, tmp_path / "out.png")
    run(job, stop=stop)
    for name in ("alpha", "mask"):
        (job.resumable / name).rename(tmp_path / "elsewhere")
        with pytest.raises(StoreError, match=name):
            run(resume(job.resumable)).save()
        (tmp_path / "elsewhere").rename(job.resumable / name)
    assert imagefile.read(run(resume(job.resumable)).save()).alpha is not None


def test_time_goes_on_where_it_was(coffee, tmp_path):
    folder = stopped(coffee, tmp_path / "out.tif")
    spent = journal.last(folder).rows[-1][3]
    steps = []
    found = run(resume(folder), steps.append)
    assert steps[0].seconds > spent
    assert found.trace.rows == sorted(found.trace.rows, key=lambda row: row[3])


def test_a_sample_is_gone_on_with_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stop = threading.Event()
    stop.set()
    job = begin("sample:coffee", RECIPE.but(size=100), Path("out.tif"))
    run(job, stop=stop)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(resume(tmp_path / "out.tif.phosphene")).save() == tmp_path / "out.tif"


def test_changed_weights_are_told(coffee, tmp_path):
    network = load_network(Eye()).module
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    recipe = RECIPE.but(weights=str(tmp_path / "mine.pth"))
    folder = stopped(coffee, tmp_path / "out.tif", recipe=recipe)
    torch.save({name: 2 * tensor for name, tensor in network.state_dict().items()}, tmp_path / "mine.pth")
    with pytest.raises(StoreError, match=r"the weights '.*mine.pth' have changed since the dream began"):
        resume(folder)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    assert resume(folder).notes


def test_what_a_step_needs_is_looked_for_where_the_dream_began(coffee, undisturbed, tmp_path, monkeypatch):
    """The photograph is found from anywhere; a mask, a guide or weights have to be where the recipe names them."""
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    there.mkdir(), elsewhere.mkdir()
    (there / "in.tif").write_bytes((coffee / "coffee.tif").read_bytes())
    monkeypatch.chdir(there)
    stop = threading.Event()
    stop.set()
    run(begin("in.tif", RECIPE, Path("out.tif")), stop=stop)
    imagefile.write(Path("like.png"), torch.rand(3, 40, 40))
    run(begin("in.tif", RECIPE.but(guide="like.png"), Path("guided.tif")), stop=stop)
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UsageError, match=r"was begun in '.*there', where 'like.png' is: go on with it from there"):
        resume(there / "guided.tif.phosphene")
    run(resume(there / "out.tif.phosphene")).save()
    assert torch.equal(imagefile.read(there / "out.tif").image, imagefile.read(undisturbed).image)


def test_seen_from_another_folder_it_ends_beside_its_own(coffee, undisturbed, tmp_path, monkeypatch):
    """Whose output was named from where the dream began."""
    monkeypatch.chdir(tmp_path)
    stopped(coffee, Path("out.tif"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(resume(tmp_path / "out.tif.phosphene")).save()
    assert (tmp_path / "out.tif").read_bytes() == undisturbed.read_bytes()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_is_left_of_a_folder_is_not_gone_on_with(coffee, undisturbed, tmp_path):
    """Killed while a finished dream's folder was removed: its plan was gone first."""
    folder = stopped(coffee, tmp_path / "out.tif", recipe=RECIPE.but(step_size=0.5))
    (folder / PLAN).unlink()
    run(begin(coffee / "coffee.tif", RECIPE, tmp_path / "out.tif")).save()
    assert (tmp_path / "out.tif").read_bytes() == undisturbed.read_bytes()


def test_an_error_while_a_folder_is_held_stays_what_it_is(tmp_path):
    with pytest.raises(BrokenPipeError), journal.locked(tmp_path):
        raise BrokenPipeError
    with pytest.raises(StoreError, match="in use by another run"), journal.locked(tmp_path), journal.locked(tmp_path):
        pass


def test_an_array_that_was_not_kept(tmp_path):
    """A kill after the folder is made and before the first entry leaves the plan alone."""
    job = begin_array(tmp_path / "out.tif")
    plan.begin(job.plan, job.scratch)
    with pytest.raises(UsageError, match=r"the array that .* is of was not kept yet: remove the folder"):
        resume(job.resumable)


def begin_array(output):
    return prepare(torch.rand(3, 150, 210), RECIPE, "cpu", "1B", output=output)
