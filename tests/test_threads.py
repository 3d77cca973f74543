"""Threads take turns at networks: one may load or trace a network while another dreams."""

import threading

import pytest
import torch

from phosphene.networks.inspect import untrained_network
from phosphene.networks.layers import describe


@pytest.mark.slow
def test_a_network_is_traced_while_another_one_runs():
    network = untrained_network("efficientnet_lite0")
    features = network.features(("blocks.1.0.bn2",))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = features(image)["blocks.1.0.bn2"]
    errors, done = [], threading.Event()

    def run():
        while not done.is_set():
            try:
                assert torch.equal(features(image)["blocks.1.0.bn2"], expected)
            except BaseException as error:
                errors.append(error)
                return

    runner = threading.Thread(target=run)
    runner.start()
    try:
        for _ in range(4):
            describe(untrained_network("efficientnet_lite0"), (64, 64))
    finally:
        done.set()
        runner.join()
    assert errors == []
