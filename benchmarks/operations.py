"""Counts multiplications and additions: those that are done, by whichever convolution does them."""

from contextlib import ExitStack
from math import prod
from unittest.mock import patch

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from phosphene.engine.cpu import pointwise
from phosphene.engine.cpu.winograd import TransformedWeights


class Operations(TorchDispatchMode):
    """Counts those of convolutions and matrix products, PyTorch's and ours. PyTorch's own counter does not go through a
    gradient.
    """

    total = 0

    def __enter__(self):
        convolve, convolve_1x1 = TransformedWeights.convolve, pointwise.convolve_1x1

        def counted(weights, x, bias, size, lead, crop=(0, 0), **options):
            tiles = len(x) * prod(weights.grid(size, crop))
            self.total += 2 * weights.points * tiles * weights.channels * weights.filters
            return convolve(weights, x, bias, size, lead, crop, **options)

        def counted_1x1(x, packed, bias, *arguments, **options):
            self.total += 2 * x.numel() * len(bias)
            return convolve_1x1(x, packed, bias, *arguments, **options)

        self.patches = ExitStack()
        self.patches.enter_context(patch.object(TransformedWeights, "convolve", counted))
        self.patches.enter_context(patch.object(pointwise, "convolve_1x1", counted_1x1))
        return super().__enter__()

    def __exit__(self, *error):
        self.patches.close()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result
