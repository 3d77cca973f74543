"""Films dreamed by several processes: the frames of one, stopped and killed too."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

import phosphene
from phosphene.cli import run as command
from phosphene.cluster import STORE_BYTES, joined
from phosphene.errors import UsageError

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


def test_no_workers_are_told(film, tmp_path):
    with pytest.raises(UsageError, match="0 workers dream nothing"):
        phosphene.animate(film, tmp_path / "dream.mp4", workers=0, **SMALL)
    with pytest.raises(UsageError, match="a cluster has workers of its own"):
        phosphene.animate(film, tmp_path / "dream.mp4", workers=2, cluster="local", **SMALL)
