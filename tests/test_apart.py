"""Files decoded in a process apart: the same pictures and films, and nothing that a decoder does reaches us."""

import os
import subprocess
import sys
import time
from contextlib import closing
from fractions import Fraction

import numpy as np
import PIL.Image
import psutil
import pytest
import torch

import film.conftest as films
from phosphene import apart, imagefile
from phosphene.errors import BrokenFilmError, ImageError, StoreError, UnknownNameError, UsageError
from phosphene.imagefile import streaming

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def decoded_here_again():
    yield
    apart.decode_apart(False)


@pytest.fixture
def path(tmp_path):
    picture = imagefile.read("sample:coffee").image[:, :90, :120]
    imagefile.write(tmp_path / "a.png", picture, alpha=picture[0], bits=16, recipe="[made]")
    return tmp_path / "a.png"


def both(question):
    """An answer had here, and one from a process apart."""
    here = question()
    apart.decode_apart()
    return here, question()


def test_it_is_the_same_picture(path):
    here, there = both(lambda: imagefile.read(path))
    assert torch.equal(here.image, there.image)
    assert torch.equal(here.alpha, there.alpha)
    assert (here.sha256, here.source, here.notes) == (there.sha256, there.source, there.notes)


def test_it_says_the_same_of_itself(path):
    for question in (imagefile.look, streaming.look, imagefile.read_recipe):
        here, there = both(lambda question=question: question(path))
        assert type(here) is type(there)
        assert here == there


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGBA"), ("a.jpg", "RGB"), ("a.tif", "RGBA"), ("a.webp", "RGB")])
def test_a_streamed_picture_is_the_same(tmp_path, name, mode):
    samples = np.random.default_rng(0).integers(0, 256, (700, 40, len(mode)), np.uint8)
    PIL.Image.fromarray(samples, mode).save(tmp_path / name, icc_profile=b"broken")

    def parts():
        notes: list[str] = []
        return [*streaming.look(tmp_path / name).parts(tmp_path, notes)], notes

    (here, noted), (there, noted_there) = both(parts)
    assert noted == noted_there
    assert len(noted) == 1
    assert [rows for rows, _, _ in here] == [rows for rows, _, _ in there]
    assert here[-1][0].stop == 700
    for (_, colour, alpha), (_, colour_there, alpha_there) in zip(here, there, strict=True):
        assert np.array_equal(colour, colour_there)
        assert (alpha is None and alpha_there is None) or np.array_equal(alpha, alpha_there)


def test_a_film_is_the_same(tmp_path):
    from phosphene.film.sound import listen
    from phosphene.film.source import look_at, shots

    film = films.write_film(tmp_path / "a.mp4", films.pan(6), sound=True)

    def watched():
        footage = look_at(str(film))
        return footage, [*shots(footage)], listen(footage)

    (footage, frames, sound), (footage_there, frames_there, sound_there) = both(watched)
    assert footage == footage_there
    assert [shot.pts for shot in frames] == [shot.pts for shot in frames_there]
    assert all(torch.equal(a.image, b.image) for a, b in zip(frames, frames_there, strict=True))
    assert np.array_equal(sound, sound_there)
    assert sound.any()


def test_a_film_that_breaks_off_is_read_up_to_there(tmp_path):
    from phosphene.film.source import look_at, shots

    whole = films.write_film(tmp_path / "a.mkv", films.pan(40), codec="mpeg4", rate=Fraction(6))
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size * 8 // 10])
    apart.decode_apart()
    frames = []
    with pytest.raises(BrokenFilmError, match="the rest is missing"):
        frames.extend(shots(look_at(str(tmp_path / "cut.mkv"))))
    assert 0 < len(frames) < 40


def test_a_sentence_comes_back(tmp_path):
    apart.decode_apart()
    (tmp_path / "a.png").write_bytes(b"Dear sir")
    with pytest.raises(ImageError, match=r"a\.png' is not a picture that can be read: give a PNG"):
        imagefile.read(tmp_path / "a.png")
    with pytest.raises(UsageError, match="too many for a name"):
        imagefile.read("x" * 300)


