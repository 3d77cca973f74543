"""What kernels are given, and how they share their work."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from phosphene.engine.conv import FrozenConv
from phosphene.engine.cpu import kernel as launching
from phosphene.engine.cpu.kernel import Array, Bools, Bytes, Floats, Scratch, kernel, next_part, run, share, unpack

Numbers = Annotated[torch.Tensor, Array("int64", 1)]


class Inner(NamedTuple):
    bits: Bools
    whole: int


class Everything(NamedTuple):
    numbers: Floats
    table: Annotated[torch.Tensor, Array("float32", 2)]
    inner: Inner
    bytes_: Bytes
    found: Annotated[torch.Tensor, Array("int64", 2)]
    real: float
    three: tuple[int, int, int]
    scratch: Scratch


@kernel(Everything)
def note(thread, threads, block):
    """Write down what the second thread is given; each thread sums its own row."""
    a = unpack(block, Everything)
    numbers, table, (bits, whole), bytes_, found, real, three, own = a
    own[thread, :] = thread + whole
    if thread == 1:
        found[0, :4] = np.array([thread, threads, whole, three[0] + 10 * three[1] + 100 * three[2]])
        found[1, 0] = round(1000 * real)
        found[1, 1] = round(numbers[2] + 10 * table[1, 2])
        found[1, 2] = bits.size + 10 * bits[1] + 100 * bytes_[1, 0, 2, 1]
        found[1, 3], found[1, 4], found[1, 5] = bytes_.shape[2], table.shape[1], own.shape[1]
    numbers[thread] = own[thread, 6]


class Count(NamedTuple):
    places: Numbers


@kernel(Count)
def count(thread, threads, block):
    """Count each place once."""
    places = unpack(block, Count).places
    first, last = share(thread, threads, places.size)
    for place in range(first, last):
        places[place] += 1


ONCE = 100


class Take(NamedTuple):
    order: Numbers
    parts: int
    held_up: int


@kernel(Take)
def take(thread, threads, block):
    """Write down in which order the parts are taken. One thread is held up, and takes none."""
    order, parts, held_up = unpack(block, Take)
    taken, part = 0, -1 if thread == held_up else next_part(thread, threads, block, parts)
    while part >= 0:
        order[part] += ONCE + taken
        taken += 1
        part = next_part(thread, threads, block, parts)


def test_a_kernel_gets_what_it_is_given():
    numbers, table = torch.tensor([1.0, 2.0, 3.0]), torch.arange(8.0).view(2, 4)
    bytes_ = torch.arange(24, dtype=torch.uint8).view(2, 1, 4, 3)
    found = torch.zeros(2, 6, dtype=torch.int64)
    inner = Inner(torch.tensor([False, True]), -7)
    run(note, Everything(numbers, table, inner, bytes_, found, 0.125, (1, 2, 3), 7), threads=2)
    assert found[0, :4].tolist() == [1, 2, -7, 321]
    assert found[1].tolist() == [125, 3 + 60, 2 + 10 + 100 * int(bytes_[1, 0, 2, 1]), 4, 4, 7]
    assert numbers.tolist() == [-7.0, -6.0, 3.0]


def test_nothing_is_run_for_shapes_alone(monkeypatch):
    ran = []
    monkeypatch.setattr(type(count), "run", lambda _, threads, arguments: ran.append(arguments))
    with FakeTensorMode():
        run(count, Count(torch.zeros(3, dtype=torch.int64)))
    assert not ran
    run(count, Count(torch.zeros(3, dtype=torch.int64)))
    assert len(ran) == 1


@pytest.mark.parametrize("places", [torch.zeros(4, 4, dtype=torch.int64)[:, 0], torch.zeros(4)])
def test_a_tensor_that_would_be_read_as_something_else_is_refused(places):
    with pytest.raises(ValueError, match=r"read as torch\.int64, contiguous"):
        run(count, Count(places))


class Table(NamedTuple):
    table: Annotated[torch.Tensor, Array("float32", 2)]


@kernel(Table)
def turn(thread, threads, block):
    """Never run."""


def test_a_table_that_lies_in_another_order_is_refused():
    with pytest.raises(ValueError, match=r"read as torch\.float32, contiguous"):
        run(turn, Table(torch.zeros(4, 3).T))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_the_work(threads):
    places = torch.zeros(1000, dtype=torch.int64)
    run(count, Count(places), threads)
    assert (places == 1).all()


@pytest.mark.parametrize("parts", [0, 1, 2, 7])
@pytest.mark.parametrize("threads", [1, 2])
def test_each_part_is_taken_once(parts, threads):
    order = torch.zeros(parts, dtype=torch.int64)
    for _ in range(20):
        run(take, Take(order.zero_(), parts, -1), threads)
        assert ((order >= ONCE) & (order < 2 * ONCE)).all()


@pytest.mark.parametrize(("held_up", "order"), [(0, [4, 5, 6, 0, 1, 2, 3]), (1, [0, 1, 2, 3, 4, 5, 6])])
def test_what_a_thread_does_not_come_to_is_done_by_another(held_up, order):
    found = torch.zeros(7, dtype=torch.int64)
    run(take, Take(found, 7, held_up), threads=2)
    assert (found - ONCE).tolist() == order


def test_the_defaults_of_new_tensors_do_not_matter():
    conv = FrozenConv(nn.Conv2d(16, 16, 3).requires_grad_(False))
    x = torch.randn(1, 16, 9, 9)
    wanted = conv(x)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(conv(x), wanted)
        with torch.device("meta"):
            assert torch.equal(conv(x), wanted)
    finally:
        torch.set_default_dtype(before)


def test_a_tensor_that_is_elsewhere_is_refused():
    with pytest.raises(ValueError, match="on meta"):
        run(count, Count(torch.zeros(4, dtype=torch.int64, device="meta")))


@pytest.mark.slow
def test_a_kept_kernel_is_made_anew_when_what_is_compiled_into_it_changes(tmp_path):
    """Here the order of an array's numbers, on both sides."""
    package = Path(launching.__file__).parents[2]
    copied = tmp_path / "phosphene"
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import torch
from phosphene.engine.cpu import kernel as launching
from phosphene.engine.cpu import loops as kernels
assert launching.__file__.startswith({root!r})
values = torch.tensor([-1.0, 2.0, 0.5, 3.0])
values, mask = kernels.clamp_(values, 0.0, 1.0)
assert values.tolist() == [0, 1, 0.5, 1] and mask.tolist() == [False, False, True, False]
"""
    settings = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    command = [sys.executable, "-c", script.format(root=str(tmp_path))]
    subprocess.run(command, env=settings, check=True)
    path = copied / "engine/cpu/kernel.py"
    source = path.read_text()
    changed = source.replace("return tensor.data_ptr(), tensor.numel()", "return tensor.numel(), tensor.data_ptr()")
    changed = changed.replace("    address, *shape = words\n", "    *shape, address = words\n")
    assert changed.count("*shape, address = words") == changed.count("return tensor.numel(), tensor.data_ptr()") == 1
    path.write_text(changed)
    subprocess.run(command, env=settings, check=True)
