"""What is written, without any dreaming."""

import numpy as np
import pytest

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.film.settings import VIDEOS
from phosphene.film.sink import CODECS, sink_for
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
