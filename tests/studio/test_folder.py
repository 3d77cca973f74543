"""The folder: what is kept, under which name, and what cannot be reached."""

import pytest
import torch

from phosphene import imagefile
from phosphene.errors import ImageError, UnknownNameError
from phosphene.studio.folder import Folder, fitted


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "dreams")


@pytest.fixture
def png():
    return imagefile.encode(torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1)))


def test_a_dropped_file_is_kept_as_it_came(folder, png):
    path, photo = folder.keep(png, "My cat (1).PNG")
    assert path.read_bytes() == png
    assert path.name.startswith("My-cat-1-")
    assert path.suffix == ".png"
    assert folder.with_checksum(photo.sha256) == path.name
    assert folder.photograph(path.name) == str(path)


def test_the_same_file_is_kept_once(folder, png):
    assert folder.keep(png, "one.png")[0] == folder.keep(png, "two.png")[0]
    assert len(list(folder.photographs.iterdir())) == 1


def test_what_is_no_picture_leaves_nothing_behind(folder):
    with pytest.raises(ImageError):
        folder.keep(b"no picture", "a.png")
    assert [path for path in folder.root.rglob("*") if path.is_file()] == []


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


def test_fitted():
    assert fitted(300, 600, 480) == (240, 480)
    assert fitted(300, 200, 480) == (300, 200)
    assert fitted(1, 9000, 480) == (1, 480)
