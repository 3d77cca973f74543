"""Convolutions with frozen weights, for networks of which only the gradient of the image is wanted.

A frozen convolution is a linear map, and its gradient is the adjoint map, so the backward pass needs only the shape of
its input. The clamp that follows (ReLU, ReLU6) is fused with it, and all that is saved is the clamp's mask, one byte an
output.
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
    """A convolution with frozen weights, and the clamp behind it. If it is 1x1, a tensor may be added before the clamp.

    `returns_input`: it returns its input too, for the input's other readers, so that their gradient arrives here and is
    added while this one's is computed. `owns_grad`, `owns_side_grad`: the gradient of the output, and that of the other
    readers, are tensors that nothing else holds, so they may be overwritten (`rewrite.find_owned_grads`).
    """

    def __init__(self, conv: nn.Conv2d, low: float = -inf, high: float = inf, policy: Policy = Policy()) -> None:
        super().__init__(conv, low, high, policy)
        self.returns_input = self.owns_grad = self.owns_side_grad = False
        self.direct = Direct(self)
        algorithms = (algorithm for algorithm in ALGORITHMS if algorithm.fits(self))
        self.algorithm: Algorithm = next(algorithms)(self) if self.weight.is_cpu else self.direct

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Convolve `x` [batch, channels, rows, columns], add `addend`, and clamp."""
        if addend is None or not self.is_pointwise or self._result_has_shape(x, addend.shape):
            result: Tensor | tuple[Tensor, Tensor] = _Frozen.apply(x, addend, self)
            return result
        y = F.conv2d(x, self.weight, self.bias, self.stride)  # the sum broadcasts one of the two
        y = FrozenClamp(self.low, self.high, self.policy)(y, addend)
        return (y, x) if self.returns_input else y

    def _result_has_shape(self, x: Tensor, shape: torch.Size) -> bool:
        return shape == (len(x), len(self.weight), *every(x, self.stride).shape[2:])

    def algorithm_for(self, x: Tensor) -> Algorithm:
        """Return the algorithm for `x`: PyTorch's on a GPU or in another precision, else the network's own choice."""
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
