"""Pictures decoded in a process apart: the same pictures, and nothing that a decoder does reaches us."""

import os
import time

import PIL.Image
import pytest
import torch

from phosphene import imagefile
from phosphene.errors import ImageError, UsageError
from phosphene.imagefile import apart

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path):
    picture = imagefile.read("sample:coffee").image[:, :90, :120]
    imagefile.write(tmp_path / "a.png", picture, alpha=picture[0], bits=16)
    return tmp_path / "a.png"


def test_it_is_the_same_picture(path):
    here, there = imagefile.read(path), apart.read(path)
    assert torch.equal(here.image, there.image)
    assert torch.equal(here.alpha, there.alpha)
    assert (here.sha256, here.source, here.notes) == (there.sha256, there.source, there.notes)


def test_a_sentence_comes_back(tmp_path):
    (tmp_path / "a.png").write_bytes(b"Dear sir")
    with pytest.raises(ImageError, match=r"a\.png' is not a picture that can be read: give a PNG"):
        apart.read(tmp_path / "a.png")
    with pytest.raises(UsageError, match="too many for a name"):
        apart.read("x" * 300)


def test_the_system_limits_memory(tmp_path):
    PIL.Image.new("RGB", (6000, 6000)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"more memory|too much memory"):
        apart.read(tmp_path / "a.png", memory=2**28)
    assert apart.read(tmp_path / "a.png").image.shape == (3, 6000, 6000)


def _spin(*_):
    apart.limit(1, 2**30)
    while True:
        pass


def _crash(*_):
    os.abort()


@pytest.mark.parametrize("harm", [_spin, _crash])
def test_the_system_ends_what_hangs_or_crashes(path, monkeypatch, harm):
    monkeypatch.setattr(apart, "_decode", harm)
    begun = time.monotonic()
    with pytest.raises(ImageError, match="took too long or too much memory to decode, or broke the"):
        apart.read(path, seconds=20)
    assert time.monotonic() - begun < 20


def test_a_server_reads_apart(path, monkeypatch):
    asked = []
    here = imagefile.read_here(path)
    imagefile.read_by(lambda source, room: asked.append(source) or here)
    try:
        imagefile.read(path)
        assert imagefile.read("sample:coffee").image.shape == (3, 400, 600)
    finally:
        imagefile.read_by(None)
    assert asked == [path]
