"""Names and places that people give. What is tried here is real: links, pipes, names of bytes."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

import phosphene
from phosphene import imagefile
from phosphene.cli.dreaming import paired
from phosphene.disk.plan import create
from phosphene.errors import ImageError, OutputExistsError, PhospheneError, StoreError, UsageError
from phosphene.film import sink
from phosphene.film.stills import stills_of
from phosphene.places import check_folder, check_name, check_place, check_told, listed, make_folder

BYTES = os.fsdecode(b"caf\xe9.png")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("x" * 300 + ".png", "has 304 characters, too many for a name"),
        ("é" * 200 + ".png", "has 204 characters, too many for a name"),
        ("d/" * 3000 + "a.png", "has 6005 characters, too many"),
        (BYTES, r"b'caf\\xe9.png' is no name in UTF-8, and a recipe could not hold it: rename the file"),
        ("-", "'-' would be standard input or output, which cannot be read twice: give the name of a file"),
        ("a\0.png", "is no name of a file"),
        ("", "is no name of a file"),
    ],
)
def test_what_cannot_be_a_name(name, sentence):
    for look in (check_name, imagefile.read, imagefile.read_recipe, imagefile.checksum, imagefile.look):
        with pytest.raises(UsageError, match=sentence):
            look(name)
    with pytest.raises(UsageError, match=sentence.partition("'-'")[2] or sentence):
        imagefile.check_output(name, overwrite=True) if name.endswith("png") else check_place(Path(name), True)


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "a b.png", "🐕 夢.png", "./-", "~.png", "...", "a'b\"c.png"])
def test_what_can(tmp_path, name):
    check_name(name)
    check_place(tmp_path / name, overwrite=False)


def test_a_name_that_can_be_a_file_can_be_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    imagefile.check_output(path, overwrite=False)
    imagefile.write(path, torch.zeros(3, 2, 2))
    assert imagefile.read(path).image.shape == (3, 2, 2)


def test_an_output_through_a_link_is_written_where_it_points(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to("there/real.png")
    imagefile.check_output(link, overwrite=False)
    imagefile.write(link, torch.zeros(3, 2, 2))
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["real.png"]
    with pytest.raises(OutputExistsError, match=r"link\.png' exists already"):
        imagefile.check_output(link, overwrite=False)
    imagefile.check_output(link, overwrite=True)


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("missing/a.png")
    (tmp_path / "folder.png").symlink_to(tmp_path)
    with pytest.raises(ImageError, match=r"there is no folder '.*missing' to write 'gone\.png' in"):
        check_place(tmp_path / "gone.png", True)
    with pytest.raises(ImageError, match=r"folder\.png' is a folder: give the name of a file to write"):
        check_place(tmp_path / "folder.png", True)
    with pytest.raises(ImageError, match="is a link to itself"):
        check_place(tmp_path / "loop.png", True)
    with pytest.raises(ImageError, match="cannot be opened: give a file you may read"):
        imagefile.read(tmp_path / "loop.png")


def test_what_is_no_file_is_neither_read_nor_written(pipe):
    for path, kind in ((pipe("pipe.png"), "a pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(ImageError, match=f"is {kind}: give a file"):
            imagefile.read(path)
        with pytest.raises(ImageError, match=f"is {kind}: give the name of a file to write"):
            check_place(path, True)


@pytest.mark.parametrize(
    "given", [{"guide": "a.png"}, {"mask": "a.png"}, {"weights": "a.png"}, {"model": "pipe_net:net"}]
)
def test_a_pipe_is_not_waited_for_whatever_it_is_given_as(pipe, monkeypatch, given):
    monkeypatch.chdir(pipe("a.png").parent)
    pipe("pipe_net.py")
    with pytest.raises(PhospheneError, match=r"a\.png' is a pipe|No module named 'pipe_net'"):
        phosphene.dream("noise:40x40", octaves=1, steps=1, **given)


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever tests may be root
    with pytest.raises(ImageError, match=r"you may not write in '.*': choose another folder"):
        make_folder(tmp_path)


def test_what_a_recipe_names_is_looked_at_too(tmp_path):
    with pytest.raises(UsageError, match="is no name of a file"):
        check_told({"--preview": tmp_path / "out.png"}, "a\0b")


@contextmanager
def nobody():
    """Within, this process may do what the least of users may."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def closed():
    """A folder that everybody may enter, with one that nobody may look into or write to."""
    with TemporaryDirectory() as folder:
        inside = Path(folder, "closed")
        (inside / "deeper").mkdir(parents=True)
        Path(folder).chmod(0o755)
        inside.chmod(0o000)
        yield inside
        inside.chmod(0o755)


def test_a_folder_that_nobody_may_enter(closed):
    with nobody():
        for check in (check_name, check_folder):
            with pytest.raises(ImageError, match=r"you may not look at '.*a\.png': give one in a folder that you may"):
                check(closed / "a.png")
        with pytest.raises(ImageError, match="closed' cannot be read: Permission denied"):
            listed(closed)
        with pytest.raises(ImageError, match="closed' cannot be read: Permission denied"):
            phosphene.dream_each(closed)
        with pytest.raises(ImageError, match="closed' cannot be read: Permission denied"):
            stills_of(str(closed))
        with pytest.raises(ImageError, match="closed' cannot be read: Permission denied"):
            paired([str(closed)], Path("out"))


def test_folders_that_nobody_may_write_in_are_found_before_the_dream(closed):
    closed.chmod(0o555)
    beside = closed.parent / "out_files"
    beside.mkdir()
    beside.chmod(0o555)
    closed.parent.chmod(0o777)
    with nobody():
        with pytest.raises(ImageError, match=r"you may not write in '.*closed': choose another folder"):
            sink.check_output(closed, overwrite=True)
        with pytest.raises(ImageError, match=r"you may not write in '.*out_files': choose another folder"):
            imagefile.check_output(closed.parent / "out.dzi", overwrite=True)
        with pytest.raises(ImageError, match=r"you may not write in '.*closed': choose another folder"):
            create(closed, "plan.json", "dream")


def test_a_folder_for_temporary_files_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StoreError, match="there is no folder for temporary files: give an output"):
        phosphene.dream("noise:40x50", memory="1B", tile=64, octaves=1, steps=1, layers="blocks.1.1", device="cpu")