def _fail(source, kind):
    yield {}
    raise {"unknown": UnknownNameError("sample", source, ["coffee"]), "store": StoreError(source)}[kind]


@pytest.mark.parametrize(("kind", "error"), [("unknown", UsageError), ("store", StoreError)])
def test_an_error_keeps_its_kind_and_what_came_before_it(kind, error):
    found = apart.answers(_fail, "cofee", kind)
    assert next(found) == {}
    with pytest.raises(error, match="cofee"):
        next(found)


def test_the_system_limits_memory(tmp_path, monkeypatch):
    PIL.Image.new("RGB", (6000, 6000)).save(tmp_path / "a.png")
    apart.decode_apart()
    assert imagefile.read(tmp_path / "a.png").image.shape == (3, 6000, 6000)
    monkeypatch.setattr(apart, "MEMORY", 2**28)
    with pytest.raises(ImageError, match=r"more memory|too much memory"):
        imagefile.read(tmp_path / "a.png")


def _spin(source):
    yield {"process": os.getpid()}
    apart.limit_time(1)
    while True:
        pass


def _crash(source):
    yield {"process": os.getpid()}
    os.abort()


def _wait(source):
    yield {"process": os.getpid()}
    time.sleep(1000)


@pytest.mark.parametrize("harm", [_spin, _crash, _wait])
def test_what_hangs_or_crashes_is_ended(monkeypatch, harm):
    if harm is _wait:
        monkeypatch.setattr(apart, "SECONDS", 2)
    found, begun = apart.answers(harm, "a.png"), time.monotonic()
    process = next(found)["process"]
    with pytest.raises(ImageError, match=r"'a\.png' took too long or too much memory to decode, or broke the decoder"):
        next(found)
    assert time.monotonic() - begun < 30
    assert not psutil.pid_exists(process)


def test_one_that_nobody_listens_to_is_ended():
    with closing(apart.answers(_wait, "a.png")) as found:
        process = next(found)["process"]
    assert not psutil.pid_exists(process)


def _counted(source):
    for number in range(3):
        spent = time.process_time()
        while time.process_time() < spent + 1.2:
            pass
        yield {"number": number}


def test_time_is_counted_for_each_answer(monkeypatch):
    """A film of hours is not too long: three answers of 1.2 s each, of which 2 may take."""
    monkeypatch.setattr(apart, "SECONDS", 2)
    assert [told["number"] for told in apart.answers(_counted, "a.png")] == [0, 1, 2]


def _objects(source):
    yield {"a": np.array([1, 2, 3]), "b": np.zeros((2, 0)), "c": np.float32([[1.5]]), "d": None}


def test_only_numbers_come_back():
    told = apart.answer(_objects, "")
    assert {name: value.dtype for name, value in told.items() if name != "d"} == dict.fromkeys("abc", np.float32)
    assert told["b"].shape == (2, 0)
    assert told["c"].tolist() == [[1.5]]
    assert told["d"] is None


def test_a_server_loads_no_decoder_for_a_strangers_picture(tmp_path):
    """HEIC's decoder, a large C library, is not in a process that has had its pictures decoded apart."""
    import pillow_heif

    pillow_heif.from_pillow(PIL.Image.new("RGB", (64, 48), "red")).save(tmp_path / "a.heic")
    script = (
        "from phosphene import apart, imagefile; from phosphene.imagefile import streaming; import sys;"
        "apart.decode_apart(sys.argv[2] == 'apart'); path = sys.argv[1];"
        "print(imagefile.look(path).size, imagefile.read(path).size, streaming.look(path).size);"
        "print('heif' in open('/proc/self/maps').read())"
    )
    for where, loaded in (("here", "True"), ("apart", "False")):
        command = [sys.executable, "-c", script, str(tmp_path / "a.heic"), where]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        assert said == ["(48, 64) (48, 64) (48, 64)", loaded]
