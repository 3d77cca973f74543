"""A Ray cluster: joining one, a `map` over its actors for strips and tiles, and a pool for films. No dream mathematics.

The store is on storage that all machines share, and the actors read and write it; only numbers come back. An actor
keeps the network that its first tile has loaded. One that dies is started again, and does once more what it had in
hand.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch

from phosphene.errors import UsageError
from phosphene.malloc import keep_freed
from phosphene.setup.memory import SHARE
from phosphene.types import Map

Submit = Callable[..., Future[Any]]
"""`submit(function, *arguments)` has a function applied elsewhere."""

STORE_BYTES = 100_000_000
"""Ray's own shared memory on this machine; no pixel goes through it."""

KNOCK = 5
"""Seconds in which a cluster must answer a connection."""

LEAST_SHARE = 2 * 10**9
"""The least memory of a worker, in bytes; fewer are started to have it. Python, PyTorch and kernels take half."""

PORTIONS = 4
"""Portions for each worker of what is mapped at a time, if it is so much: each costs the driver a few milliseconds at
most, and what a worker holds when it dies is lost."""


@contextmanager
def cluster_map(address: str, device: str, workers: int | None = None) -> Iterator[Map]:
    """Connect to a cluster, or start one on this machine (`local`), and give a `map` over its workers.

    There are as many workers as the cluster has processors, or GPUs where `device` is one, and memory for; each
    computes with one thread. Results come in order. Raises as `crew` does.
    """
    with joined(address, STORE_BYTES) as ray:
        gpus = 1 if device.startswith("cuda") else 0
        count = workers or _crew_of(_machines(ray, address, device))[0]
        hired = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=1, num_gpus=gpus)(Worker)
        actors = [hired.remote() for _ in range(count)]

        def over(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            kept, pool = ray.put(function), ray.util.ActorPool(actors)  # an older pool holds the errors of before
            try:
                for found in pool.map(lambda worker, part: worker.apply.remote(kept, part), portions(items, count)):
                    yield from found
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None

        try:
            yield over
        finally:
            for actor in actors:  # whoever belongs to the cluster still wants their processors
                ray.kill(actor)


@contextmanager
def cluster_pool(address: str, device: str) -> Iterator[tuple[Submit, int]]:
    """Connect to a cluster as `cluster_map` does, and give what has a function applied by one of its workers, and how
    many of them there are.

    Workers stand in this process's working folder. One that dies is replaced, and begins anew with what it had in hand.
    """
    with joined(address, STORE_BYTES) as ray:
        gpus = 1 if device.startswith("cuda") else 0
        hired = ray.remote(max_retries=-1, num_cpus=1, num_gpus=gpus)(_apply)
        given: list[Any] = []

        def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            task = hired.remote(os.getcwd(), function, *arguments)
            given.append(task)
            found: Future[Any] = task.future()
            return found

        try:
            yield submit, int(ray.cluster_resources().get(_kind(device), 1))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        finally:
            for task in given:
                ray.cancel(task, force=True)


def crew(address: str, device: str) -> tuple[int, int]:
    """Return how many workers `cluster_map` has, and the bytes that each may take on the machine where that is least.

    A cluster on this machine is not started for it. `UsageError` where there is no cluster at `address`, none of its
    machines has what `device` asks for, or there is no Ray.
    """
    if address == "local" and not check_cluster(address).is_initialized():
        return _crew_of([(psutil.cpu_count() or 1, SHARE * psutil.virtual_memory().available)])
    with joined(address, STORE_BYTES) as ray:
        return _crew_of(_machines(ray, address, device))


def _machines(ray: Any, address: str, device: str) -> list[tuple[float, float]]:
    """Return of each machine of a cluster how many workers it has processors or GPUs for, and its memory."""
    kind = _kind(device)
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"] and kind in node["Resources"]]
    if not alive:
        raise UsageError(f"no machine of the Ray cluster at {address!r} has a {kind}")
    return [(machine[kind], machine["memory"]) for machine in alive]


def _crew_of(machines: list[tuple[float, float]]) -> tuple[int, int]:
    """Return how many workers there are on machines, and the memory of each where that is least."""
    counts = [max(1, min(int(most), int(memory / LEAST_SHARE))) for most, memory in machines]
    shares = [memory / count for (_, memory), count in zip(machines, counts, strict=True)]
    return sum(counts), int(min(shares))


def _kind(device: str) -> str:
    """Return what a worker needs one of, in Ray's words."""
    return "GPU" if device.startswith("cuda") else "CPU"


def _apply(folder: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: apply a function, with one thread."""
    os.chdir(folder)
    torch.set_num_threads(1)
    keep_freed()
    return function(*arguments)


@contextmanager
def joined(address: str, store: int | None = None) -> Iterator[Any]:
    """Within, this process belongs to the cluster at `address`; gives Ray. One that it belongs to already is kept.

    `local` starts a cluster on this machine, whose shared memory has `store` bytes, or as many as Ray takes.
    `UsageError` where there is no cluster at `address`, none could be started, or there is no Ray.
    """
    ray = check_cluster(address)
    ours = not ray.is_initialized()
    if ours:
        start = {"object_store_memory": store, "include_dashboard": False} if address == "local" else {}
        failure = f"there is no Ray cluster at {address!r}" if address != "local" else "Ray did not start here"
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **start)
        except Exception as error:  # Ray raises whatever its many parts do
            raise UsageError(f"{failure}: {error}") from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


class Worker:
    """What an actor is: a process that applies functions."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        keep_freed()

    def apply(self, function: Callable[[Any], Any], portion: list[Any]) -> list[Any]:
        """Apply a function to some strips or batches of tiles."""
        return [function(item) for item in portion]


def portions(items: Iterable[Any], workers: int) -> list[list[Any]]:
    """Cut items into portions that are handed out one at a time: `PORTIONS` or more for each worker, all alike."""
    items = list(items)
    each = max(1, len(items) // (workers * PORTIONS))
    return [items[first : first + each] for first in range(0, len(items), each)]


def check_cluster(address: str) -> Any:
    """Return Ray; `UsageError` without it, or where nobody listens at HOST:PORT or ray://HOST:PORT, at which Ray tries
    for minutes."""
    ray = _ray()
    try:
        place = urlsplit(f"//{address.removeprefix('ray://')}")
        if place.hostname and place.port and not ray.is_initialized():
            socket.create_connection((place.hostname, place.port), KNOCK).close()
    except (OSError, ValueError) as error:  # ValueError for a port that is no number
        raise UsageError(f"there is no Ray cluster at {address!r}: {error}") from error
    return ray


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.util
    except ImportError:
        raise UsageError("a cluster needs Ray: pip install 'phosphene[cluster]'") from None
    return ray
