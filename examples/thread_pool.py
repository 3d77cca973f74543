"""In a pool of threads. They take turns at the network, so that each dream is what it would be alone."""

from concurrent.futures import ThreadPoolExecutor

import torch

import phosphene


def dream(seed: int) -> torch.Tensor:
    """Dream with a seed."""
    return phosphene.dream("sample:coffee", size=64, steps=2, octaves=1, seed=seed).image


with ThreadPoolExecutor(3) as pool:
    together = list(pool.map(dream, range(3)))
assert torch.equal(together[2], dream(2))
