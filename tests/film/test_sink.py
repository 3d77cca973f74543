"""What is written, without any dreaming."""

from pathlib import Path

import numpy as np
import pytest
import torch

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.errors import ImageError, SettingsError
from phosphene.film.settings import VIDEOS
from phosphene.film.sink import CODECS, fitting, sink_for
from phosphene.film.source import look_at

from .conftest import write_film


def scraps(rng):
    """Leave memory full of anything, and hold some of it."""
    return [np.full(rng.integers(200_000), rng.integers(256), np.uint8) for _ in range(40)][::3]


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (46, 210), (32, 128)], ids=str)
@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_the_same_frames_are_the_same_film(tmp_path, size, ending):
    """Whatever memory held before; x264 once read what was not its own where a side is no multiple of 128 px."""
    coffee = imagefile.read("sample:coffee").image
    images = [
        resize(coffee, (size[0] + 2 * k, size[1] + 3 * k))[:, k : k + size[0], k : k + size[1]] for k in range(12)
    ]
    footage = look_at(str(write_film(tmp_path / "in.mp4", images)))
    films, rng = [], np.random.default_rng(0)
    for _ in range(4):
        sink = sink_for(tmp_path, tmp_path / f"out.{ending}", size, footage, "")
        for pts, image in enumerate(images):
            left = scraps(rng)
            sink.add(image, pts)
            del left
        sink.close(tmp_path / f"out.{ending}")
        films.append((tmp_path / f"out.{ending}").read_bytes())
    assert films[1:] == films[:-1]


def test_the_endings_whose_recipe_is_in_a_container():
    """The command line has them too, so that pictures are read without PyAV."""
    assert set(CODECS) == set(VIDEOS)


@pytest.mark.parametrize(("name", "longest"), [("a.webp", 16383), ("a.gif", 65535), ("a.mp4", 16384)])
def test_frames_that_are_too_large_for_a_file_are_told(name, longest):
    assert max(fitting(Path(name), (2, longest))) >= longest - 1
    with pytest.raises(
        SettingsError, match=rf"'{name}' cannot hold frames of {longest + 2} x 2 px, only {longest} a side"
    ):
        fitting(Path(name), (2, longest + 2))


def test_what_an_encoder_cannot_do_is_one_sentence(tmp_path):
    with pytest.raises(ImageError, match=r"a\.webp' could not be written: .*5"):
        imagefile.write_moving(tmp_path / "a.webp", [torch.zeros(3, 2, 16400)] * 2, [0.1, 0.1])
    assert not (tmp_path / "a.webp").exists()
