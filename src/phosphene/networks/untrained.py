"""Networks with random weights, whose activations are of a usable size all the same."""

import torch
from torch import Tensor, nn

from phosphene.networks.card import ModelCard
from phosphene.networks.graph import ONE_AT_A_TIME
from phosphene.networks.registry import build
from phosphene.networks.sizes import first_fitting

_CALIBRATION_SIDE = 128  # pixels


def untrained(card: ModelCard, seed: int) -> nn.Module:
    """Return the model's network in evaluation mode, initialised on the CPU as its architecture does, from the seed.

    Its batch norms are calibrated. Constructors draw from torch's own CPU generator, so this seeds that one: callers
    that care for its state fork it.
    """
    torch.default_generator.manual_seed(seed)
    network = build(card)
    network.eval()
    _calibrate(network, card, seed)
    return network


def _calibrate(network: nn.Module, card: ModelCard, seed: int) -> None:
    """Set the batch norms' statistics to what the network itself answers to noise.

    Fresh statistics are 0 and 1, which is far from true at depth: Inception's activations grow to 1e8 and its
    logits to 1e11, beyond half precision. Nothing is learned, but an untrained network with batch norms does
    depend on these images. They have a photograph's spectrum, since white noise would leave out its low
    frequencies, and the statistics would be too small for photographs.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # a plain average, of one batch
        norm.train()
    side = max(_CALIBRATION_SIDE, card.min_side)
    mean, std = (torch.tensor(channels).view(3, 1, 1) for channels in (card.mean, card.std))
    with ONE_AT_A_TIME, torch.no_grad():
        first_fitting(
            lambda size: network((_pink_noise(size[0], seed) - mean) / std), (side, side), card.name, card.min_side
        )
    network.eval()


def _pink_noise(side: int, seed: int) -> Tensor:
    """Return two images [2, 3, side, side] in 0..1 with equal power in every octave, as photographs have.

    Field 1987, Relations between the statistics of natural images and the response properties of cortical cells.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.zeros(2, 3, side, side)
    for grain in (2**k for k in range(1, side.bit_length())):
        coarse = torch.randn(2, 3, grain, grain, generator=generator)
        noise += nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return (0.5 + 0.25 * noise / noise.std()).clamp(0, 1)
