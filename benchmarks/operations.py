"""Counts multiplications and additions: those that are done, by whichever convolution does them."""

from math import prod
from unittest.mock import patch

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from phosphene.models.winograd import Spectrum


class Operations(TorchDispatchMode):
    """Counts those of convolutions and matrix products, PyTorch's and ours. PyTorch's own counter does not go through a
    gradient.
    """

    total = 0

    def __enter__(self):
        convolve = Spectrum.convolve

        def counted(spectrum, x, bias, size, before, left_out, *arguments, **options):
            windows = len(x) * prod(spectrum.grid(size, left_out))
            self.total += 2 * spectrum.points * windows * spectrum.channels * spectrum.filters
            return convolve(spectrum, x, bias, size, before, left_out, *arguments, **options)

        self.counting = patch.object(Spectrum, "convolve", counted)
        self.counting.start()
        return super().__enter__()

    def __exit__(self, *error):
        self.counting.stop()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result
