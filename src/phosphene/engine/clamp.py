"""Clamps (ReLU, ReLU6) that save only a mask for the backward pass: true where low < x < high, one byte an element."""

from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from phosphene.engine import reference
from phosphene.engine.layout import channels_last
from phosphene.engine.tuning import Policy

UNCLAMPED = (-inf, inf)


class Grad(NamedTuple):
    """A gradient, and whether nothing else holds its tensor, so that it may be overwritten."""

    tensor: Tensor
    owned: bool


class FrozenClamp(nn.Module):
    """A clamp of a tensor, or of the sum of two, to `low`..`high`."""

    def __init__(self, low: float, high: float, policy: Policy) -> None:
        super().__init__()
        self.low, self.high, self.policy = low, high, policy

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        """Clamp `x`, or `x + addend`, of any shapes that broadcast; one of the two may be a number."""
        are_alike = isinstance(x, Tensor) and isinstance(addend, Tensor) and x.shape == addend.shape
        if addend is not None and not are_alike:
            x, addend = x + addend, None
        y: Tensor = _Clamped.apply(x, addend, self)
        return y


class _Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, addend: Tensor | None, clamp: FrozenClamp) -> Tensor:
        ctx.is_sum, ctx.policy, limits = addend is not None, clamp.policy, (clamp.low, clamp.high)
        if addend is None:
            y, mask = clamp_(x.clone(), *limits, clamp.policy)
        else:
            y, mask = clamped_sum(x, addend, *limits, clamp.policy)
        ctx.save_for_backward(mask)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (mask,) = ctx.saved_tensors
        grad_x = masked(Grad(grad, owned=False), mask, ctx.policy)
        return grad_x, grad_x if ctx.is_sum else None, None


def clamp_(y: Tensor, low: float, high: float, policy: Policy) -> tuple[Tensor, Tensor]:
    """Clamp `y` in place; return it, and the mask."""
    if not policy.compiles(y):
        return reference.clamp_(y, low, high)
    from phosphene.engine.cpu import loops

    return loops.clamp_(channels_last(y), low, high)


def clamped_sum(x: Tensor, addend: Tensor, low: float, high: float, policy: Policy) -> tuple[Tensor, Tensor]:
    """Return the clamped sum of two tensors of one shape, and the mask."""
    if not (policy.compiles(x) and policy.compiles(addend)):
        return clamp_(x + addend, low, high, policy)
    from phosphene.engine.cpu import loops

    return loops.clamp_sum(channels_last(x), channels_last(addend), low, high)


def masked(grad: Grad, mask: Tensor, policy: Policy) -> Tensor:
    """Return a gradient with zeros where `mask` is false. It is overwritten if it is owned."""
    if not policy.compiles(grad.tensor):
        return reference.masked(grad.tensor, mask)
    from phosphene.engine.cpu import loops

    values, mask = channels_last(grad.tensor), channels_last(mask)
    if grad.owned or values is not grad.tensor:
        return loops.mask_inplace(values, mask)
    return loops.masked_copy(values, mask)
