"""Torch's modes that are a thread's own: inference, gradients, autocast. Ours are the same wherever we are called."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

AUTOCAST = ("cpu", "cuda", "mps")


@contextmanager
def undisturbed(gradients: bool = True) -> Iterator[None]:
    """Within, torch computes as it does by default, whatever mode the caller is in.

    Servers and ComfyUI run everything in `torch.inference_mode()`. Tensors that are made there can never take part in a
    gradient, so a network that was loaded there, and kept, would be of no use to anyone after.
    """
    with ExitStack() as modes:
        if torch.is_inference_mode_enabled():
            modes.enter_context(torch.inference_mode(False))
        for device in AUTOCAST:
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        modes.enter_context(torch.set_grad_enabled(gradients))
        yield
