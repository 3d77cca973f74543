"""Counts multiplications and additions: those that are done, by whichever convolution does them."""

from contextlib import ExitStack
from math import prod
from unittest.mock import patch

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from phosphene.engine.cpu import pointwise
from phosphene.engine.cpu.winograd import Spectrum


class Operations(TorchDispatchMode):
    """Counts those of convolutions and matrix products, PyTorch's and ours. PyTorch's own counter does not go through a
    gradient.
    """

    total = 0

    def __enter__(self):
        convolve, convolve_places = Spectrum.convolve, pointwise.convolve

        def counted(spectrum, x, bias, size, before, left_out, *arguments, **options):
            windows = len(x) * prod(spectrum.grid(size, left_out))
            self.total += 2 * spectrum.points * windows * spectrum.channels * spectrum.filters
            return convolve(spectrum, x, bias, size, before, left_out, *arguments, **options)

        def counted_places(x, packed, shift, *arguments, **options):
            self.total += 2 * x.numel() * len(shift)
            return convolve_places(x, packed, shift, *arguments, **options)

        self.patches = ExitStack()
        self.patches.enter_context(patch.object(Spectrum, "convolve", counted))
        self.patches.enter_context(patch.object(pointwise, "convolve", counted_places))
        return super().__enter__()

    def __exit__(self, *error):
        self.patches.close()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result
