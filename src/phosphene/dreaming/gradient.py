"""Features and a scoring to the gradient of an image, by autograd."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.objective import Scoring, View
from phosphene.errors import NonFiniteGradientError
from phosphene.modes import undisturbed
from phosphene.types import Activation, FeaturesFn

Planes = Float[Tensor, "planes height width"]


@undisturbed()
def differentiate(
    features: FeaturesFn,
    scoring: Scoring,
    images: Sequence[Planes],
    views: Sequence[Mapping[str, View] | tuple[float, float]],
    min_side: int = 1,
    cut: str | None = None,
    cut_gradients: Mapping[int, Float[Tensor, "images cut_channels _ _"]] | None = None,
) -> list[tuple[Float[Tensor, " terms"], Float[Tensor, "gradients planes height width"]]]:
    """Return for each image of a batch its terms' scores, and the gradients that the scoring asks for.

    They are one gradient, or one a term when balanced. `views` are the layers' views of what each image is a window of;
    for a whole image, its roll as a fraction is enough. The images have one size; they may be activations too.
    `cut_gradients` are gradients with respect to the activation `cut`, from what lies behind it, by the index of the
    scoring's gradient. Gradients to which neither a layer nor a later stage adds are left out.
    """
    batch = stacked(images)
    pixels = (batch.clone() if batch.is_inference() else batch).requires_grad_(True)
    with _full_precision(pixels.device):
        return _differentiate(features, scoring, pixels, views, min_side, cut, cut_gradients or {})


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Within, cuDNN convolves in float32: by default it rounds to TF32, of 10 bits, and tiles would differ by that."""
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )


def _differentiate(
    features: FeaturesFn,
    scoring: Scoring,
    pixels: Float[Tensor, "images planes height width"],
    views: Sequence[Mapping[str, View] | tuple[float, float]],
    min_side: int,
    cut: str | None,
    cut_gradients: Mapping[int, Float[Tensor, "images cut_channels _ _"]],
) -> list[tuple[Float[Tensor, " terms"], Float[Tensor, "gradients planes height width"]]]:
    activations = features(repeat_up_to(pixels, min_side))
    parts = {name: torch.split(activation, 1) for name, activation in activations.items()}
    scored = [
        _score(scoring, {name: part[index] for name, part in parts.items()}, view) for index, view in enumerate(views)
    ]
    backward_passes = []
    for index, targets in enumerate(zip(*(targets for targets, _ in scored), strict=True)):
        outputs: list[tuple[Tensor, Tensor | None]] = [(target, None) for target in targets if target is not None]
        if cut is not None and index in cut_gradients:
            outputs.append((activations[cut], cut_gradients[index]))
        if outputs:
            backward_passes.append(zip(*outputs, strict=True))
    gradients = [
        torch.autograd.grad(outputs, pixels, grad_outputs, retain_graph=index < len(backward_passes) - 1)[0]
        for index, (outputs, grad_outputs) in enumerate(backward_passes)
    ]
    return [
        (torch.stack(scores), stacked([gradient[index] for gradient in gradients]))
        for index, (_, scores) in enumerate(scored)
    ]


def stacked(images: Sequence[Planes]) -> Float[Tensor, "images planes height width"]:
    """Put images of one size together; a single one is not copied."""
    return images[0][None] if len(images) == 1 else torch.stack(list(images))


def _score(
    scoring: Scoring, activations: Mapping[str, Activation], views: Mapping[str, View] | tuple[float, float]
) -> tuple[list[Tensor | None], list[Tensor]]:
    if isinstance(views, tuple):
        views = {name: View((a.shape[2], a.shape[3]), shift=views) for name, a in activations.items()}
    return scoring(activations, views)


def repeat_up_to(
    images: Float[Tensor, "*batch planes height width"], side: int
) -> Float[Tensor, "*batch planes larger_height larger_width"]:
    """Repeat images whose height or width is below `side` px until it is not."""
    height, width = images.shape[-2:]
    if min(height, width) >= side:
        return images
    rows, columns = max(height, side), max(width, side)
    times = [1] * (images.ndim - 2) + [-(-rows // height), -(-columns // width)]
    return images.repeat(times)[..., :rows, :columns]


def check_finite(scoring: Scoring, scores: Tensor, gradient: Tensor) -> None:
    """Raise `NonFiniteGradientError` that names the layer, unless all is finite."""
    if gradient.sum().isfinite() or torch.isfinite(gradient).all():  # the sum is quick, but may be too large
        return
    finite = torch.isfinite(scores).tolist()
    bad = [score.layer for score, ok in zip(scoring.scores, finite, strict=True) if not ok] or scoring.layers
    raise NonFiniteGradientError(
        f"the gradient of {', '.join(dict.fromkeys(bad))} is not finite; a layer less deep, or another score, may work"
    )
