"""Sums that do not depend on how a picture was cut, against Python's fractions."""

from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from phosphene.dreaming.exact_sums import condensed, total

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100), max_size=40)


@hypothesis.given(blocks=st.lists(NUMBERS, max_size=5))
@hypothesis.example(blocks=[[1e100, 1.0, -1e100, 1e-300], [0.1] * 10])
def test_condensed_sums_are_exact(blocks):
    condensed_blocks = [condensed(torch.tensor(block, dtype=torch.float64)) for block in blocks]
    for block, parts in zip(blocks, condensed_blocks, strict=True):
        assert sum(map(Fraction, parts)) == sum(map(Fraction, block))
    assert total(condensed_blocks) == float(sum(Fraction(number) for block in blocks for number in block))


def test_a_block_is_condensed_to_a_few_numbers():
    block = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).square()
    assert len(condensed(block)) <= 3


def test_a_sum_that_is_no_number_stays_none():
    (only,) = condensed(torch.tensor([1.0, float("nan")]))
    assert only != only
    with pytest.raises(ValueError, match="inf"):
        condensed(torch.tensor([1.0, float("inf")]))
