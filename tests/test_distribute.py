"""A real Ray cluster of several processes on this machine: the bytes of one process, whoever dies."""

import os
import random
import signal
import socket
import threading

import psutil
import pytest
import torch

from phosphene import imagefile
from phosphene.dreaming.resample import resize
from phosphene.errors import StoreError, UsageError
from phosphene.job import prepare, resume, run
from phosphene.recipe import own
from phosphene.recipe.settings import Recipe

pytest.importorskip("ray")
from phosphene.cluster import PORTIONS, STORE_BYTES, _crew_of, cluster_map, crew, joined, portions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray leaves sockets and files open
]

RECIPE = Recipe(layers=("blocks.1.1",), octaves=2, steps=6, size="full", tile=64, jitter=20, step_size=0.03)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("photograph") / "coffee.tif"
    imagefile.write(path, resize(imagefile.read("sample:coffee").image, (150, 210)))
    return path


@pytest.fixture(scope="module")
def alone(photograph, tmp_path_factory):
    """The picture that one process makes."""
    target = tmp_path_factory.mktemp("alone") / "out.tif"
    run(prepare(str(photograph), RECIPE, "cpu", "1B", output=target)).save()
    return target.read_bytes()


def on_cluster(photograph, target):
    return prepare(str(photograph), RECIPE, "cpu", cluster="local", output=target)


@pytest.fixture(scope="module")
def cluster():
    with joined("local", STORE_BYTES) as ray:
        yield ray


def workers():
    """The processes that hold actors now."""
    return [process for process in psutil.Process().children(recursive=True) if "ray::Worker" in named(process)]


def named(process):
    try:
        return " ".join(process.cmdline() or [process.name()])
    except psutil.Error:  # it has gone meanwhile
        return ""


@pytest.mark.parametrize("address", ["{}", "ray://{}"])
def test_no_cluster_there(address):
    """A port that was just given back is dead."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = address.format(f"127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(UsageError, match=f"no Ray cluster at '{there}': .*refused"), cluster_map(there, "cpu"):
        pass


@pytest.mark.parametrize("address", ["host:port", "host:99999", "[::1"])
def test_what_is_no_address(address):
    with pytest.raises(UsageError, match="there is no Ray cluster at "), cluster_map(address, "cpu"):
        pass


def test_a_cluster_makes_the_same_bytes(cluster, photograph, alone, tmp_path):
    target = tmp_path / "out.tif"
    run(on_cluster(photograph, target)).save()
    assert target.read_bytes() == alone


@pytest.mark.parametrize("at_a_time", [1, PORTIONS])
def test_workers_that_are_killed_cost_nothing_else(cluster, photograph, alone, tmp_path, monkeypatch, at_a_time):
    monkeypatch.setattr("phosphene.cluster.PORTIONS", at_a_time)
    target, chance, killed, done = tmp_path / "out.tif", random.Random(0), [], threading.Event()

    def kill():
        while not done.wait(chance.uniform(0.1, 0.3)):
            for process in workers()[:1]:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
            if len(killed) >= 3:
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run(on_cluster(photograph, target)).save()
    finally:
        done.set()
        killer.join()
    assert killed
    assert target.read_bytes() == alone


def test_an_error_in_a_worker_is_ours(cluster, photograph, tmp_path):
    stop = threading.Event()
    stop.set()
    job = on_cluster(photograph, tmp_path / "out.tif")
    run(job, stop=stop)
    chunk = next(path for path in (job.resumable / "photograph" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    with pytest.raises(StoreError, match="misses a chunk"):
        run(resume(job.resumable, cluster="local"))


def test_a_norm_of_ones_own_travels_to_the_workers(cluster, photograph, tmp_path):
    half = own.norm(lambda gradient: gradient.sign() / 2, "half", margin=0)
    recipe = RECIPE.but(norm=half, octaves=1, steps=1)
    found = run(prepare(str(photograph), recipe, "cpu", cluster="local", output=tmp_path / "out.tif"))
    assert torch.equal(found.image, run(prepare(str(photograph), recipe, "cpu")).image)


def test_as_many_workers_are_planned_for_as_there_are(cluster):
    count, share = crew("local", "cpu")
    assert 1 <= count <= cluster.cluster_resources()["CPU"]
    assert 0 < share <= psutil.virtual_memory().total / count
    with cluster_map("local", "cpu") as over:
        assert list(over(torch.tensor, range(8 * count))) == list(range(8 * count))
        assert len(workers()) == count
    with pytest.raises(UsageError, match="no machine of the Ray cluster at 'local' has a GPU"):
        crew("local", "cuda:0")


def test_a_cluster_that_is_not_there_yet_has_the_processors_of_this_machine(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    count, share = crew("local", "cpu")
    assert 1 <= count <= psutil.cpu_count()
    assert share * count < psutil.virtual_memory().available


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ([(16, 10**12)], (16, 10**12 // 16)),
        ([(16, 14 * 10**9)], (7, 2 * 10**9)),
        ([(4, 10**9)], (1, 10**9)),
        ([(8, 64 * 10**9), (2, 3 * 10**9)], (9, 3 * 10**9)),
    ],
)
def test_there_are_no_more_workers_than_there_is_memory_for(machines, expected):
    assert _crew_of(machines) == expected


def test_results_come_in_order(cluster):
    with cluster_map("local", "cpu", workers=2) as over:
        for count in (0, 1, 20, 100):
            assert list(over(torch.tensor, range(count))) == list(range(count))


def test_workers_leave_when_their_work_is_done(cluster):
    """Else the next ones would wait for their processors."""
    for _ in range(2):
        with cluster_map("local", "cpu") as over:
            assert list(over(torch.tensor, [1])) == [1]
            assert workers()


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (5, 2), (100, 2), (4001, 64)])
def test_portions_are_all_of_it_and_enough_to_share(count, workers):
    found = portions(range(count), workers)
    assert [item for portion in found for item in portion] == list(range(count))
    assert len(found) >= min(count, PORTIONS * workers)
    assert len(found) <= 2 * PORTIONS * workers
