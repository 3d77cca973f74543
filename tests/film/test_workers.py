"""Films dreamed by several processes: the frames of one, stopped and killed too."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import phosphene
from phosphene.cli import run as command
from phosphene.cluster import STORE_BYTES, joined
from phosphene.errors import BrokenFilmError, UsageError
from phosphene.film import workers

from .conftest import SMALL, decoded, packets


@pytest.fixture(scope="module")
def one(film, tmp_path_factory):
    """The film by one process with one thread, carried over and not."""
    folder, threads = tmp_path_factory.mktemp("one"), torch.get_num_threads()
    torch.set_num_threads(1)
    for carry in (True, False):
        phosphene.animate(film, folder / f"{carry}.mp4", carry=carry, **SMALL)
    torch.set_num_threads(threads)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("carry", [True, False], ids=["scenes", "frames"])
def test_several_processes_dream_the_same_film(film, one, tmp_path, carry):
    heard = []
    target = phosphene.animate(film, tmp_path / "dream.mp4", workers=2, carry=carry, on_frame=heard.append, **SMALL)
    assert all(map(torch.equal, decoded(target), decoded(one / f"{carry}.mp4")))
    assert packets(target, "audio") == packets(one / f"{carry}.mp4", "audio")
    assert [now.frame.index for now in heard] == [*range(1, 13)]
    if carry:
        assert [now.frame.index for now in heard if now.frame.begins] == [1, 9]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.slow
def test_stopped_or_killed_it_ends_in_the_same_frames(film, one, tmp_path):
    target, stop = tmp_path / "dream.mp4", threading.Event()
    folder = tmp_path / "dream.mp4.phosphene"
    assert phosphene.animate(film, target, workers=2, on_frame=lambda _: stop.set(), stop=stop, **SMALL) is None
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    assert kept
    words = [sys.executable, "-m", "phosphene", "resume", str(folder)]
    child = subprocess.Popen(words, env=os.environ, stderr=subprocess.DEVNULL, start_new_session=True)
    while len(list(folder.glob("*.png"))) <= len(kept):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)  # the parent alone: its workers end with it
    child.wait()
    assert _empty(child.pid)
    assert command(["resume", str(folder)]) == 0
    assert all(map(torch.equal, decoded(target), decoded(one / "True.mp4")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files open
def test_a_cluster_dreams_the_same_film(film, one, tmp_path, monkeypatch):
    """A real one; stopped, gone on with, and a film named from the folder in which one stands."""
    pytest.importorskip("ray")
    target, stop = tmp_path / "dream.mp4", threading.Event()
    monkeypatch.chdir(film.parent)
    with joined("local", STORE_BYTES):
        told = {"on_frame": lambda now: now.frame.index == 2 and stop.set(), "stop": stop}
        assert phosphene.animate(film.name, target, cluster="local", **told, **SMALL) is None
        assert phosphene.resume_film(f"{target}.phosphene", cluster="local") == target
        assert all(map(torch.equal, decoded(target), decoded(one / "True.mp4")))
    assert list(tmp_path.iterdir()) == [target]


def _empty(group: int) -> bool:
    """Whether a group of processes has ended within a while."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def bright(a):
    return a["blocks.1.1"].mean()


@pytest.mark.slow
def test_a_network_of_ones_own_is_taken_along(film, tmp_path, monkeypatch):
    code = "import torch\ntorch.manual_seed(0)\nnet = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))\n"
    (tmp_path / "mynet.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    given = ["--model", "mynet:net", "--layer", "0", "--octaves", "1", "--steps", "1", "--no-carry", "--seconds", "0.2"]
    assert command(["animate", str(film), "-o", "dream.mkv", "--workers", "2", *given]) == 0
    assert command(["replay", "dream.mkv", "-o", "again.mkv", "--model", "mynet:net"]) == 0
    assert all(map(torch.equal, decoded(tmp_path / "dream.mkv"), decoded(tmp_path / "again.mkv")))
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
    with pytest.raises(UsageError, match="other processes do not have own/Sequential"):
        phosphene.animate(film, "out.mkv", workers=2, model=module, layers="0")
    with pytest.raises(UsageError, match="other processes do not have bright"):
        phosphene.animate(film, "out.mkv", workers=2, layers=bright)
    assert not Path("out.mkv.phosphene").exists()
    stop = threading.Event()
    told = {"on_frame": lambda _: stop.set(), "stop": stop, "octaves": 1, "steps": 1}
    assert phosphene.animate(film, "out.mkv", model=module, layers="0", **told) is None
    assert phosphene.resume_film("out.mkv.phosphene", model=module) == Path("out.mkv")


def test_no_workers_are_told(film, tmp_path):
    with pytest.raises(UsageError, match="0 workers dream nothing"):
        phosphene.animate(film, tmp_path / "dream.mp4", workers=0, **SMALL)
    with pytest.raises(UsageError, match="a cluster has workers of its own"):
        phosphene.animate(film, tmp_path / "dream.mp4", workers=2, cluster="local", **SMALL)


def test_a_scene_is_dreamed_while_later_cuts_are_looked_for():
    """The first is there before the last is known; what looks for them ends with who wants them."""
    first_is_there, seen = threading.Event(), []

    def scenes(stopped):
        yield "first"
        assert first_is_there.wait(60)
        yield "second"
        while not stopped():
            time.sleep(0.01)
        seen.append("stopped")

    ahead = workers._taken_ahead(scenes, threading.Event())
    assert next(ahead) == "first"
    first_is_there.set()
    assert next(ahead) == "second"
    ahead.close()
    assert seen == ["stopped"]


def test_what_ends_the_search_for_cuts_comes_after_the_scenes():
    def scenes(stopped):
        yield "first"
        raise BrokenFilmError("it breaks off")

    ahead = workers._taken_ahead(scenes, threading.Event())
    assert next(ahead) == "first"
    with pytest.raises(BrokenFilmError, match="it breaks off"):
        next(ahead)
