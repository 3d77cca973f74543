"""The folder: what is kept, under which name, and what cannot be reached."""

import hashlib

import pytest
import torch

from phosphene import imagefile
from phosphene.cli import run
from phosphene.dreaming.pyramid import fit_within
from phosphene.errors import ImageError, UnknownNameError
from phosphene.studio.folder import Folder
from studio.conftest import end, start
from studio.words import keep


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "dreams")


@pytest.fixture
def png():
    return imagefile.encode(torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1)))


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="file' cannot be made: File exists"):
        Folder(tmp_path / "file")
    assert run(["studio", "--port", "0", "--folder", str(tmp_path / "file" / "dreams")]) == 1
    assert "dreams' cannot be made: Not a directory" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_any_more(tmp_path, png):
    """As where the disk is full, or the folder is taken away, while the studio runs."""
    running = start(tmp_path / "dreams")
    try:
        (running.folder / ".cache").rmdir()
        status, answer = running.ask("POST", "/api/photographs?name=a.png", png)
        expected = "the studio's folder cannot be read or written: No such file or directory"
        assert (status, answer) == (507, {"error": expected})
        (running.folder / ".cache").mkdir()
        assert running.ask("POST", "/api/photographs?name=a.png", png)[0] == 200
    finally:
        end(running)


def test_a_dropped_file_is_kept_as_it_came(folder, png):
    path = keep(folder, png, "My cat (1).PNG")
    assert path.read_bytes() == png
    assert path.name.startswith("My-cat-1-")
    assert path.suffix == ".png"
    assert folder.with_checksum(hashlib.sha256(png).hexdigest()) == path.name
    assert folder.photograph(path.name) == str(path)


def test_the_same_file_is_kept_once(folder, png):
    assert keep(folder, png, "one.png") == keep(folder, png, "two.png")
    assert len(list(folder.photographs.iterdir())) == 1


def test_what_is_no_picture_leaves_nothing_behind(folder):
    with pytest.raises(ImageError):
        keep(folder, b"no picture", "a.png")
    assert list(folder.cache.iterdir()) == list(folder.photographs.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/passwd", "", ".", "..", ".hidden.png", "b/c.png", "link.png", "a\0.png"]
)
def test_names_lead_nowhere_else(folder, name, png):
    (folder.root.parent / "a.png").write_bytes(png)
    (folder.root / ".hidden.png").write_bytes(png)
    (folder.root / "link.png").symlink_to(folder.root.parent / "a.png")
    with pytest.raises(UnknownNameError):
        folder.picture(name)
    assert folder.pictures() == []


def test_links_lead_nowhere(folder, png):
    outside = folder.root.parent / "elsewhere"
    (outside / "dreams").mkdir(parents=True)
    for path in (outside / "a.png", outside / "dreams" / "a.png", outside / "report.html", outside / "study.json"):
        path.write_bytes(png)
    (folder.root / "a.png").symlink_to(outside / "a.png")
    (folder.photographs / "a.png").symlink_to(outside / "a.png")
    (folder.root / "a.pth").symlink_to(outside / "a.png")
    comparisons = folder.root / "comparisons"
    (comparisons / "linked").symlink_to(outside)
    for name in ("its-dreams", "its-files"):
        (comparisons / name).mkdir()
    (comparisons / "its-dreams" / "dreams").symlink_to(outside / "dreams")
    (comparisons / "its-files" / "dreams").mkdir()
    (comparisons / "its-files" / "dreams" / "a.png").symlink_to(outside / "a.png")
    (comparisons / "its-files" / "report.html").symlink_to(outside / "report.html")
    for find, name in [
        (folder.picture, "a.png"),
        (folder.photograph, "a.png"),
        (folder.weights, "a.pth"),
        (folder.comparison, "linked"),
        (folder.comparison, "its-dreams"),
        (folder.picture, "its-files/a.png"),
        (folder.report, "its-files"),
    ]:
        with pytest.raises(UnknownNameError):
            find(name)
    assert folder.pictures() == folder.comparisons() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../photographs", "a/..", ".hidden", "a\0"])
def test_names_of_comparisons_lead_nowhere_else(folder, name, png):
    for place in (folder.root / "comparisons", folder.root / "comparisons" / ".hidden"):
        (place / "dreams").mkdir(parents=True)
        (place / "dreams" / "a.png").write_bytes(png)
    with pytest.raises(UnknownNameError):
        folder.comparison(name)
    with pytest.raises(UnknownNameError):
        folder.picture(f"{name}/a.png")


def test_a_curve_is_found_by_its_picture_whatever_its_name(folder, png):
    picture = folder.root / "a.png"
    picture.write_bytes(png)
    assert folder.curve(picture) is None
    folder.keep_curve(imagefile.checksum(picture), [(1, 1, 0.5, 9.0), (1, 2, 0.75, 9.5), (2, 1, 0.25, 9.9)])
    renamed = picture.rename(folder.root / "b.png")
    assert folder.curve(renamed) == {"scores": [0.5, 0.75, 0.25], "starts": [0, 2]}
    renamed.write_bytes(imagefile.encode(torch.zeros(3, 4, 4)))
    assert folder.curve(renamed) is None


def test_an_unknown_name_is_told_the_nearest(folder, png):
    (folder.root / "coffee-rings-1.png").write_bytes(png)
    with pytest.raises(UnknownNameError, match=r"did you mean coffee-rings-1.png\?"):
        folder.picture("coffee-rings.png")


def test_a_view_is_small_and_made_once_for_each_state_of_the_file(folder, png):
    path = folder.root / "a.png"
    path.write_bytes(png)
    view = folder.view(str(path), 15)
    assert imagefile.read(view).image.shape == (3, 10, 15)
    assert folder.view(str(path), 15) == view
    path.write_bytes(imagefile.encode(torch.zeros(3, 40, 40)))
    assert imagefile.read(folder.view(str(path), 15)).image.shape == (3, 15, 15)


def test_names_of_dreams_are_free_and_safe(folder):
    assert folder.free_name("a cat: /rings/..").name == "a-cat-rings-1.png"
    folder.free_name("x").write_bytes(b"")
    assert folder.free_name("x").name == "x-2.png"


def test_copies_fit_within_a_side():
    assert fit_within((300, 600), 480) == (240, 480)
    assert fit_within((300, 200), 480) == (300, 200)
    assert fit_within((1, 9000), 480) == (1, 480)
