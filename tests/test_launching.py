"""What kernels are given, and how they share their work."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from phosphene.models import launching
from phosphene.models.launching import arguments, compiled, run

ALL = "float32[1] float32[2] bool[1] uint8[4] int64[2] int float int[3] float32[2]"


@compiled(ALL)
def note(thread, threads, block):
    """Write down what the second thread is given; each thread sums its own row."""
    numbers, table, bits, bytes_, found, whole, real, three, own = arguments(block, ALL)
    own[thread] += thread + whole
    if thread == 1:
        found[0, :4] = np.array([thread, threads, whole, three[0] + 10 * three[1] + 100 * three[2]])
        found[1, 0] = round(1000 * real)
        found[1, 1] = round(numbers[2] + 10 * table[1, 2])
        found[1, 2] = bits.size + 10 * bits[1] + 100 * bytes_[1, 0, 2, 1]
        found[1, 3], found[1, 4], found[1, 5] = bytes_.shape[2], table.shape[1], own.shape[1]
    numbers[thread] = own[thread, 6]


COUNT = "int64[1]"


@compiled(COUNT)
def count(thread, threads, block):
    """Count each place once."""
    (places,) = arguments(block, COUNT)
    for place in range(thread * places.size // threads, (thread + 1) * places.size // threads):
        places[place] += 1


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_kernel_gets_what_it_is_given(two_threads, monkeypatch):
    monkeypatch.setattr(launching, "MOST_THREADS", 2)
    monkeypatch.setattr(torch, "empty", torch.zeros)
    numbers, table = torch.tensor([1.0, 2.0, 3.0]), torch.arange(8.0).view(2, 4)
    bytes_ = torch.arange(24, dtype=torch.uint8).view(2, 1, 4, 3)
    found = torch.zeros(2, 6, dtype=torch.int64)
    run(note, numbers, table, torch.tensor([False, True]), bytes_, found, -7, 0.125, (1, 2, 3), own=7)
    assert found[0, :4].tolist() == [1, 2, -7, 321]
    assert found[1].tolist() == [125, 3 + 60, 2 + 10 + 100 * int(bytes_[1, 0, 2, 1]), 4, 4, 7]
    assert numbers.tolist() == [-7.0, -6.0, 3.0]


def test_only_shapes(two_threads):
    with FakeTensorMode():
        run(note, torch.zeros(3))  # anything else would be needed, if it were run


@pytest.mark.parametrize("places", [torch.zeros(4, 4, dtype=torch.int64)[:, 0], torch.zeros(4)])
def test_a_tensor_that_would_be_read_as_something_else_is_refused(places):
    with pytest.raises(ValueError, match=r"not contiguous torch\.int64"):
        run(count, places)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_work(threads, two_threads, monkeypatch):
    monkeypatch.setattr(launching, "MOST_THREADS", 2)
    torch.set_num_threads(threads)
    places = torch.zeros(1000, dtype=torch.int64)
    run(count, places)
    assert (places == 1).all()
