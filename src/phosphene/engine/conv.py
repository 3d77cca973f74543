"""Convolutions with frozen weights, for networks of which only the gradient of the image is wanted.

A frozen convolution is a linear map, and its gradient is the adjoint map: nothing but the shape of its input is needed
on the way back. The clamp that follows it (ReLU, ReLU6) is taken along, and all that is kept of it is a mask, one byte
an output.
"""

from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.engine.algorithms import ALGORITHMS, Algorithm, Convolution, Direct
from phosphene.engine.clamp import FrozenClamp, Grad
from phosphene.engine.layout import every
from phosphene.engine.tuning import Policy, needs_pytorch


class FrozenConv(Convolution):
    """A convolution whose weights are never trained, and the clamp that follows it, or that follows its sum with
    another tensor, if it is pointwise.

    `returns_input`: the input is returned too, for others to read, so that their gradient is added while this one's is
    computed. `owns_grad` and `owns_side_grad`: the gradients that come back for the output, and for the input from its
    other readers, are fresh tensors that nobody else holds, and may be overwritten (`rewrite.find_owned_grads`).
    """

    def __init__(self, conv: nn.Conv2d, low: float = -inf, high: float = inf, policy: Policy = Policy()) -> None:
        super().__init__(conv, low, high, policy)
        self.returns_input = self.owns_grad = self.owns_side_grad = False
        self.direct = Direct(self)
        fitting = (kind for kind in ALGORITHMS if kind.fits(self))
        self.algorithm: Algorithm = next(fitting)(self) if self.weight.is_cpu else self.direct

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Convolve `[batch, channels, rows, columns]`, add `addend`, and clamp."""
        if addend is None or not self.is_pointwise or self._gives(x, addend.shape):
            found: Tensor | tuple[Tensor, Tensor] = _Frozen.apply(x, addend, self)
            return found
        y = F.conv2d(x, self.weight, self.bias, self.stride)  # one of the two is broadcast
        y = FrozenClamp(self.low, self.high, self.policy)(y, addend)
        return (y, x) if self.returns_input else y

    def _gives(self, x: Tensor, shape: torch.Size) -> bool:
        return shape == (len(x), len(self.weight), *every(x, self.stride).shape[2:])

    def algorithm_for(self, x: Tensor) -> Algorithm:
        """The fastest algorithm for `x`."""
        return self.direct if needs_pytorch(x) else self.algorithm


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, addend: Tensor | None, conv: FrozenConv) -> Tensor | tuple[Tensor, Tensor]:
        y, mask = conv.algorithm_for(x).forward(x, addend)
        ctx.conv, ctx.shape, ctx.is_sum = conv, x.shape, addend is not None
        ctx.save_for_backward(mask)
        ctx.set_materialize_grads(False)
        return (y, x) if conv.returns_input else y

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, side: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        if grad is None:
            return None if side is None else side.clone(), None, None
        (mask,), conv = ctx.saved_tensors, ctx.conv
        side_grad = None if side is None else Grad(side, conv.owns_side_grad)
        algorithm = conv.algorithm_for(grad)
        return *algorithm.backward_input(Grad(grad, conv.owns_grad), mask, ctx.shape, side_grad, ctx.is_sum), None
